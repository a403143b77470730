//! `[ca]`: the hub as a small certificate authority, checked.

use std::path::PathBuf;
use std::time::Duration;

use counterfoil_config::tls::Identity;
use counterfoil_config::written::Origin;

use super::Check;

/// `[ca]`
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// What signs.
    pub identity: Identity,
    /// How long an agent's certificate is valid.
    pub certificate_life: Duration,
    /// How long after its end a certificate still renews itself.
    pub renew_expired_within: Duration,
    /// Where the list of revoked certificates is kept.
    pub crl_file: Option<PathBuf>,
    /// Where a Mosquitto's access rules are kept.
    pub acl_file: Option<PathBuf>,
    /// What every topic begins with.
    pub topic_prefix: String,
}

impl Check<'_> {
    /// A certificate and its key, which belong together.
    pub(super) fn identity(&mut self, cert: &'static str, key: &'static str) -> Option<Identity> {
        match (self.path(cert), self.path(key)) {
            (Some(cert_file), Some(key_file)) => Some(Identity { cert_file, key_file }),
            (None, None) => None,
            (there, _) => {
                let (there, other) = if there.is_some() { (cert, key) } else { (key, cert) };
                self.fault(there, &format!("and `{other}` belong together; write both or none"));
                None
            }
        }
    }

    pub(super) fn authority(&mut self) -> Option<AuthorityConfig> {
        let identity = self.identity("ca.cert_file", "ca.key_file");
        let (crl_file, acl_file) = (self.path("ca.crl_file"), self.path("ca.acl_file"));
        let Some(identity) = identity else {
            for name in ["ca.certificate_life", "ca.renew_expired_within", "ca.crl_file", "ca.acl_file"] {
                if self.written.origin(name) != Origin::Default && self.text("ca.cert_file").is_none() {
                    self.fault(name, "has no effect without `ca.cert_file` and `ca.key_file`");
                }
            }
            return None;
        };
        if self.text("api.cert_file").is_none() {
            self.fault("ca.cert_file", "needs `api.cert_file` and `api.key_file`: boxes are enrolled over TLS only");
        }
        let duration = |name| Duration::from_millis(self.written.number(name));
        Some(AuthorityConfig {
            identity,
            certificate_life: duration("ca.certificate_life"),
            renew_expired_within: duration("ca.renew_expired_within"),
            crl_file,
            acl_file,
            topic_prefix: self.text("mqtt.topic_prefix")?.to_owned(),
        })
    }
}
