//! The agent's command line: what it is asked to do, and the words that help, man page and completions are made of.
//!
//! Invariant: nothing is done here; the binary does it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use counterfoil_proto::id::PublicKey;

use crate::identity::enroll::Wanted;

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
    /// Get this box its identity: a key that is made here and a certificate for it, from the hub or any EST server, for a one-time token.
    ///
    /// Files go where `mqtt.ca_file`, `mqtt.cert_file` and `mqtt.key_file` say. Running it twice is safe: a valid identity stays, and what broke off goes
    /// on. Exit 69: nobody answers; 78: the configuration; 1: refused.
    Enroll(Wanted),
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
    /// A file whose first line is the bearer token, where the agent asks for one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
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
