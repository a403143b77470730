//! `counterfoil doctor`: looks a box over, the agent running or not, and says of each thing that is not well what to do about it.
//!
//! Invariant: nothing of the agent's is changed, and a running agent does not notice: the broker is asked for a TLS handshake, never for a
//! session, since that would end the agent's own. The disk is measured with a file of the doctor's beside the journal, which goes away.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use counterfoil_config::certificate::ends_at;
use counterfoil_config::tls::ClientFiles;
use counterfoil_proto::time::{ClockQuality, WallTime};
use rustls::pki_types::ServerName;
use serde::Serialize;

use crate::client::{Client, status, status::size};
use crate::command::Target;
use crate::config::Config;
use crate::env::Env;
use crate::journal::{Disk as _, OsDisk};

/// Writes with a sync each that measure the disk.
const SYNCS: usize = 20;
/// What a record of a sale takes.
const PROBE_BYTES: usize = 1_024;
/// A till waits for one sync; above these its cashier begins to notice, or the card is dying.
const SYNC_SLOW_MS: u64 = 50;
const SYNC_BAD_MS: u64 = 500;
/// For a name, a connection and a handshake, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// eMMC: tenths of the life that are used up; from here on the card should be replaced.
const WEAR_TENTHS_MAX: u8 = 8;

const DAY_MS: i64 = 86_400_000;
/// Days before a certificate's end from which on somebody should see to it.
const EXPIRY_DAYS_MIN: i64 = 7;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Good,
    /// Nobody can tell.
    Unknown,
    /// It works, and should be looked at.
    Warning,
    /// It does not work.
    Bad,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Of what.
    pub subject: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found, for a person.
    pub found: String,
    /// What to do; nothing where it is well.
    pub advice: Option<String>,
}

impl Check {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, health: Health::Good, found: found.into(), advice: None }
    }

    fn of(subject: &'static str, health: Health, found: impl Into<String>, advice: &str) -> Self {
        Self { subject, health, found: found.into(), advice: Some(advice.to_owned()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.health {
            Health::Good => "  ok  ",
            Health::Unknown => "   ?  ",
            Health::Warning => "   !  ",
            Health::Bad => "  !!  ",
        };
        writeln!(formatter, "{sign}{:<14}{}", self.subject, self.found)?;
        match &self.advice {
            Some(advice) => writeln!(formatter, "{:20}-> {advice}", ""),
            None => Ok(()),
        }
    }
}

/// Looks everything over, in the order in which one thing rests on another. `on_check` hears each as it is done: some take seconds.
pub fn examine(config: &Config, target: &Target, env: &Env, on_check: &mut dyn FnMut(&Check)) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |found: Vec<Check>| {
        found.iter().for_each(&mut *on_check);
        checks.extend(found);
    };
    add(vec![Check::good("Configuration", format!("{} is understood", config.file.display()))]);
    add(data_dir(config));
    if config.data_dir.is_dir() {
        add(vec![room(config)]);
        add(vec![speed(&config.data_dir, env)]);
        add(vec![wear(Path::new("/sys"), &config.data_dir)]);
    }
    add(vec![clock(env, newest(&config.data_dir))]);
    add(certificates(config, env));
    add(line(config));
    add(vec![agent(target)]);
    checks
}

fn data_dir(config: &Config) -> Vec<Check> {
    const SUBJECT: &str = "Data";
    let path = config.data_dir.display();
    match fs::metadata(&config.data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let advice =
                "The agent makes it at its first start. If it ran here before: is the disk mounted, is data_dir right?";
            return vec![Check::of(SUBJECT, Health::Warning, format!("{path} is not there"), advice)];
        }
        Err(error) => {
            let advice = "Run the doctor as root, or as the user that the agent runs as.";
            return vec![Check::of(SUBJECT, Health::Bad, format!("{path} cannot be read: {error}"), advice)];
        }
        Ok(_) => {}
    }
    let mut checks = Vec::new();
    let segments = fs::read_dir(config.data_dir.join("journal")).map_or(0, |files| {
        files.filter_map(Result::ok).filter(|file| file.path().extension().is_some_and(|end| end == "seg")).count()
    });
    checks.push(Check::good(SUBJECT, format!("{path} holds {segments} segments of the journal")));
    let kept = fs::read_dir(config.data_dir.join("quarantine")).map_or(0, Iterator::count);
    if kept > 0 {
        let advice = "Bytes were damaged once: the exceptions name what was lost. If the number grows, replace the disk. \
            counterfoil verify goes through all of it.";
        let found = format!("{kept} files lie in quarantine");
        checks.push(Check::of("Damage", Health::Warning, found, advice));
    }
    checks
}

fn room(config: &Config) -> Check {
    const SUBJECT: &str = "Room";
    let bytes_max = config.journal.bytes_max;
    let free = match OsDisk::at(&config.data_dir).free_bytes() {
        Ok(free) => free,
        Err(error) => {
            return Check::of(SUBJECT, Health::Unknown, format!("cannot be told: {error}"), "See the line above.");
        }
    };
    let used = bytes_in(&config.data_dir.join("journal"));
    let found = format!("{} free; the journal has {} of {}", size(free), size(used), size(bytes_max));
    if free <= config.journal.free_bytes_min {
        let advice = "New sales get 507. Make room on this file system: what else lies on it?";
        Check::of(SUBJECT, Health::Bad, found, advice)
    } else if free < bytes_max.saturating_sub(used) {
        let advice =
            "The disk is full before the journal has what it was promised. Make room, or lower journal.bytes_max.";
        Check::of(SUBJECT, Health::Warning, found, advice)
    } else {
        Check::good(SUBJECT, found)
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let Ok(files) = fs::read_dir(directory) else { return 0 };
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

fn speed(data_dir: &Path, env: &Env) -> Check {
    const SUBJECT: &str = "Disk speed";
    match probe(&data_dir.join("doctor.probe"), env) {
        Err(error) => {
            let advice = "If the file system is read-only, its disk failed: look at dmesg. Else run the doctor as the agent's user.";
            Check::of(SUBJECT, Health::Bad, format!("nothing can be written: {error}"), advice)
        }
        Ok(mut times) => {
            times.sort_unstable();
            let (median, worst) =
                (times.get(times.len() / 2).copied().unwrap_or(0), times.last().copied().unwrap_or(0));
            judge_speed(median, worst)
        }
    }
}

fn judge_speed(median: u64, worst: u64) -> Check {
    let found = format!("a write is on the disk after {median} ms, the slowest of {SYNCS} after {worst} ms");
    let health = match median {
        0..SYNC_SLOW_MS if worst < SYNC_BAD_MS => return Check::good("Disk speed", found),
        0..SYNC_BAD_MS => Health::Warning,
        _ => Health::Bad,
    };
    let advice = "Each sale waits for this. A worn or cheap card is slow like that: use an industrial one, or an SSD with power-loss protection.";
    Check::of("Disk speed", health, found, advice)
}

/// Milliseconds of each write and sync.
fn probe(path: &Path, env: &Env) -> io::Result<Vec<u64>> {
    let mut file = File::create(path)?;
    let mut times = Vec::with_capacity(SYNCS);
    let mut measure = || {
        for _ in 0..SYNCS {
            let begun = env.moment();
            file.write_all(&[0x5a; PROBE_BYTES])?;
            file.sync_data()?;
            times.push(env.moment().since_ms(begun));
        }
        Ok(())
    };
    let measured = measure();
    fs::remove_file(path)?;
    measured.map(|()| times)
}

/// How worn the medium is, by its own word (JEDEC JESD84-B51, `EXT_CSD` 267 to 269, as the kernel shows it).
fn wear(sys: &Path, data_dir: &Path) -> Check {
    const SUBJECT: &str = "Disk wear";
    let unknown = |found: &str| {
        Check::of(
            SUBJECT,
            Health::Unknown,
            found,
            "smartctl -a tells of SSDs; of SD cards nobody can: replace them by age.",
        )
    };
    let Some(device) = device_of(sys, data_dir) else { return unknown("the disk's device is not known") };
    let Ok(text) = fs::read_to_string(device.join("life_time")) else { return unknown("this disk does not say") };
    let tenths =
        text.split_whitespace().filter_map(|word| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok()).max();
    let Some(tenths) = tenths.filter(|tenths| *tenths > 0) else { return unknown("this disk does not say") };
    let reserve = fs::read_to_string(device.join("pre_eol_info")).unwrap_or_default();
    let is_urgent = matches!(reserve.trim(), "0x02" | "0x03");
    let found = format!("{} to {} % of its life is used up", (tenths - 1) * 10, tenths.min(10) * 10);
    if tenths > WEAR_TENTHS_MAX || is_urgent {
        let advice = "Replace the box or its card soon: run counterfoil verify --delivered first, so that nothing is left on it.";
        Check::of(SUBJECT, Health::Warning, found, advice)
    } else {
        Check::good(SUBJECT, found)
    }
}

/// The directory below `sys` of the device that holds a path's file system: of the whole disk, where that is a partition.
fn device_of(sys: &Path, path: &Path) -> Option<PathBuf> {
    let device = fs::metadata(path).ok()?.dev();
    let name = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let block = fs::canonicalize(sys.join("dev/block").join(name)).ok()?;
    let disk = if block.join("partition").exists() { block.parent()?.to_owned() } else { block };
    Some(disk.join("device"))
}

/// The newest time that a file of the journal was written.
fn newest(data_dir: &Path) -> WallTime {
    let files = fs::read_dir(data_dir.join("journal")).into_iter().flatten();
    let times = files.filter_map(|file| file.ok()?.metadata().ok());
    WallTime(times.map(|file| file.mtime().saturating_mul(1_000)).max().unwrap_or(0))
}

fn clock(env: &Env, journal: WallTime) -> Check {
    const SUBJECT: &str = "Clock";
    let now = env.wall().to_rfc3339();
    match env.clock_quality(journal) {
        ClockQuality::Synchronised => Check::good(SUBJECT, format!("{now}, kept right by a time service")),
        ClockQuality::Unsynchronised => {
            let advice = "Receipts carry this time. Only systemd-timesyncd is understood here; of others, chronyc tracking or ntpq -p tells.";
            Check::of(SUBJECT, Health::Unknown, format!("{now}; systemd-timesyncd does not vouch for it"), advice)
        }
        ClockQuality::Behind => {
            let advice =
                "Certificates and receipts suffer. Set it (timedatectl set-time), and see to the battery of the clock.";
            Check::of(SUBJECT, Health::Bad, format!("{now}, which is before this box last wrote something"), advice)
        }
    }
}

fn certificates(config: &Config, env: &Env) -> Vec<Check> {
    const SUBJECT: &str = "Certificates";
    let Some(files) = &config.mqtt.tls else { return Vec::new() };
    if let Err(error) = files.read() {
        let advice =
            "Without them head office is not reached; sales go on. Put the files in place, or have new ones made.";
        return vec![Check::of(SUBJECT, Health::Bad, error.to_string(), advice)];
    }
    let named = [Some(files.ca_file.as_path()), files.identity.as_ref().map(|identity| identity.cert_file.as_path())];
    let of_file = |file: &Path| match ends_at(file) {
        Some(at) => validity(file, at, env.wall()),
        None => Check::of(
            SUBJECT,
            Health::Unknown,
            format!("{} has no date that can be read", file.display()),
            "Look at it.",
        ),
    };
    named.into_iter().flatten().map(of_file).collect()
}

/// Whether a certificate is valid for long enough, by this box's clock.
fn validity(file: &Path, ends_s: u64, now: WallTime) -> Check {
    let until = WallTime(i64::try_from(ends_s.saturating_mul(1_000)).unwrap_or(i64::MAX));
    let found = format!("{} is readable, fits, and is valid until {}", file.display(), until.to_rfc3339());
    let days = (until.0 - now.0) / DAY_MS;
    if until <= now {
        let advice = "Head office is not reached with it; sales go on. Have a new one made.";
        return Check::of("Certificates", Health::Bad, found, advice);
    }
    match days {
        EXPIRY_DAYS_MIN.. => Check::good("Certificates", found),
        _ => Check::of("Certificates", Health::Warning, found, "That is soon: have a new one made."),
    }
}

/// Name, way and handshake to the broker.
fn line(config: &Config) -> Vec<Check> {
    let (host, port) = (config.mqtt.host.as_str(), config.mqtt.port);
    let addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let advice = "Is the line up, and does DNS work (resolvectl query)? Is mqtt.url spelt right?";
            return vec![Check::of("DNS", Health::Bad, format!("{host} has no address: {error}"), advice)];
        }
    };
    let listed = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    let mut checks = vec![Check::good("DNS", format!("{host} is {listed}"))];
    checks.push(match connect(&addresses) {
        Err(error) => {
            let advice = "The broker is down, or a firewall lets nothing out to that port. Sales go on and wait here.";
            Check::of("Broker", Health::Bad, format!("{host}:{port} cannot be reached: {error}"), advice)
        }
        Ok(stream) => match config.mqtt.tls.as_ref().map(ClientFiles::read) {
            None => Check::good("Broker", format!("{host}:{port} answers, without TLS")),
            Some(Err(_)) => {
                let advice = "See the certificates above.";
                Check::of("Broker", Health::Unknown, format!("{host}:{port} answers; TLS cannot be tried"), advice)
            }
            Some(Ok(tls)) => match handshake(stream, host, tls) {
                Ok(()) => Check::good("Broker", format!("{host}:{port} answers, and TLS agrees on both sides")),
                Err(error) => {
                    let advice = "One side does not trust the other: is mqtt.ca_file the one that signed the broker's certificate, \
                        is ours expired or revoked, is the clock right?";
                    Check::of("Broker", Health::Bad, format!("TLS with {host}:{port} fails: {error}"), advice)
                }
            },
        },
    });
    checks
}

fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A TLS handshake. In TLS 1.3 a server says only afterwards that it does not like the client's certificate, so its first word is waited for; a
/// broker that is content says nothing until it is asked.
fn handshake(mut stream: TcpStream, host: &str, tls: rustls::ClientConfig) -> Result<(), String> {
    let words = |error: &dyn fmt::Display| error.to_string();
    let patience = |stream: &TcpStream, time| {
        stream
            .set_read_timeout(Some(time))
            .and_then(|()| stream.set_write_timeout(Some(time)))
            .map_err(|error| words(&error))
    };
    patience(&stream, PATIENCE)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| words(&error))?;
    let mut session = rustls::ClientConnection::new(Arc::new(tls), name).map_err(|error| words(&error))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(|error| words(&error))?;
    }
    patience(&stream, Duration::from_secs(1))?;
    match rustls::Stream::new(&mut session, &mut stream).read(&mut [0]) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(words(&error)),
        Ok(_) => Err("the broker closed the connection".to_owned()),
    }
}

fn agent(target: &Target) -> Check {
    const SUBJECT: &str = "Agent";
    match Client::new(target).and_then(|client| status::overview(&client)) {
        Err(error) => {
            let advice = "Start it (systemctl start counterfoil), or see why it does not (journalctl -u counterfoil).";
            Check::of(SUBJECT, Health::Warning, error.to_string(), advice)
        }
        Ok(overview) => match overview.matters() {
            matters if matters.is_empty() => Check::good(SUBJECT, "runs, and everything is all right with it"),
            matters => Check::of(SUBJECT, Health::Warning, matters.join(" "), "counterfoil status says more."),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_that_tells_of_its_wear_is_heard() {
        let sys = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        let device = fs::metadata(data.path()).unwrap().dev();
        let name = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let disk = sys.path().join("devices/mmc0/block/mmcblk0");
        fs::create_dir_all(disk.join("mmcblk0p2")).unwrap();
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::write(disk.join("mmcblk0p2/partition"), "2\n").unwrap();
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        let partition = disk.join("mmcblk0p2");
        std::os::unix::fs::symlink(partition, sys.path().join("dev/block").join(name)).unwrap();
        let of = |life_time: &str, pre_eol_info: &str| {
            fs::write(disk.join("device/life_time"), life_time).unwrap();
            fs::write(disk.join("device/pre_eol_info"), pre_eol_info).unwrap();
            let Check { health, found, .. } = wear(sys.path(), data.path());
            (health, found)
        };
        assert_eq!(of("0x01 0x03\n", "0x01\n"), (Health::Good, "20 to 30 % of its life is used up".to_owned()));
        assert_eq!(of("0x0b 0x01\n", "0x01\n"), (Health::Warning, "100 to 100 % of its life is used up".to_owned()));
        assert_eq!(of("0x02 0x02\n", "0x02\n").0, Health::Warning, "its spare blocks run out");
        assert_eq!(of("0x00 0x00\n", "0x00\n").0, Health::Unknown);
        assert_eq!(wear(&sys.path().join("nothing"), data.path()).health, Health::Unknown);
    }

    #[test]
    fn the_probe_measures_each_write_and_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let env = Env::of_this_box().unwrap();
        assert_eq!(probe(&data.path().join("doctor.probe"), &env).unwrap().len(), SYNCS);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        assert_eq!(speed(&data.path().join("missing"), &env).health, Health::Bad);
        assert_eq!(
            [(1, 3), (1, 900), (60, 90), (700, 900)].map(|(median, worst)| judge_speed(median, worst).health),
            [Health::Good, Health::Warning, Health::Warning, Health::Bad]
        );
    }

    #[test]
    fn a_certificate_is_told_of_before_it_ends() {
        let health = |days: u64| validity(Path::new("agent.pem"), days * 86_400, WallTime(1)).health;
        let (good, soon, ended) = (Health::Good, Health::Warning, Health::Bad);
        assert_eq!([0, 1, 7, 8, 90].map(health), [ended, soon, soon, good, good]);
    }

    #[test]
    fn a_clock_is_judged_by_what_vouches_for_it() {
        let (env, script) = Env::scripted(1);
        assert_eq!(clock(&env, WallTime(0)).health, Health::Good);
        script.set_synchronised(false);
        assert_eq!(clock(&env, WallTime(0)).health, Health::Unknown);
        script.set_wall(WallTime(0));
        assert_eq!(clock(&env, WallTime(0)).health, Health::Bad);
    }
}
