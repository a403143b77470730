//! How the program ends when it cannot go on: one enum over the boundaries, and the exit codes of the contract.
//!
//! Invariant: 78 means that starting again cannot help before a person changed the configuration (systemd does not
//! restart); 74 means that the ledger failed and starting again is the way back (systemd does).

use std::net::SocketAddr;

use crate::authority::AuthorityError;
use crate::config::ConfigError;
use crate::ledger::LedgerError;

/// Why the hub ended.
#[derive(Debug, thiserror::Error)]
pub enum ExitError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ledger cannot be had.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Files for the ledger's connection cannot be used.
    #[error("{0}")]
    LedgerFiles(String),
    /// Files for the API's TLS cannot be used.
    #[error("The API cannot speak TLS: {0}")]
    ApiFiles(String),
    /// The authority cannot do its work.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A command of the authority, and there is none.
    #[error("This hub is no certificate authority: write `ca.cert_file` and `ca.key_file` into its configuration")]
    NoAuthority,
    /// The API's address cannot be had.
    #[error("The API cannot listen on {listen}: {why}; stop what listens there, or change api.listen")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        why: std::io::Error,
    },
    /// The embedded broker cannot be had.
    #[error("{0}")]
    Broker(String),
    /// The machine does not give what every program needs.
    #[error("The machine gives no threads: {0}")]
    Runtime(std::io::Error),
    /// A part of the program ended that never should.
    #[error("{what} ended unexpectedly; this is a fault of the program, please report it")]
    Ended {
        /// Which.
        what: &'static str,
    },
    /// A parcel cannot be taken in, or not all of it.
    #[error("{0}")]
    Parcel(String),
    /// The copy is not one of this ledger.
    #[error("The copy is not of this ledger: its hub epoch {0} never was this ledger's")]
    Copy(counterfoil_proto::id::SessionId),
}

impl ExitError {
    /// What the process exits with.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Parcel(_) => 65,
            Self::Ended { .. } => 70,
            Self::Listen { .. } | Self::Broker(_) | Self::Runtime(_) => 71,
            Self::Ledger(LedgerError::Newer { .. })
            | Self::Config(_)
            | Self::LedgerFiles(_)
            | Self::ApiFiles(_)
            | Self::NoAuthority
            | Self::Copy(_) => 78,
            Self::Ledger(_) | Self::Authority(AuthorityError::Ledger(_)) => 74,
            Self::Authority(_) => 78,
        }
    }
}
