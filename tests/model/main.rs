//! Model checking: small worlds, explored whole, over the real state machines of `counterfoil_proto::sync`.
//!
//! Each scenario gives the search a budget per kind of fault; within it every order of events is tried, on a network that loses, doubles
//! and reorders. Safety is judged in each state; liveness as "it can still drain": from each state, once faults stop, everything that a till
//! was told is in the ledger, or a person is told. Bounds and numbers of states are printed (`--nocapture`).
//!
//! Invariant: a search that did not reach what its scenario is about fails. Not known here: bytes of batches, disks, databases.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]
#![expect(clippy::print_stdout, reason = "bounds and numbers of states are what a search has to say")]

use stateright::{Checker, Model, Property};

mod agent;
mod canon;
mod hub;
mod world;

use hub::Flag;
use world::{Budget, Event, World};

/// A state that no scenario should exceed by its number: more takes too long for every run of the tests.
const STATES_MAX: usize = 200_000;

/// What a scenario has to meet, or its search was too small.
type Meets = (&'static str, fn(&Search, &World) -> bool);

struct Search {
    first: World,
    meets: &'static [Meets],
}

impl Model for Search {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Event>) {
        state.events(actions);
    }

    fn next_state(&self, state: &World, action: Event) -> Option<World> {
        state.after(action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no acknowledged record is lost", nothing_is_lost),
            Property::always("no record is applied twice", nothing_is_doubled),
            Property::always("the watermark crosses nothing that is missing", watermark_is_honest),
            Property::always("nothing is reclaimed past safe", nothing_is_reclaimed_past_safe),
            Property::always("forks are kept and flagged", forks_are_flagged),
            Property::always("it can still drain", |_, world: &World| world.when_faults_stop().is_drained()),
        ];
        properties.extend(self.meets.iter().map(|(name, met)| Property::sometimes(name, *met)));
        properties
    }
}

fn nothing_is_lost(_: &Search, world: &World) -> bool {
    let held = world.held();
    world
        .told
        .iter()
        .all(|(key, digests)| digests.iter().all(|digest| held.contains(&(*key, *digest))) || world.is_flagged(*key))
}

fn nothing_is_doubled(_: &Search, world: &World) -> bool {
    world.hub.ledger.records.values().all(|stored| {
        let mut once = stored.clone();
        once.sort_unstable();
        once.dedup();
        once.len() == stored.len()
    })
}

fn watermark_is_honest(_: &Search, world: &World) -> bool {
    let records = &world.hub.ledger.records;
    world.hub.stored().all(|(lane, stored)| {
        (1..=stored.0).all(|seq| {
            let key = counterfoil_proto::id::RecordKey {
                epoch: lane.epoch,
                lane: lane.lane,
                seq: counterfoil_proto::id::Seq(seq),
            };
            let is_gone =
                |flag: &Flag| matches!(flag, Flag::Gone(gone, range) if *gone == lane && range.contains(key.seq));
            records.contains_key(&key) || world.hub.ledger.flags.iter().any(is_gone)
        })
    })
}

fn nothing_is_reclaimed_past_safe(_: &Search, world: &World) -> bool {
    let ledgers = [Some(&world.hub.ledger), world.hub.backup.as_ref()];
    world.boxes.iter().flat_map(|one| one.image.given_back()).all(|(key, digest)| {
        ledgers.iter().all(|ledger| {
            ledger.and_then(|ledger| ledger.records.get(&key)).is_some_and(|stored| stored.contains(&digest))
        })
    })
}

fn forks_are_flagged(_: &Search, world: &World) -> bool {
    let forks = world.hub.ledger.records.iter().filter(|(_, stored)| stored.len() > 1);
    forks.map(|(key, _)| Flag::Fork(*key)).all(|flag| world.hub.ledger.flags.contains(&flag))
}

#[track_caller]
fn explore(name: &str, first: World, meets: &'static [Meets]) {
    let budget = first.left;
    // One more than what may be: a search that grows stops, and fails.
    let search = Search { first, meets }.checker().threads(2).target_state_count(STATES_MAX);
    let checker = search.spawn_bfs().join();
    println!("{name}: {} states, depth {}, bounds {budget:?}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
    assert!(checker.is_done() && checker.unique_state_count() <= STATES_MAX, "{name} grew");
}

fn has_flag(world: &World, wanted: fn(&Flag) -> bool) -> bool {
    world.hub.ledger.flags.iter().any(wanted)
}

const DRAINED: Meets = ("everything is stored", |_, world| !world.told.is_empty() && world.is_drained());
const FORK: Meets = ("a fork is flagged", |_, world| has_flag(world, |flag| matches!(flag, Flag::Fork(_))));
const MISMATCH: Meets =
    ("another chain is flagged", |_, world| has_flag(world, |flag| matches!(flag, Flag::ChainMismatch(_))));
const ROLLBACK: Meets = ("a rollback is flagged", |_, world| world.hub.ledger.flags.contains(&Flag::Rollback));
const CLONE: Meets = ("a clone is flagged", |_, world| world.hub.ledger.flags.contains(&Flag::Clone));
const RECLAIMED: Meets =
    ("something is given back", |_, world| world.boxes.iter().any(|one| one.image.given_back().next().is_some()));
const WENT_BACK: Meets = ("the ledger goes back", |_, world| world.hub.has_gone_back());

#[test]
fn a_network_that_loses_doubles_and_reorders() {
    let budget = Budget { sales: 2, ticks: 1, ..Budget::default() };
    explore("network", World::new(budget), &[DRAINED]);
}

#[test]
fn a_process_that_restarts() {
    let budget = Budget { sales: 2, ticks: 0, restarts: 1, ..Budget::default() };
    explore("restart", World::new(budget), &[DRAINED]);
}

#[test]
fn a_hub_restored_from_its_backup() {
    let budget = Budget { sales: 1, ticks: 1, backups: 1, restores: 1, reclaims: 1, ..Budget::default() };
    explore("hub restore", World::new(budget), &[DRAINED, RECLAIMED, WENT_BACK]);
}

#[test]
fn two_clones() {
    let budget = Budget { sales: 1, ticks: 1, clones: 1, ..Budget::default() };
    explore("clones", World::new(budget).after_a_sale(), &[DRAINED, CLONE]);
}

#[test]
fn a_box_set_back_to_an_earlier_image() {
    let budget = Budget { sales: 2, ticks: 0, images: 1, ..Budget::default() };
    explore("image", World::new(budget), &[DRAINED]);
}

/// A disk that is set back after its process had begun an epoch: the next process begins a second child of the same parent.
#[test]
fn a_box_set_back_twice_over() {
    let budget = Budget { sales: 2, images: 1, ..Budget::default() };
    explore("rollback", World::new(budget).after_a_sale().after_a_restart(), &[DRAINED, ROLLBACK]);
}

/// A machine is copied with its memory, and both copies sell on: the one thing that an epoch per process does not prevent.
#[test]
fn two_twins_that_continue_one_epoch() {
    let budget = Budget { sales: 2, ticks: 1, twins: 1, ..Budget::default() };
    explore("twins", World::new(budget).after_a_sale(), &[DRAINED, FORK, MISMATCH]);
}
