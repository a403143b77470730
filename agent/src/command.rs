//! The agent's command line: what it is asked to do, and the words that help, man page and completions are made of.
//!
//! Invariant: nothing is done here; the binary does it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use counterfoil_proto::id::PublicKey;

use crate::config::IngressConfig;
use crate::identity::enroll;

/// Takes documents from the tills of a store, puts them on disk, hands them to the hub.
#[derive(Debug, Parser)]
#[command(name = "counterfoil", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program is asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent until it is told to stop.
    Run {
        /// The configuration; config/agent.toml is a commented sample.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check that a data directory is what the agent wrote: checksums, numbers, chains, signed control totals. Changes nothing.
    ///
    /// Exit 0: it is; 1: it is not, and what is wrong is named; 74: it cannot be read. Best on a stopped agent or a copy: of a running one
    /// the last records may still be on their way.
    Verify {
        /// The data directory.
        data_dir: PathBuf,
        /// The public key that must have signed the control totals, 64 hexadecimal digits; without it, all have to be of one key.
        #[arg(long)]
        public_key: Option<PublicKey>,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        /// Also demand that the hub has every record safe, as before a box is given away; exit 1 otherwise.
        #[arg(long)]
        delivered: bool,
    },
    /// Put what the hub does not have onto a stick, for a store whose line is dead: a parcel that `counterfoil-hub import` takes in.
    ///
    /// The agent may run. The same command goes on where it was cut off, and adds later what came since. Signed with the box's own key, which is
    /// printed: head office has to know it.
    Export {
        /// The data directory.
        data_dir: PathBuf,
        /// The parcel: a new file, or one of this box that is gone on with.
        file: PathBuf,
        /// All that is retained, not only what the hub lacks as far as this box knows: for a hub that lost something.
        #[arg(long)]
        all: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say whether everything is all right on this box, and if not, what is to be done.
    ///
    /// Asks the running agent. Exit 0: it answered, whatever it said; 69: no agent answers.
    Status {
        /// Which agent.
        #[command(flatten)]
        target: Target,
        /// Print JSON: status, today's totals and open exceptions as the API gives them.
        #[arg(long)]
        json: bool,
    },
    /// Get this box its identity: a key that is made here and a certificate for it, from the hub or any EST server, for a one-time token.
    ///
    /// Files go where `mqtt.ca_file`, `mqtt.cert_file` and `mqtt.key_file` say. Running it twice is safe: a valid identity stays, and what broke off goes
    /// on. Exit 69: nobody answers; 78: the configuration; 1: refused.
    Enroll(enroll::Wanted),
    /// Show what needs a person, or note that somebody looks after it.
    ///
    /// Without a further word: the open exceptions, the oldest first. Exit 69: no agent answers.
    Exceptions {
        /// Which agent.
        #[command(flatten)]
        target: Target,
        /// Also those that ended and are still known.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long, global = true)]
        json: bool,
        /// What was done.
        #[command(subcommand)]
        word: Option<Word>,
    },
    /// Look this box over: disk, clock, certificates, the way to the broker, the agent; and say what to do about what is not well.
    ///
    /// The agent may run or not, and is not disturbed. Run it as root or as the agent's user. Exit 0: all is well, or nobody can tell; 1: something
    /// should be looked at.
    Doctor {
        /// The agent's configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/counterfoil/agent.toml")]
        config: PathBuf,
        /// For an agent with TLS: a file with the PEM certificates that sign its own.
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// A file whose first line is the bearer token, where the agent asks for one.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration and print it as it takes effect, without secrets.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
}

/// Which agent, and how it knows who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Where the agent listens for tills: `ingress.listen` of its configuration.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7360")]
    pub agent: hyper::Uri,
    /// For an agent with TLS (https://…): a file with the PEM certificates that sign its own.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// A file whose first line is the bearer token, where the agent asks for one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Target {
    /// The agent of this box, where that configuration says that it listens.
    pub fn of(ingress: &IngressConfig, ca_file: Option<PathBuf>, token_file: Option<PathBuf>) -> Self {
        let listen = ingress.listen;
        let ip = match listen.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let authority = SocketAddr::new(ip, listen.port()).to_string();
        let agent = hyper::Uri::builder()
            .scheme(if ingress.tls.is_some() { "https" } else { "http" })
            .authority(authority)
            .path_and_query("/")
            .build();
        Self { agent: agent.unwrap_or_default(), ca_file, token_file }
    }
}

/// What a person does about an exception.
#[derive(Debug, Subcommand)]
pub enum Word {
    /// Somebody looks after it; it stays open.
    Acknowledge(Done),
    /// It needs nobody any more.
    Resolve(Done),
    /// Leave it as it is, on purpose.
    Waive(Done),
}

/// Which, who and why.
#[derive(Debug, clap::Args)]
pub struct Done {
    /// Which, as the list shows it: ex-0123456789abcdef.
    pub id: String,
    /// Who.
    #[arg(long)]
    pub by: String,
    /// Why.
    #[arg(long)]
    pub reason: String,
}
