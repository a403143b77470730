//! How the program ends when it cannot go on: one enum over the boundaries, and the exit codes of the contract.
//!
//! Invariant: 78 means that starting again cannot help before a person changed the configuration (systemd does not
//! restart); 74 means that the disk failed and starting again is the way back (systemd does).

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::env::EnvError;
use crate::ingress::IngressError;

/// `EX_USAGE` of `sysexits.h`: the command line is wrong.
pub const EXIT_USAGE: u8 = 64;
/// `EX_UNAVAILABLE`: no agent answers.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// `EX_SOFTWARE`: a fault of our own.
pub const EXIT_SOFTWARE: u8 = 70;
/// `EX_OSERR`: the box does not give what the agent needs.
pub const EXIT_BOX: u8 = 71;
/// `EX_IOERR`: the disk failed.
pub const EXIT_DISK: u8 = 74;
/// `EX_CONFIG`: the configuration is wrong.
pub const EXIT_CONFIGURATION: u8 = 78;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum ExitError {
    /// The configuration is wrong, or is not of this data directory.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory belongs to another store or agent, or another process has it.
    #[error("{0}")]
    DataDir(String),
    /// The disk failed; carries the boundary's own message.
    #[error("{0}")]
    Disk(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address for the tills cannot be had.
    #[error(transparent)]
    Ingress(#[from] IngressError),
    /// Clocks or randomness are missing.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// A thread of ours ended that never should.
    #[error("{what} ended unexpectedly; this is a fault of the program, please report it")]
    Ended {
        /// Which.
        what: &'static str,
    },
}

impl ExitError {
    /// What the process exits with.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::DataDir(_) | Self::Ingress(IngressError::Tls(_)) => EXIT_CONFIGURATION,
            Self::Disk(_) => EXIT_DISK,
            Self::Ingress(_) | Self::Env(_) => EXIT_BOX,
            Self::Ended { .. } => EXIT_SOFTWARE,
        }
    }
}

impl From<&ExitError> for ExitCode {
    fn from(error: &ExitError) -> Self {
        Self::from(error.code())
    }
}

/// A message with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Transparent variants repeat what is already said.
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let cause = std::io::Error::other("input/output error");
        assert_eq!(chain(&ExitError::Disk(Box::new(cause))), "input/output error");
        let env = EnvError::BootId { path: "/proc/x".into(), source: std::io::Error::other("gone") };
        assert_eq!(chain(&ExitError::Env(env)), "Cannot read the boot id from /proc/x; is /proc mounted?: gone");
    }
}
