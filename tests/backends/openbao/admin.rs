//! What an OpenBao's administrator does, by its own command-line program.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use super::{OpenBao, clean_environment};

/// Sets things up in one namespace, with the root token. What is refused fails the test.
pub(crate) struct Admin<'a> {
    server: &'a OpenBao,
    namespace: Option<String>,
}

/// What a new token is to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenOptions<'a> {
    /// The only ones: the default policy, with which a token may renew and look up itself, is not
    /// added by itself.
    pub(crate) policies: &'a [&'a str],
    /// How long it lasts, such as `5s`, unless it is renewed.
    pub(crate) ttl: Option<&'a str>,
    /// What each renewal makes its lifetime, with no end to it.
    pub(crate) period: Option<&'a str>,
    /// The end that no renewal moves.
    pub(crate) explicit_max_ttl: Option<&'a str>,
}

/// A new token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) accessor: String,
}

/// What an AppRole logs in with.
#[derive(Debug, Clone)]
pub(crate) struct AppRole {
    pub(crate) role_id: String,
    pub(crate) secret_id: String,
}

impl<'a> Admin<'a> {
    pub(super) fn new(server: &'a OpenBao, namespace: Option<String>) -> Self {
        Self { server, namespace }
    }

    /// Enables a Transit secrets engine.
    pub(crate) fn enable_transit(&self, mount: &str) {
        self.write(&format!("sys/mounts/{mount}"), &[("type", "transit")]);
    }

    /// Makes a key of AES-256-GCM in a Transit secrets engine.
    pub(crate) fn create_key(&self, mount: &str, name: &str) {
        self.write(&format!("{mount}/keys/{name}"), &[("type", "aes256-gcm96")]);
    }

    /// Adds a version to a key.
    pub(crate) fn rotate_key(&self, mount: &str, name: &str) {
        self.write(&format!("{mount}/keys/{name}/rotate"), &[]);
    }

    /// Sets fields of a key, such as `min_decryption_version`.
    pub(crate) fn configure_key(&self, mount: &str, name: &str, fields: &[(&str, &str)]) {
        self.write(&format!("{mount}/keys/{name}/config"), fields);
    }

    /// Deletes a key with all its versions.
    pub(crate) fn delete_key(&self, mount: &str, name: &str) {
        self.configure_key(mount, name, &[("deletion_allowed", "true")]);
        self.delete(&format!("{mount}/keys/{name}"));
    }

    /// Writes an ACL policy, in HCL.
    pub(crate) fn write_policy(&self, name: &str, rules: &str) {
        self.write(&format!("sys/policies/acl/{name}"), &[("policy", rules)]);
    }

    /// Writes the policy that allows these capabilities, such as `update`, on each of these paths.
    pub(crate) fn allow(&self, policy: &str, paths: &[(&str, &[&str])]) {
        let mut rules = String::new();
        for (path, capabilities) in paths {
            writeln!(rules, "path {path:?} {{ capabilities = {capabilities:?} }}").expect("a string");
        }
        self.write_policy(policy, &rules);
    }

    /// Makes a token that lives as long as it may, whatever happens to the root token.
    pub(crate) fn create_token(&self, options: &TokenOptions<'_>) -> Token {
        let mut fields = vec![("no_default_policy", "true"), ("no_parent", "true")];
        fields.extend(options.policies.iter().map(|policy| ("policies", *policy)));
        fields.extend(options.ttl.map(|ttl| ("ttl", ttl)));
        fields.extend(options.period.map(|period| ("period", period)));
        fields.extend(options.explicit_max_ttl.map(|end| ("explicit_max_ttl", end)));
        let created = self.write("auth/token/create", &fields);
        let auth = &created["auth"];
        Token { token: text(&auth["client_token"]), accessor: text(&auth["accessor"]) }
    }

    /// Ends a token.
    pub(crate) fn revoke_token(&self, token: &Token) {
        self.write("auth/token/revoke-accessor", &[("accessor", &token.accessor)]);
    }

    /// What is known of a token, such as its `ttl` in seconds.
    pub(crate) fn look_up_token(&self, token: &Token) -> Value {
        self.write("auth/token/lookup-accessor", &[("accessor", &token.accessor)])["data"].take()
    }

    /// Enables log-in by AppRole at `auth/<mount>`.
    pub(crate) fn enable_app_role(&self, mount: &str) {
        self.write(&format!("sys/auth/{mount}"), &[("type", "approle")]);
    }

    /// Makes a role, such as with `token_policies` and `token_ttl`, and a secret id of it.
    pub(crate) fn create_role(&self, mount: &str, name: &str, fields: &[(&str, &str)]) -> AppRole {
        let role = format!("auth/{mount}/role/{name}");
        self.write(&role, fields);
        let role_id = text(&self.read(&format!("{role}/role-id"))["data"]["role_id"]);
        AppRole { role_id, secret_id: self.create_secret_id(mount, name) }
    }

    /// Makes one more secret id of a role.
    pub(crate) fn create_secret_id(&self, mount: &str, name: &str) -> String {
        let created = self.write(&format!("auth/{mount}/role/{name}/secret-id"), &[]);
        text(&created["data"]["secret_id"])
    }

    /// Ends all secret ids and tokens of a role, and the role.
    pub(crate) fn delete_role(&self, mount: &str, name: &str) {
        self.delete(&format!("auth/{mount}/role/{name}"));
    }

    /// Writes fields at a path of the API; one that is there twice is a list. The answer, or null.
    pub(crate) fn write(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
        self.run(["write", "-force", path].map(str::to_owned).into_iter().chain(fields))
    }

    /// Reads a path of the API.
    pub(crate) fn read(&self, path: &str) -> Value {
        self.run(["read", path].map(str::to_owned))
    }

    /// Deletes what is at a path of the API.
    pub(crate) fn delete(&self, path: &str) {
        self.run(["delete", path].map(str::to_owned));
    }

    fn run(&self, arguments: impl IntoIterator<Item = String>) -> Value {
        let arguments: Vec<String> = arguments.into_iter().collect();
        let mut command = Command::new(&self.server.program);
        command.args(&arguments);
        self.set_environment(&mut command);
        let output = command.output().expect("the program of OpenBao starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        // Where there is nothing to answer, it says so in words.
        if output.stdout.starts_with(b"{") {
            serde_json::from_slice(&output.stdout).expect("JSON")
        } else {
            Value::Null
        }
    }

    fn set_environment(&self, command: &mut Command) {
        clean_environment(command, self.server.directory.path());
        let url = self.server.url();
        let mut variables = vec![
            ("ADDR", url.as_str()),
            ("TOKEN", self.server.root_token()),
            ("FORMAT", "json"),
            // A bound on the wait, and no second try that would hide the first one.
            ("CLIENT_TIMEOUT", "30s"),
            ("MAX_RETRIES", "0"),
        ];
        let ca = self.server.ca().map(|ca| ca.display().to_string());
        variables.extend(ca.as_deref().map(|ca| ("CACERT", ca)));
        variables.extend(self.namespace.as_deref().map(|namespace| ("NAMESPACE", namespace)));
        for (name, value) in variables {
            // Each program reads its own.
            command.env(format!("BAO_{name}"), value).env(format!("VAULT_{name}"), value);
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}
