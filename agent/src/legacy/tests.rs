//! What profiles make of sources: of files of real systems where they are (`COUNTERFOIL_TEST_DATA`), of generated ones everywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use counterfoil_proto::id::StoreId;
use counterfoil_proto::record::facts::Facts;
use counterfoil_proto::record::{Kind, Prepared};
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::agent::{AgentHandle, Owner, channel};
use crate::answer::{Outcome, Status};
use crate::config::Config;
use crate::env::Env;
use crate::uplink::View;

mod dialects;
mod foreign;
mod orders;
mod samples;
mod spooling;

pub(super) fn context() -> Context {
    Context {
        store_id: StoreId::new("0042").unwrap(),
        time_zone: jiff::tz::TimeZone::UTC,
        day_cutover: jiff::civil::time(4, 0, 0, 0),
        mask_13_digits: false,
    }
}

/// A file of a real system; `None` where this machine has none, which is said aloud.
fn real(name: &str) -> Option<Vec<u8>> {
    let Some(directory) = std::env::var_os("COUNTERFOIL_TEST_DATA") else {
        println!("COUNTERFOIL_TEST_DATA is not set: only generated data is tested, not {name}");
        return None;
    };
    Some(std::fs::read(PathBuf::from(directory).join(name)).unwrap())
}

fn profile(name: &str) -> Profile {
    Profiles::default().find(name).unwrap()
}

/// Maps and prepares a source of which everything is good.
fn prepared(profile: &Profile, source: &[u8]) -> Vec<Prepared> {
    let one = |mapped: Result<Mapped, Refusal>| mapped.and_then(|mapped| mapped.prepare(&context()));
    profile.map(source).into_iter().map(|mapped| one(mapped).unwrap()).collect()
}

fn refusals(profile: &Profile, source: &[u8]) -> Vec<Refusal> {
    profile.map(source).into_iter().filter_map(Result::err).collect()
}

/// An agent with journal and state in a directory.
struct Agent {
    handle: AgentHandle,
    thread: std::thread::JoinHandle<()>,
    _view: watch::Sender<Arc<View>>,
}

impl Agent {
    fn start(directory: &std::path::Path) -> Self {
        let file = directory.join("agent.toml");
        let text =
            "store_id = \"0042\"\nagent_id = \"box1\"\ndata_dir = \"data\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n";
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir_all(directory.join("data")).unwrap();
        let config = Config::load_with(&file, []).unwrap();
        let (view, view_out) = watch::channel(Arc::new(View::default()));
        let mut owner = Owner::open(&config, Env::of_this_box().unwrap(), view_out, Arc::default()).unwrap();
        let (handle, inbox) = channel(16, Status::default());
        owner.settle(&inbox).unwrap();
        let thread = std::thread::spawn(move || owner.run(inbox).unwrap());
        Self { handle, thread, _view: view }
    }

    async fn submit(&self, documents: Vec<Prepared>) -> Vec<Outcome> {
        self.handle.submit(documents).await.unwrap()
    }

    /// Codes of open exceptions, with how many there are of each.
    async fn exceptions(&self) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        for exception in self.handle.exceptions(false).await.unwrap() {
            *codes.entry(exception.code).or_default() += 1;
        }
        codes
    }

    fn stop(self) {
        drop(self.handle);
        self.thread.join().unwrap();
    }
}

fn gross(prepared: &Prepared) -> Option<i64> {
    if let Facts::Transaction(facts) = &prepared.facts { Some(facts.gross) } else { None }
}
