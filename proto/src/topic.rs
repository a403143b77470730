//! The topic grammar, built and parsed here only.
//!
//! ```text
//! {prefix}/{store}/{agent}/state            retained presence
//! {prefix}/{store}/{agent}/up/hello
//! {prefix}/{store}/{agent}/up/{lane}        batches
//! {prefix}/{store}/{agent}/up/positions
//! {prefix}/{store}/{agent}/down/ack
//! {prefix}/{store}/{agent}/down/{stream}
//! ```
//!
//! Invariant: what [`Topics`] builds, [`parse`] reads back. Store and agent ids hold no separator or wildcard by their type.

use alloc::format;
use alloc::string::String;

use crate::id::{AgentId, Lane, Source, StoreId};

/// The prefix unless configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "counterfoil/v1";

/// What an agent says and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up {
    /// Presence.
    State,
    /// Hello pages.
    Hello,
    /// Batches of a lane.
    Batch(Lane),
    /// Parts of a stock snapshot.
    Positions,
}

/// The topics of one agent.
#[derive(Clone, Debug)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// Topics of `source` under `prefix`.
    pub fn new(prefix: &str, source: &Source) -> Self {
        Self { base: format!("{prefix}/{}/{}", source.store_id, source.agent_id) }
    }

    /// Where the agent says something.
    pub fn up(&self, what: Up) -> String {
        match what {
            Up::State => format!("{}/state", self.base),
            Up::Hello => format!("{}/up/hello", self.base),
            Up::Batch(lane) => format!("{}/up/{lane}", self.base),
            Up::Positions => format!("{}/up/positions", self.base),
        }
    }

    /// Where the agent hears welcomes, acks, nacks and requests.
    pub fn down_ack(&self) -> String {
        format!("{}/down/ack", self.base)
    }
}

/// The subscriptions of a hub process: what agents send, shared within `group`, so that each message reaches one process.
pub fn hub_shared_filters(prefix: &str, group: &str) -> [String; 1] {
    [format!("$share/{group}/{prefix}/+/+/up/+")]
}

/// Presence of all agents; not shared, since a broker sends retained messages only to plain subscriptions.
pub fn hub_state_filter(prefix: &str) -> String {
    format!("{prefix}/+/+/state")
}

/// Reads a topic that an agent publishes to; `None` for any other.
pub fn parse(prefix: &str, topic: &str) -> Option<(Source, Up)> {
    let rest = topic.strip_prefix(prefix)?.strip_prefix('/')?;
    let mut levels = rest.split('/');
    let store_id = StoreId::new(levels.next()?).ok()?;
    let agent_id = AgentId::new(levels.next()?).ok()?;
    let up = match (levels.next()?, levels.next(), levels.next()) {
        ("state", None, None) => Up::State,
        ("up", Some("hello"), None) => Up::Hello,
        ("up", Some("positions"), None) => Up::Positions,
        ("up", Some(lane), None) => Up::Batch(lane.parse().ok()?),
        _ => return None,
    };
    Some((Source { store_id, agent_id }, up))
}

/// Whether `prefix` can stand at the head of topics: no wildcard, no empty level, not `$…`.
pub fn is_prefix(prefix: &str) -> bool {
    !prefix.starts_with('$')
        && prefix.len() <= 128
        && prefix.split('/').all(|level| !level.is_empty() && !level.contains(['+', '#', '\0']))
        && prefix.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let source = Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() };
        let topics = Topics::new(DEFAULT_PREFIX, &source);
        for up in [Up::State, Up::Hello, Up::Positions, Up::Batch(Lane::Trade), Up::Batch(Lane::Ops)] {
            assert_eq!(parse(DEFAULT_PREFIX, &topics.up(up)), Some((source.clone(), up)));
        }
        assert_eq!(parse(DEFAULT_PREFIX, &topics.down_ack()), None);
    }

    #[test]
    fn foreign_topics_are_no_topics_of_ours() {
        for topic in [
            "",
            "counterfoil/v1",
            "counterfoil/v1/a/b",
            "counterfoil/v1/a/b/up/trade/x",
            "x/v1/a/b/state",
            "counterfoil/v1/a b/c/state",
            "counterfoil/v1/a/b/up/money",
            "counterfoil/v1//b/state",
        ] {
            assert_eq!(parse(DEFAULT_PREFIX, topic), None, "{topic}");
        }
        assert!(is_prefix("counterfoil/v1"));
        assert!(!is_prefix("counterfoil/+") && !is_prefix("") && !is_prefix("$share/x") && !is_prefix("a//b"));
    }
}
