//! The sync protocol: why every record reaches the ledger exactly once.
//!
//! **The agent** numbers records per (epoch, lane) from 1 without holes and never uses a pair twice: an epoch ends with its
//! process. It keeps every record until the hub calls it `safe`, and sends from `stored + 1` on, as often as it takes. It
//! trusts nothing that MQTT, the broker or an earlier connection remember.
//!
//! **The hub** commits records and watermark in one transaction, under the lock of the lane's row, and only then says so.
//! A record that it has (same key, same digest) is counted and dropped; one with another digest is a fork and is kept
//! beside the first. Any process may receive and acknowledge, in any order.
//!
//! **Why nothing is lost.** `stored` crosses a number only if its record is committed, or the agent declared it gone.
//! The agent gives up a record only after `safe` of the session in which the hub answered its hello. A hub that was
//! restored says less in its welcome, and the agent goes back there; what it no longer has it declares gone, by name.
//!
//! **Why a copy of a box costs nothing.** A machine that is copied, or set back, with its memory goes on in the same epoch, and gives
//! the same numbers to other records. So a mark names the chain at it, and counts only where the agent's own chain is the same. Where it
//! is not, the agent sends all again that it retains of the lane; the hub keeps it beside what it has, and says of each batch, by
//! content, that it has it. Only that word counts then.
//!
//! **Why nothing is doubled.** (epoch, lane, seq) is the key; the row lock serialises those who advance; a key is never
//! given to a second record, since no epoch outlives a process.
//!
//! **Why it does not stop.** Every wait has a timer: the hello is repeated until it is answered; a lane without progress is sent
//! again; credit lapses to one, never to none; one stuck lane holds one batch of the window and no more. A batch that
//! the hub cannot take is halved down to one record.
//!
//! [`sender`] is the agent's end, [`receiver`] the hub's per lane, [`lineage`] the hub's view of an agent's epochs. All
//! three are pure: `handle_*(input, now)`, `poll_timeout()`, `next_command()`.

pub mod lineage;
pub mod receiver;
pub mod sender;
