//! What an operator is to do in Vault, in the words of its own command line.

use secretfs_wire::KeyName;

use super::answer::{Answer, malformed, not_allowed};
use crate::keys::KeyError;

/// A Transit engine, as commands and policies name it.
pub(super) struct Engine {
    pub(super) mount: String,
    pub(super) namespace: Option<String>,
}

impl Engine {
    /// Such as `transit/encrypt/prod`.
    pub(super) fn path(&self, operation: &str, key: &KeyName) -> String {
        format!("{}/{operation}/{key}", self.mount)
    }

    /// A command that writes at `transit/keys/NAME` and what is below it.
    pub(super) fn command(&self, key: &KeyName, below: &str) -> String {
        let namespace = self.namespace.as_ref().map(|namespace| format!("-namespace={namespace} "));
        format!("`vault write {}-f {}{below}`", namespace.unwrap_or_default(), self.path("keys", key))
    }

    /// Why Vault refuses to encrypt or decrypt: all items of a batch at once.
    pub(super) fn refused(&self, operation: &str, key: &KeyName, answer: &Answer) -> KeyError {
        let path = self.path(operation, key);
        match answer.status.as_u16() {
            200..=299 => answer.not_understood(),
            // Where the token may not make keys, this is also the answer when there is none.
            403 if answer.is_refused_by_policy() => not_allowed(format!(
                "Vault does not let this token use key {key}. Its policy must have `path \"{path}\" \
                 {{ capabilities = [\"update\"] }}`, and if there is no such key, make it with {}",
                self.command(key, "")
            )),
            403 => not_allowed(format!(
                "Vault does not know this token any more, or does not let it use key {key}: give the manager a \
                 new token, whose policy has `path \"{path}\" {{ capabilities = [\"update\"] }}`"
            )),
            404 => not_allowed(format!(
                "there is no Transit engine at {} in this Vault; see vault.mount and vault.namespace",
                self.mount
            )),
            400 if is_no_key(answer) => KeyError::Missing(key.to_string()),
            status => malformed(format!("Vault refuses {path} ({status}){}", answer.words())),
        }
    }

    /// Why Vault refuses to change a key, and what its administrator does instead.
    pub(super) fn not_changed(&self, key: &KeyName, answer: &Answer, instead: &str) -> KeyError {
        match answer.status.as_u16() {
            403 => not_allowed(format!("the manager's token may not change key {key}; {instead}")),
            400 | 404 if is_no_key(answer) => KeyError::Missing(key.to_string()),
            status => not_allowed(format!("Vault does not change key {key} ({status}){}", answer.words())),
        }
    }
}

/// Each path says it in its own words. The last one is what encrypting says instead of making a key of
/// the type that is asked for there.
fn is_no_key(answer: &Answer) -> bool {
    ["key not found", "no existing key", "not supported for this operation"]
        .iter()
        .any(|text| answer.says(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use zeroize::Zeroizing;

    #[test]
    fn a_refusal_says_what_to_do() {
        let engine = Engine { mount: "team/transit".to_owned(), namespace: Some("a/b".to_owned()) };
        let key = "prod".parse().expect("a name");
        for (status, body, expected) in [
            (
                403,
                r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#,
                "`vault write -namespace=a/b -f team/transit/keys/prod`",
            ),
            (
                403,
                r#"{"errors":["permission denied"]}"#,
                r#"path "team/transit/encrypt/prod" { capabilities = ["update"] }"#,
            ),
            (400, r#"{"errors":["encryption key not found"]}"#, "there is no key prod"),
            (404, r#"{"errors":["no handler for route"]}"#, "no Transit engine at team/transit"),
            (405, r#"{"errors":["unsupported operation"]}"#, "(405): unsupported operation"),
        ] {
            let body = Zeroizing::new(body.as_bytes().to_vec());
            let status = StatusCode::from_u16(status).expect("a status");
            let error = engine.refused("encrypt", &key, &Answer { status, retry_after: None, body });
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
