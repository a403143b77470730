//! A box of its own: Debian in a directory, booted with its own systemd (systemd-nspawn), on the network of this machine.
//!
//! Invariant: it ends with the test. Its file system is made once (mmdebstrap, minutes) and kept beside the build; each box is a copy.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use world::needs;
use world::process::Process;
use world::wait::Deadline;

use crate::package::target;

/// A boot takes a second; on a loaded machine ten.
const BOOT_LIMIT: Duration = Duration::from_mins(2);

/// What is in the box beside what Debian cannot do without.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates";

/// A box that runs.
pub(crate) struct Machine {
    /// Its process 1, as this machine counts.
    leader: u32,
    nspawn: Process,
    directory: tempfile::TempDir,
    /// One box at a time: `--keep-unit` has all of them in one control group, where the services of one would be another's.
    _alone: File,
}

impl Machine {
    /// Boots one, and waits until it is up.
    pub(crate) async fn boot() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "A box of its own needs root (mmdebstrap, systemd-nspawn): run this test as root"
        );
        let alone = File::create(template_place().join("box.lock")).expect("a file beside the build");
        flock(&alone, FlockOperation::LockExclusive).expect("locking a file of our own");
        let directory = tempfile::tempdir_in(template_place()).expect("a directory beside the build");
        let root = directory.path().join("root");
        run(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(template()).arg(&root));
        let mut command = Command::new(needs::SYSTEMD_NSPAWN.path());
        command.args(["--quiet", "--register=no", "--keep-unit", "--boot", "--directory"]).arg(&root);
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let mut nspawn = Process::start("the box", command, &directory.path().join("console"));
        let deadline = Deadline::new(BOOT_LIMIT);
        let leader = loop {
            match child_named(nspawn.id(), "systemd") {
                Some(leader) => break leader,
                None => nspawn.wait_on(deadline, "process 1 of the box").await,
            }
        };
        let mut machine = Self { leader, nspawn, directory, _alone: alone };
        // Until its bus is there, nobody answers.
        while !is_up(&machine.run("systemctl is-system-running")) {
            machine.nspawn.wait_on(deadline, "a box that is up").await;
        }
        machine
    }

    /// Runs a shell script in the box.
    pub(crate) fn run(&self, script: &str) -> Output {
        let mut command = Command::new(needs::NSENTER.path());
        command
            .arg("--target")
            .arg(self.leader.to_string())
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args(["/bin/sh", "-c", script]).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        command.output().expect("nsenter runs")
    }

    /// The same, which has to succeed; gives what it said.
    pub(crate) fn must(&self, script: &str) -> String {
        let output = self.run(script);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{script} ended with {}:\n{said}\n{}", output.status, self.log());
        said
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.must(&format!("systemctl show --value --property={property} {unit}")).trim().to_owned()
    }

    /// What the services of ours said.
    pub(crate) fn log(&self) -> String {
        let output = self.run("journalctl --no-pager --lines=60 --unit=counterfoil --unit=counterfoil-hub");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A file of the box, as this machine sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    /// Puts a file into the box.
    pub(crate) fn put(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a directory in the box");
        std::fs::write(path, text).expect("a file in the box");
    }

    /// Where files may be put that the test makes, on this machine.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With process 1 of the box all others of it end; while nspawn lives its id cannot be another's.
        if self.nspawn.ended().is_none()
            && let Some(leader) = i32::try_from(self.leader).ok().and_then(Pid::from_raw)
        {
            let _ended_already = kill_process(leader, Signal::KILL).is_err();
        }
    }
}

fn is_up(output: &Output) -> bool {
    matches!(output.stdout.trim_ascii(), b"running" | b"degraded")
}

fn child_named(parent: u32, name: &str) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let mut children = children.split_whitespace().filter_map(|id| id.parse::<u32>().ok());
    children.find(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name))
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("a program that is there starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn template_place() -> PathBuf {
    let place = target().join("fleet");
    std::fs::create_dir_all(&place).expect("a directory beside the build");
    place
}

/// The file system that boxes are copied from, made where it is missing.
fn template() -> PathBuf {
    let place = template_place();
    let template = place.join("bookworm");
    let lock = File::create(place.join("lock")).expect("a file beside the build");
    flock(&lock, FlockOperation::LockExclusive).expect("locking a file of our own");
    if !template.is_dir() {
        let fresh = place.join("bookworm.new");
        run(Command::new("rm").args(["--recursive", "--force"]).arg(&fresh));
        let mut command = Command::new(needs::MMDEBSTRAP.path());
        command.args(["--quiet", "--variant=minbase"]).arg(format!("--include={PACKAGES}")).arg("bookworm").arg(&fresh);
        run(&mut command);
        std::fs::rename(&fresh, &template).expect("a name beside the build");
    }
    template
}
