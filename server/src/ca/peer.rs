//! What a client certificate of this CA says: who, and until when.

use std::str::FromStr;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use secretfs_wire::{EnvironmentName, NodeId, NodeName, OperatorId, OperatorName};
use x509_parser::extensions::GeneralName;

const SCHEME: &str = "secretfs://";

/// Whom a client certificate names, in a URI as its one subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// `secretfs://operator/<name>/<id>`; without the id of an operator from before there were ids
    Operator { name: OperatorName, id: Option<OperatorId> },
    /// `secretfs://node/<environment>/<name>/<id>`
    Node { environment: EnvironmentName, name: NodeName, id: NodeId },
}

/// A client certificate that the TLS layer has verified to be of this CA.
#[derive(Debug, Clone)]
pub(crate) struct PeerCertificate {
    pub(crate) subject: Subject,
    /// A connection may live longer than its certificate, so each request asks again.
    pub(crate) not_after: Timestamp,
}

/// A certificate of this CA that names nobody.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the client certificate does not name an operator or a node")]
pub(crate) struct UnknownSubject;

impl Subject {
    pub(super) fn common_name(&self) -> &str {
        match self {
            Self::Operator { name, .. } => name.as_str(),
            Self::Node { name, .. } => name.as_str(),
        }
    }

    pub(super) fn to_uri(&self) -> String {
        match self {
            Self::Operator { name, id: None } => format!("{SCHEME}operator/{name}"),
            Self::Operator { name, id: Some(id) } => format!("{SCHEME}operator/{name}/{id}"),
            Self::Node { environment, name, id } => format!("{SCHEME}node/{environment}/{name}/{id}"),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operator { name, .. } => write!(f, "operator/{name}"),
            Self::Node { environment, name, .. } => write!(f, "node/{environment}/{name}"),
        }
    }
}

impl FromStr for Subject {
    type Err = UnknownSubject;
    fn from_str(uri: &str) -> Result<Self, UnknownSubject> {
        let path = uri.strip_prefix(SCHEME).ok_or(UnknownSubject)?;
        // Names hold no slash, so the split is exact.
        match path.split('/').collect::<Vec<_>>()[..] {
            ["operator", name] => {
                Ok(Self::Operator { name: name.parse().map_err(|_| UnknownSubject)?, id: None })
            }
            ["operator", name, id] => Ok(Self::Operator {
                name: name.parse().map_err(|_| UnknownSubject)?,
                id: Some(id.parse().map_err(|_| UnknownSubject)?),
            }),
            ["node", environment, name, id] => Ok(Self::Node {
                environment: environment.parse().map_err(|_| UnknownSubject)?,
                name: name.parse().map_err(|_| UnknownSubject)?,
                id: id.parse().map_err(|_| UnknownSubject)?,
            }),
            _ => Err(UnknownSubject),
        }
    }
}

impl PeerCertificate {
    pub(crate) fn from_der(certificate: &CertificateDer<'_>) -> Result<Self, UnknownSubject> {
        let (_, certificate) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| UnknownSubject)?;
        let names = certificate.subject_alternative_name().ok().flatten().ok_or(UnknownSubject)?;
        let [GeneralName::URI(uri)] = names.value.general_names[..] else { return Err(UnknownSubject) };
        let not_after = certificate.validity().not_after.timestamp();
        Ok(Self {
            subject: uri.parse()?,
            not_after: Timestamp::from_second(not_after).map_err(|_| UnknownSubject)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Authority, CertificateRequest};
    use super::*;
    use rustls_pki_types::pem::PemObject as _;
    use std::time::Duration;

    #[test]
    fn what_is_issued_is_read_back() {
        let now = Timestamp::now();
        let (authority, pkcs8) = Authority::create(now).expect("a CA");
        let authority = Authority::load(authority.pem().to_owned(), &pkcs8).expect("the CA again");
        let (environment, name) = ("prod".parse().expect("name"), "node-a".parse().expect("name"));
        let id = NodeId::random();
        let key = rcgen::KeyPair::generate().expect("key");
        // The request asks for other names, in vain.
        let asked = rcgen::CertificateParams::new(vec!["root".to_owned()]).expect("params");
        let request = asked.serialize_request(&key).expect("request").pem().expect("PEM");
        let request = CertificateRequest::from_pem(&request).expect("request");
        let (pem, expires) = authority
            .issue_node(&environment, &name, id, &request, now, Duration::from_secs(60))
            .expect("certificate");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate");
        let peer = PeerCertificate::from_der(&der).expect("a peer");
        assert_eq!(peer.subject, Subject::Node { environment, name, id });
        assert_eq!((peer.not_after, expires.as_second()), (expires, now.as_second() + 60));
    }

    #[test]
    fn an_operator_has_an_id_or_is_from_before_there_were_ids() {
        let name: OperatorName = "alice".parse().expect("name");
        for id in [None, Some(OperatorId::random())] {
            let subject = Subject::Operator { name: name.clone(), id };
            assert_eq!(subject.to_uri().parse::<Subject>().expect("what was written"), subject);
        }
    }

    #[test]
    fn every_certificate_is_good_for_who_is_five_minutes_behind() {
        let now = Timestamp::now();
        let (authority, _) = Authority::create(now).expect("a CA");
        let server = authority.issue_server(&["localhost".to_owned()], now).expect("a certificate");
        let (request, _) = CertificateRequest::generate().expect("a request");
        let (name, lifetime) = ("o".parse().expect("name"), Duration::from_secs(60));
        let (operator, _) =
            authority.issue_operator(&name, None, &request, now, lifetime).expect("a certificate");
        let (environment, name) = ("prod".parse().expect("name"), "n".parse().expect("name"));
        let (node, _) = authority
            .issue_node(&environment, &name, NodeId::random(), &request, now, lifetime)
            .expect("a certificate");
        let [operator, node] =
            [operator, node].map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).expect("one"));
        for certificate in [&authority.bundle()[0], &server.chain[0], &operator, &node] {
            let (_, certificate) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
            let begins = certificate.validity().not_before.timestamp();
            assert_eq!(now.as_second() - begins, 5 * 60, "{}", certificate.subject());
        }
    }

    #[test]
    fn a_certificate_without_our_name_names_nobody() {
        for bad in [
            "",
            "https://operator/a",
            "secretfs://operator",
            "secretfs://operator/a/b",
            "secretfs://operator/a/0000000000000001/",
            "secretfs://node/a/b",
        ] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
        let (authority, _) = Authority::create(Timestamp::now()).expect("a CA");
        assert!(PeerCertificate::from_der(&authority.bundle()[0]).is_err());
        let (audit, _) =
            authority.issue_audit(secretfs_wire::ChainId::random(), Timestamp::now()).expect("a certificate");
        assert!(PeerCertificate::from_der(&audit.into()).is_err());
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let (one, _) = Authority::create(Timestamp::now()).expect("a CA");
        let (_, other) = Authority::create(Timestamp::now()).expect("a CA");
        assert!(Authority::load(one.pem().to_owned(), &other).is_err());
    }
}
