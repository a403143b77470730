//! `counterfoil-hub ca …`: the authority's commands.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use counterfoil_config::tls::Identity;
use counterfoil_config::written::duration_ms;
use counterfoil_proto::id::{AgentId, Source, StoreId};
use counterfoil_proto::time::WallTime;

use super::{log_to_stderr, runtime, session_user};
use crate::authority::{self, Authority, upkeep};
use crate::config::Config;
use crate::error::ExitError;
use crate::ledger::{Deed, IdentityRole, IdentityView};
use crate::run;

#[derive(Debug, clap::Args)]
pub(super) struct Ca {
    /// The configuration, whose [ca] says where key and certificate are.
    #[arg(long, global = true, default_value = "/etc/counterfoil/hub.toml")]
    config: PathBuf,
    /// Who does it, for the trail of changes (`GET /v1/audit`); the user of the session where it is left out.
    #[arg(long, global = true)]
    by: Option<String>,
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Make the authority's key (0600) and certificate. Once; they are never overwritten.
    Init {
        /// What the authority is called in certificates.
        #[arg(long, default_value = "Counterfoil authority")]
        name: String,
    },
    /// Make a one-time token for a box, and print it as a file that `counterfoil enroll --token-file` takes.
    Token {
        #[command(flatten)]
        agent: Agent,
        /// How long it is valid.
        #[arg(long, default_value = "1h", value_parser = duration)]
        valid: Duration,
    },
    /// Make key and certificate for a broker, or for the API of a hub.
    Server {
        /// Host names and addresses under which it is reached; the first is its name.
        #[arg(long = "name", required = true, value_parser = server_name)]
        names: Vec<String>,
        #[command(flatten)]
        files: Files,
    },
    /// Make key and certificate for a hub process, as a client of the broker.
    Hub {
        /// Its name; no two hub processes share one.
        #[arg(long, value_parser = plain_name)]
        name: String,
        #[command(flatten)]
        files: Files,
    },
    /// Show who was let in, until when, and who is kept out.
    List,
    /// Keep a box out from now on: everything it has is revoked. Nothing is taken from it within a second, and what it holds it keeps.
    ///
    /// A new one-time token lets it, or the box that replaces it, in again.
    Revoke {
        #[command(flatten)]
        agent: Agent,
        /// Why; for the list.
        #[arg(long)]
        reason: String,
    },
    /// Print the list of revoked certificates, and write it to `ca.crl_file`.
    Crl,
    /// Print the access rules for Mosquitto, and write them to `ca.acl_file`.
    Acl,
}

#[derive(Debug, clap::Args)]
struct Agent {
    /// The store.
    #[arg(long = "store")]
    store_id: StoreId,
    /// The agent in it.
    #[arg(long = "agent")]
    agent_id: AgentId,
}

impl Agent {
    fn common_name(self) -> String {
        Source { store_id: self.store_id, agent_id: self.agent_id }.to_string()
    }
}

#[derive(Debug, clap::Args)]
struct Files {
    /// Where the certificate goes, with those that lead from it to a root.
    #[arg(long)]
    cert_file: PathBuf,
    /// Where the key goes (0600).
    #[arg(long)]
    key_file: PathBuf,
    /// How long it is valid; running the command again makes another one.
    #[arg(long, default_value = "397d", value_parser = duration)]
    valid: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let ms = duration_ms(text).filter(|ms| *ms >= 1_000);
    ms.map(Duration::from_millis).ok_or_else(|| "a duration with its unit, such as \"1h\" or \"90d\"".to_owned())
}

fn server_name(text: &str) -> Result<String, String> {
    authority::is_server_name(text).then(|| text.to_owned()).ok_or_else(|| "a host name or an address".to_owned())
}

fn plain_name(text: &str) -> Result<String, String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let good = (1..=48).contains(&text.len()) && text.chars().all(plain);
    good.then(|| text.to_owned()).ok_or_else(|| "1 to 48 letters, digits, '_' or '-'".to_owned())
}

pub(super) fn execute(ca: Ca) -> Result<String, ExitError> {
    let config = Config::load(&ca.config)?;
    log_to_stderr(&config);
    let wanted = config.authority.as_ref().ok_or(ExitError::NoAuthority)?;
    if let Word::Init { name } = &ca.word {
        let fingerprint = authority::init(wanted, name)?;
        let Identity { cert_file, key_file } = &wanted.identity;
        return Ok(format!(
            "The authority's key: {} (keep a copy where only you find it)\nIts certificate: {}\nIts fingerprint: sha256:{fingerprint}\n",
            key_file.display(),
            cert_file.display()
        ));
    }
    runtime()?.block_on(async {
        let authority = run::authority(&config).await?;
        let said = say(&authority, ca.word, &ca.by.unwrap_or_else(session_user)).await?;
        upkeep::write_files(&authority).await?;
        Ok(said)
    })
}

async fn say(authority: &Arc<Authority>, word: Word, by: &str) -> Result<String, ExitError> {
    let deed = |command: &str, what: String| run::on_command_line(by, command, what);
    Ok(match word {
        Word::Init { .. } => String::new(),
        Word::Token { agent, valid } => {
            let common_name = agent.common_name();
            let deed = deed("ca token", format!("a one-time token for {common_name}"));
            let (token, until) = authority.make_token(&common_name, valid, &deed).await?;
            token_file(&common_name, until, &token, &authority.fingerprint())
        }
        Word::Server { names, files } => {
            let name = names.first().cloned().unwrap_or_default();
            let deed = deed("ca server", format!("a certificate for {}", names.join(", ")));
            issue(authority, &name, (IdentityRole::Server, &names), files, &deed).await?
        }
        Word::Hub { name, files } => {
            let deed = deed("ca hub", format!("a certificate for {name}"));
            issue(authority, &name, (IdentityRole::Hub, &[]), files, &deed).await?
        }
        Word::List => list(&authority.ledger().identities().await?),
        Word::Revoke { agent, reason } => {
            let common_name = agent.common_name();
            let deed = deed("ca revoke", format!("{common_name}: {reason}"));
            authority.ledger().revoke(&common_name, &reason, &deed).await?;
            format!(
                "{common_name} is kept out; running hubs take nothing from it within a second.\n{}",
                broker_word(authority)
            )
        }
        Word::Crl => authority.revocation_list().await?,
        Word::Acl => upkeep::access_rules(&authority.ledger().identities().await?, &authority.config().topic_prefix),
    })
}

/// What `counterfoil enroll --token-file` reads; what begins with `#` is for people.
fn token_file(common_name: &str, until: WallTime, token: &str, fingerprint: &str) -> String {
    format!(
        "# One-time token for {common_name}, valid until {}. On the box, with this in a file:\n\
         # counterfoil enroll --hub https://HUB:7370 --token-file FILE --config /etc/counterfoil/agent.toml\n\
         {token}\nca-fingerprint {fingerprint}\n",
        until.to_rfc3339()
    )
}

async fn issue(
    authority: &Authority,
    name: &str,
    (role, names): (IdentityRole, &[String]),
    files: Files,
    deed: &Deed,
) -> Result<String, ExitError> {
    let Files { cert_file, key_file, valid } = files;
    let files = Identity { cert_file, key_file };
    let issued = authority.issue(name, role, names, valid, &files, deed).await?;
    Ok(format!("{name}: {} until {}\n", files.cert_file.display(), issued.not_after.to_rfc3339()))
}

fn broker_word(authority: &Authority) -> &'static str {
    match (&authority.config().acl_file, &authority.config().crl_file) {
        (None, None) => "The broker is not told: neither ca.acl_file nor ca.crl_file is set.\n",
        (Some(_), _) | (_, Some(_)) => {
            "The broker's files are written; it reads them when it is told to (config/identity.md).\n"
        }
    }
}

fn list(identities: &[IdentityView]) -> String {
    if identities.is_empty() {
        return "Nobody was let in yet.\n".to_owned();
    }
    let line = |identity: &IdentityView| {
        let role = identity.role.map_or("-", IdentityRole::as_str);
        let standing = match (&identity.barred, identity.not_after) {
            (Some((since, reason)), _) => format!("REVOKED {}: {reason}", since.to_rfc3339()),
            (None, Some(until)) => format!("until {}", until.to_rfc3339()),
            (None, None) => "nothing valid".to_owned(),
        };
        format!("{:<40} {role:<7} {:>5}  {standing}\n", identity.common_name, identity.certificates)
    };
    let head = format!("{:<40} {:<7} {:>5}  standing\n", "name", "role", "given");
    [head].into_iter().chain(identities.iter().map(line)).collect()
}
