//! `[identity]`: where the box's certificate is renewed, checked.

use std::path::PathBuf;
use std::time::Duration;

use super::Check;
use crate::identity::est::Server;

/// `[identity]`
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Who renews; `None` where somebody else sees to it.
    pub server: Option<Server>,
    /// What its certificate is checked against; where it is left out, what the broker's is.
    pub ca_file: Option<PathBuf>,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
}

impl Check<'_> {
    pub(super) fn identity(&mut self) -> IdentityConfig {
        let server = self.parse("identity.url", Server::read);
        if server.is_some() && (self.written.text("mqtt.cert_file").is_none() || !self.speaks_tls()) {
            let message =
                "has nothing to renew: write `mqtt.cert_file` and `mqtt.key_file`, and mqtts:// in `mqtt.url`";
            self.fault("identity.url", message.to_owned());
        }
        IdentityConfig {
            server,
            ca_file: self.path("identity.ca_file"),
            retry_max: self.duration("identity.retry_max"),
        }
    }

    fn speaks_tls(&self) -> bool {
        self.written.text("mqtt.url").is_some_and(|url| url.starts_with("mqtts://"))
    }
}
