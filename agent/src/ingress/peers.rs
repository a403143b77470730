//! How much each peer may ask for: a budget per peer that refills with time, of which connections, requests and their bytes are paid.
//!
//! A peer is the caller's name where a request has one, else the address that it comes from; of IPv6 the whole address, as the tills of a
//! store share a network. A till behind the same address as a flood, but with a token of its own, pays from a budget of its own.
//!
//! Invariant: pure but for a lock that is held for a look-up; time is passed in. The number of peers that are remembered is bounded, of names
//! and of addresses each: one whose budget is full again is forgotten, and while all places are taken newcomers share one budget. What is
//! refused costs the peer nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::reply::RETRY_AFTER_S_MAX;

/// Addresses that are remembered, and names; a store has some dozens. About 100 bytes each.
pub const PEERS_MAX: usize = 1_024;

/// What a new connection costs, in requests; with TLS its key exchange and signature are some milliseconds of a small box.
pub const PLAIN_CONNECTION_COST: u32 = 1;
/// See [`PLAIN_CONNECTION_COST`].
pub const TLS_CONNECTION_COST: u32 = 4;

/// Bytes of bodies that cost as much as a request: an ordinary sale is less.
pub const BYTES_PER_REQUEST: usize = 16 * 1024;

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// Whoever calls from there.
    Address(IpAddr),
    /// Whoever has that name, wherever from.
    Name(String),
}

impl Payer {
    /// The peer at an address.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Payer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When there is some again.
    pub retry_after_s: u32,
    /// Whether this is the first refusal since the budget was full: worth a line in the log.
    pub is_news: bool,
}

/// What each peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Requests per second, for as long as it likes.
    pub per_second: u32,
    /// Requests at once, after a pause.
    pub burst: u32,
}

/// The budgets.
#[derive(Debug)]
pub struct Peers {
    allowance: Allowance,
    addresses: Mutex<Table>,
    names: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    by_peer: BTreeMap<Payer, Budget>,
    /// Of those for whom there is no place.
    shared: Budget,
}

/// In thousandths of a request, which may be owed, as of a time.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left_milli: i64,
    at_ms: u64,
    was_told: bool,
}

impl Allowance {
    fn burst_milli(self) -> i64 {
        i64::from(self.burst) * 1_000
    }

    /// What is owed at most, so that nobody has to wait for longer than we ever say.
    fn debt_milli_max(self) -> i64 {
        i64::from(self.per_second) * 1_000 * i64::from(RETRY_AFTER_S_MAX - 1)
    }

    fn full(self, now_ms: u64) -> Budget {
        Budget { left_milli: self.burst_milli(), at_ms: now_ms, was_told: false }
    }

    fn refill(self, budget: &mut Budget, now_ms: u64) {
        let passed_ms = i64::try_from(now_ms.saturating_sub(budget.at_ms)).unwrap_or(i64::MAX);
        let gained = passed_ms.saturating_mul(i64::from(self.per_second));
        budget.left_milli = budget.left_milli.saturating_add(gained).min(self.burst_milli());
        budget.at_ms = budget.at_ms.max(now_ms);
        if self.is_full(budget) {
            budget.was_told = false;
        }
    }

    fn is_full(self, budget: &Budget) -> bool {
        budget.left_milli >= self.burst_milli()
    }
}

impl Peers {
    /// Nobody has asked for anything yet.
    pub fn new(allowance: Allowance) -> Self {
        let table = || Mutex::new(Table { by_peer: BTreeMap::new(), shared: allowance.full(0) });
        Self { allowance, addresses: table(), names: table() }
    }

    /// Takes `cost` requests from the peer's budget, if it has one left. `now_ms` counts from any one moment.
    pub fn take(&self, peer: &Payer, cost: u32, now_ms: u64) -> Result<(), Exhausted> {
        let allowance = self.allowance;
        self.with(peer, now_ms, |budget| {
            if budget.left_milli >= 1_000 {
                budget.left_milli -= i64::from(cost) * 1_000;
                return Ok(());
            }
            let per_second_milli = i64::from(allowance.per_second) * 1_000;
            let wait_s = (1_000 - budget.left_milli + per_second_milli - 1) / per_second_milli;
            let retry_after_s = u32::try_from(wait_s).unwrap_or(RETRY_AFTER_S_MAX).clamp(1, RETRY_AFTER_S_MAX);
            Err(Exhausted { retry_after_s, is_news: !std::mem::replace(&mut budget.was_told, true) })
        })
    }

    /// Takes for bytes of bodies that came, also where that leaves a debt.
    pub fn take_bytes(&self, peer: &Payer, bytes: usize, now_ms: u64) {
        let allowance = self.allowance;
        // Not in `usize`, in which a thousand times the bytes does not fit on a box of 32 bits.
        let milli = i64::try_from(bytes as u128 * 1_000 / BYTES_PER_REQUEST as u128).unwrap_or(i64::MAX);
        self.with(peer, now_ms, |budget| {
            budget.left_milli = budget.left_milli.saturating_sub(milli).max(-allowance.debt_milli_max());
        });
    }

    /// How many are remembered.
    pub fn remembered(&self) -> usize {
        lock(&self.addresses).by_peer.len() + lock(&self.names).by_peer.len()
    }

    fn with<T>(&self, peer: &Payer, now_ms: u64, work: impl FnOnce(&mut Budget) -> T) -> T {
        let allowance = self.allowance;
        let mut table = lock(match peer {
            Payer::Address(_) => &self.addresses,
            Payer::Name(_) => &self.names,
        });
        if !table.by_peer.contains_key(peer) {
            if table.by_peer.len() >= PEERS_MAX {
                table.by_peer.retain(|_, budget| {
                    allowance.refill(budget, now_ms);
                    !allowance.is_full(budget)
                });
            }
            if table.by_peer.len() < PEERS_MAX {
                table.by_peer.insert(peer.clone(), allowance.full(now_ms));
            }
        }
        let Table { by_peer, shared } = &mut *table;
        let budget = by_peer.get_mut(peer).unwrap_or(shared);
        allowance.refill(budget, now_ms);
        work(budget)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing panics while it is held.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Allowance = Allowance { per_second: 10, burst: 20 };

    fn name(number: usize) -> Payer {
        Payer::Name(number.to_string())
    }

    /// How many of `asked` requests at a time are let pass.
    fn passed(peers: &Peers, peer: &Payer, asked: usize, now_ms: u64) -> usize {
        (0..asked).filter(|_| peers.take(peer, 1, now_ms).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_then_so_many_per_second_whatever_was_asked_in_between() {
        let peers = Peers::new(FEW);
        assert_eq!(passed(&peers, &name(1), 1_000, 5), 20);
        assert_eq!(passed(&peers, &name(2), 1_000, 5), 20, "another one is not its business");
        let per_second: Vec<usize> = (1..=50).map(|tenth| passed(&peers, &name(1), 50, 5 + tenth * 100)).collect();
        assert_eq!(per_second, [1; 50]);
        assert_eq!(passed(&peers, &name(1), 1_000, 1_000_000), 20, "no more than a burst is saved up");
    }

    #[test]
    fn what_is_refused_says_when_to_come_again_and_is_news_once() {
        let peers = Peers::new(FEW);
        peers.take_bytes(&name(1), 100 * BYTES_PER_REQUEST, 0);
        assert_eq!(peers.take(&name(1), 1, 0), Err(Exhausted { retry_after_s: 9, is_news: true }));
        assert_eq!(peers.take(&name(1), 1, 8_000), Err(Exhausted { retry_after_s: 1, is_news: false }));
        assert_eq!(peers.take(&name(1), 1, 8_100), Ok(()));
        peers.take_bytes(&name(1), usize::MAX, 8_100);
        let again = peers.take(&name(1), 1, 8_100);
        assert_eq!(
            again,
            Err(Exhausted { retry_after_s: RETRY_AFTER_S_MAX, is_news: false }),
            "no longer than we ever say"
        );
        assert_eq!(peers.take(&name(1), 1, 8_100 + 62_000), Ok(()));
        peers.take_bytes(&name(1), usize::MAX, 10_000_000);
        assert!(peers.take(&name(1), 1, 10_000_000).unwrap_err().is_news, "it was full in between");
    }

    #[test]
    fn any_number_of_peers_takes_bounded_memory_and_the_guilty_are_not_forgotten() {
        let peers = Peers::new(FEW);
        assert_eq!(passed(&peers, &name(0), 100, 0), 20);
        // Each asks once, so its budget is full again after 100 ms; the first one's is not.
        for number in 1..20 * PEERS_MAX {
            assert_eq!(peers.take(&name(number), 1, 1_000), Ok(()), "{number}");
            if number == PEERS_MAX {
                break;
            }
        }
        assert_eq!(peers.remembered(), PEERS_MAX);
        assert_eq!(passed(&peers, &name(0), 100, 1_000), 10, "a second's worth");
        // While all places are taken, newcomers share one budget.
        let newcomers = (0..1_000).filter(|number| peers.take(&name(100_000 + number), 1, 1_000).is_ok()).count();
        assert_eq!((newcomers, peers.remembered()), (19, PEERS_MAX));
        for number in 0..20 * PEERS_MAX {
            let now_ms = 2_000 + u64::try_from(number).unwrap();
            assert_eq!(peers.take(&name(200_000 + number), 1, now_ms), Ok(()), "{number}");
        }
        assert!(peers.remembered() <= PEERS_MAX);
    }

    #[test]
    fn an_address_is_one_however_it_is_written_and_a_name_is_not_an_address() {
        let at = |text: &str| Payer::at(text.parse().unwrap());
        assert_eq!(at("::ffff:10.0.0.5"), at("10.0.0.5"));
        assert_ne!(at("10.0.0.6"), at("10.0.0.5"));
        assert_ne!(at("2001:db8::2"), at("2001:db8::1"));
        let peers = Peers::new(FEW);
        assert_eq!(passed(&peers, &at("10.0.0.5"), 100, 0), 20);
        assert_eq!(passed(&peers, &Payer::Name("10.0.0.5".to_owned()), 100, 0), 20);
    }
}
