//! Peers that go on opening connections which are refused: for a while the kernel drops what they open, before it becomes a connection.
//!
//! Refusing costs an accept and a close, which ten thousand times a second is a small box's whole processor. A filter on the listening socket
//! (classic BPF, `SO_ATTACH_FILTER`: no privilege) costs a comparison. It looks at the first segment of a connection (SYN) alone, so what is open already
//! goes on, and accepted sockets, which inherit it, are never touched. The peer's system sends that segment again after 1 s, 3 s, 7 s (RFC
//! 6298): whoever means well gets in late, and by itself.
//!
//! Invariant: pure but for [`Shutout::apply`]; time is passed in. The list is bounded; who does not fit is refused as before.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};

/// Refusals within [`WINDOW_MS`] that are borne before a peer is shut out.
const REFUSALS_MAX: u32 = 32;
const WINDOW_MS: u64 = 1_000;

/// How long, the first time; twice as long each time that follows upon another.
const SHUT_MS: u64 = 1_000;
/// See [`SHUT_MS`].
const SHUT_MS_MAX: u64 = 16_000;

/// Peers that are watched or shut out at once.
const WATCHED_MAX: usize = 32;

/// Who was refused of late.
#[derive(Debug, Default)]
pub(super) struct Shutout {
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    address: IpAddr,
    /// Refusals since `since_ms`.
    refusals: u32,
    since_ms: u64,
    /// How long it was shut out the last time, and until when; 0 for never.
    shut_ms: u64,
    until_ms: u64,
    /// It is shut out now.
    is_shut: bool,
}

impl Shutout {
    /// Notes that a connection of `address` was refused. `Some`: from now on it is shut out, for so long; the filter has to be applied.
    pub(super) fn refused(&mut self, address: IpAddr, now_ms: u64) -> Option<Duration> {
        let address = address.to_canonical();
        let index = self.watched.iter().position(|one| one.address == address).or_else(|| {
            self.watched.retain(|one| !one.is_done(now_ms));
            let has_room = self.watched.len() < WATCHED_MAX;
            has_room.then(|| {
                self.watched.push(Watched {
                    address,
                    refusals: 0,
                    since_ms: now_ms,
                    shut_ms: 0,
                    until_ms: 0,
                    is_shut: false,
                });
                self.watched.len() - 1
            })
        });
        let one = self.watched.get_mut(index?)?;
        if now_ms >= one.since_ms + WINDOW_MS {
            (one.refusals, one.since_ms) = (0, now_ms);
        }
        one.refusals += 1;
        // Those that were on their way when the filter came are no news.
        if one.refusals < REFUSALS_MAX || one.is_shut {
            return None;
        }
        let follows = one.shut_ms > 0 && !one.is_reformed(now_ms);
        one.shut_ms = if follows { (one.shut_ms * 2).min(SHUT_MS_MAX) } else { SHUT_MS };
        (one.is_shut, one.until_ms) = (true, now_ms + one.shut_ms);
        Some(Duration::from_millis(one.shut_ms))
    }

    /// Lets in whose time is over; whether there was one, so that the filter has to be applied.
    pub(super) fn release(&mut self, now_ms: u64) -> bool {
        let over = self.watched.iter_mut().filter(|one| one.is_shut && one.until_ms <= now_ms);
        let over = over.map(|one| (one.is_shut, one.refusals, one.since_ms) = (false, 0, now_ms));
        over.count() > 0
    }

    /// When [`Shutout::release`] has something to do.
    pub(super) fn release_at_ms(&self) -> Option<u64> {
        self.watched.iter().filter(|one| one.is_shut).map(|one| one.until_ms).min()
    }

    /// Has the kernel do on the listening socket what is decided here.
    pub(super) fn apply(&self, listener: &impl AsFd) -> io::Result<()> {
        let shut: Vec<IpAddr> = self.watched.iter().filter(|one| one.is_shut).map(|one| one.address).collect();
        // Also where that is nobody: not everything that runs programs of Linux can take a filter away.
        SockRef::from(listener).attach_filter(&dropping(&shut))
    }
}

impl Watched {
    /// It was let in for as long as it was shut out.
    fn is_reformed(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms + self.shut_ms
    }

    /// Nothing needs to be known of it any more.
    fn is_done(&self, now_ms: u64) -> bool {
        !self.is_shut && self.is_reformed(now_ms) && now_ms >= self.since_ms + WINDOW_MS
    }
}

/// Drops each SYN that comes from one of them. Names and numbers: `linux/filter.h`, `linux/bpf_common.h`; it begins at the header of TCP, and
/// that of IP is found by an offset of its own.
fn dropping(addresses: &[IpAddr]) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const IP: u32 = 0xfff0_0000; // SKF_NET_OFF
    const KEEP: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
    const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

    // SYN without ACK, in the flags of TCP.
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(IF_EQUAL, 1, 0, 0x02),
        KEEP,
    ];
    for address in addresses {
        let (version, source, words): (u32, u32, Vec<u32>) = match address {
            IpAddr::V4(address) => (0x40, 12, vec![address.to_bits()]),
            IpAddr::V6(address) => (
                0x60,
                8,
                address
                    .octets()
                    .chunks(4)
                    .map(|word| word.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)))
                    .collect(),
            ),
        };
        let compare = 2 * words.len();
        let past = |done: usize| u8::try_from(compare - done).unwrap_or(u8::MAX);
        program.push(SockFilter::new(LOAD_BYTE, 0, 0, IP));
        program.push(SockFilter::new(AND, 0, 0, 0xf0));
        program.push(SockFilter::new(IF_EQUAL, 0, past(0) + 1, version));
        for ((index, word), offset) in words.iter().enumerate().zip((source..).step_by(4)) {
            program.push(SockFilter::new(LOAD_WORD, 0, 0, IP + offset));
            // What differs goes on behind DROP.
            program.push(SockFilter::new(IF_EQUAL, 0, past(2 * index + 2) + 1, *word));
        }
        program.push(DROP);
    }
    program.push(KEEP);
    program
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Refusals until the peer is shut out, one in a millisecond from `now_ms`; when that was, and for how long.
    fn until_shut(shutout: &mut Shutout, address: IpAddr, now_ms: u64) -> (u64, u64) {
        let shut = (now_ms..now_ms + 500).find_map(|at| Some((at, shutout.refused(address, at)?)));
        let (at, length) = shut.expect("shut out");
        (at, u64::try_from(length.as_millis()).unwrap())
    }

    #[test]
    fn who_goes_on_is_shut_out_each_time_for_longer_and_who_waits_begins_anew() {
        let (mut shutout, peer) = (Shutout::default(), at("10.0.0.5"));
        let mut now_ms = 0;
        for length in [1_000, 2_000, 4_000, 8_000, 16_000, 16_000] {
            let (since, shut) = until_shut(&mut shutout, peer, now_ms);
            assert_eq!((since - now_ms, shut), (u64::from(REFUSALS_MAX) - 1, length));
            assert_eq!(shutout.refused(peer, since + 1), None, "it was on its way");
            assert_eq!(shutout.release_at_ms(), Some(since + length));
            assert!(!shutout.release(since + length - 1));
            now_ms = since + length;
            assert!(shutout.release(now_ms) && !shutout.release(now_ms));
        }
        assert_eq!(until_shut(&mut shutout, peer, now_ms + 16_000).1, 1_000);
    }

    #[test]
    fn who_is_refused_now_and_then_is_never_shut_out() {
        let (mut shutout, peer) = (Shutout::default(), at("10.0.0.5"));
        // 25 a second.
        assert!((0..10_000).all(|index| shutout.refused(peer, index * 40).is_none()));
        assert_eq!(shutout.release_at_ms(), None);
    }

    #[test]
    fn any_number_of_peers_takes_bounded_memory() {
        let mut shutout = Shutout::default();
        let peers = || (0..=255).map(|last| IpAddr::from([10, 0, 0, last]));
        let shut = |shutout: &mut Shutout, now_ms| {
            let shut = peers().filter(|peer| (0..100).any(|_| shutout.refused(*peer, now_ms).is_some()));
            shut.count()
        };
        assert_eq!(shut(&mut shutout, 0), WATCHED_MAX);
        assert!(dropping(&vec![at("2001:db8::1"); WATCHED_MAX]).len() <= 4_096, "the kernel takes no more");
        assert!(shutout.release(1_000));
        assert_eq!(shut(&mut shutout, 10_000), WATCHED_MAX, "those before are forgotten");
    }

    fn begun(from: IpAddr, to: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Over loopback it is made within the call, or not at all.
        let _in_progress = socket.connect(&to.into());
        socket
    }

    fn is_connected(socket: &Socket) -> bool {
        socket.peer_addr().is_ok()
    }

    /// What of those is connected at once while `shut` are shut out.
    fn connected<const N: usize>(listener: &TcpListener, shut: &[&str], from: [&str; N]) -> [bool; N] {
        let mut shutout = Shutout::default();
        for peer in shut {
            until_shut(&mut shutout, at(peer), 0);
        }
        shutout.apply(listener).unwrap();
        let to = listener.local_addr().unwrap();
        let sockets = from.map(|from| begun(at(from), to));
        let connected = sockets.each_ref().map(is_connected);
        assert!(shutout.release(10_000));
        shutout.apply(listener).unwrap();
        // Let in, whoever still tries gets in by what its kernel sends again.
        for socket in sockets {
            socket.set_nonblocking(false).unwrap();
            let again = socket.connect(&to.into());
            assert!(again.is_ok() || is_connected(&socket), "{again:?}");
        }
        connected
    }

    #[test]
    fn the_kernel_drops_what_they_open_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = ["127.0.1.1", "127.0.1.2", "127.0.1.3"];
        assert_eq!(connected(&listener, &["127.0.1.2"], from), [true, false, true]);
        let shut = ["10.0.0.9", "2001:db8::1", "127.0.1.3", "::1", "127.0.1.1"];
        assert_eq!(connected(&listener, &shut, from), [false, true, false]);
    }

    #[test]
    fn of_ipv6_the_whole_address_counts_and_a_mapped_one_is_the_same_peer() {
        let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
        assert_eq!(connected(&listener, &["::1:0:0:1", "0:1::1", "1::1", "::2", "0.0.0.0"], ["::1"]), [true]);
        assert_eq!(connected(&listener, &["::2", "::1"], ["::1"]), [false]);
        let both = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&SocketAddr::new(at("::"), 0).into()).unwrap();
        both.listen(16).unwrap();
        let both = TcpListener::from(both);
        let mut shutout = Shutout::default();
        until_shut(&mut shutout, at("::ffff:127.0.1.1"), 0);
        shutout.apply(&both).unwrap();
        let to = SocketAddr::new(at("127.0.0.1"), both.local_addr().unwrap().port());
        assert_eq!(["127.0.1.1", "127.0.1.2"].map(|from| is_connected(&begun(at(from), to))), [false, true]);
    }

    #[test]
    fn what_is_open_goes_on() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, peer) = (listener.local_addr().unwrap(), "127.0.1.1");
        let before = begun(at(peer), to);
        let mut shutout = Shutout::default();
        until_shut(&mut shutout, at(peer), 0);
        shutout.apply(&listener).unwrap();
        // Accepted under the filter, from another address, and opened before it.
        for mut socket in [before, begun(at("127.0.1.2"), to)] {
            let (mut accepted, _) = listener.accept().unwrap();
            // Even under a filter that names its own peer, which it can inherit at the moment of a change.
            shutout.apply(&accepted).unwrap();
            accepted.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.write_all(b"sale").unwrap();
            let mut bytes = [0; 4];
            accepted.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"sale");
        }
    }
}
