//! The disk as the rig handles it: the process that serves it, the block device on it, the file system on that.
//!
//! Invariant: every step has a time limit and says what it was when it fails; whatever is up is taken down when this is dropped. The block
//! device of one life of the disk is never used in the next.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use super::medium::{Cut, Keep};
use super::place::{Place, take_down};
use super::serve::file_name;
use crate::bin::bin;
use crate::needs::{self, Need};
use crate::wait::Deadline;

/// For one step: an order, or a program that sets something up.
const STEP_LIMIT: Duration = Duration::from_mins(2);

/// A disk with a file system, mounted or not.
#[derive(Debug)]
pub(super) struct Drive {
    run: PathBuf,
    tag: String,
    life: u64,
    device: Option<String>,
    server: Server,
}

/// The process behind the disk.
#[derive(Debug)]
struct Server {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Drive {
    /// A new disk of `bytes` with an empty file system, mounted.
    pub(super) async fn new(place: &Place, bytes: usize) -> Result<Self, String> {
        let run = place.path().to_owned();
        for directory in [Self::fuse(&run), Self::root(&run)] {
            std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        let server = Server::start(&run, &place.tag(), bytes)?;
        let mut drive = Self { run, tag: place.tag(), life: 1, device: None, server };
        drive.server.answer("the disk's first word").await?;
        let device = drive.attach().await?;
        // Everything is written now, so that nothing is written in the background later; discards would be foreign to a card.
        let eager =
            ["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4"];
        run_program(needs::MKFS_EXT4, &[&eager[..], &[&device]].concat()).await?;
        drive.mount().await?;
        Ok(drive)
    }

    /// Where the file system is.
    pub(super) fn path(&self) -> PathBuf {
        Self::root(&self.run)
    }

    fn root(run: &Path) -> PathBuf {
        run.join("root")
    }

    fn fuse(run: &Path) -> PathBuf {
        run.join("fuse")
    }

    /// Makes the file system's content durable.
    pub(super) async fn sync(&self) -> Result<(), String> {
        run_program(needs::SYNC, &["--file-system", &self.path().display().to_string()]).await.map(drop)
    }

    /// The power goes after so many more writes and flushes.
    pub(super) async fn arm(&mut self, operations: u64) -> Result<(), String> {
        self.server.order(&format!("arm {operations}")).await.map(drop)
    }

    /// It does not go after all; says whether it is on.
    pub(super) async fn disarm(&mut self) -> Result<bool, String> {
        Ok(self.server.order("disarm").await?.starts_with("on"))
    }

    /// From now on the disk confirms flushes without doing them.
    pub(super) async fn lie(&mut self) -> Result<(), String> {
        self.server.order("lie").await.map(drop)
    }

    /// Whether the power is gone.
    pub(super) async fn is_off(&mut self) -> Result<bool, String> {
        Ok(self.server.order("state").await?.starts_with("off"))
    }

    /// Lets what waits for the disk fail. Whoever used it must be dead by now, or dying.
    pub(super) async fn fail(&mut self) -> Result<(), String> {
        self.server.order("fail").await.map(drop)
    }

    /// The power comes back: what the cut left is mounted.
    pub(super) async fn restore(&mut self, keep: Keep, seed: u64) -> Result<Cut, String> {
        self.detach().await?;
        let keep = match keep {
            Keep::None => "none",
            Keep::Prefix => "prefix",
            Keep::Subset => "subset",
        };
        let answer = self.server.order(&format!("restore {keep} {seed}")).await?;
        self.life += 1;
        let mut numbers = answer.split(' ').skip(1).map(str::parse);
        let (Some(Ok(pending)), Some(Ok(kept))) = (numbers.next(), numbers.next()) else {
            return Err(format!("the disk answered {answer:?} to `restore`"));
        };
        self.attach().await?;
        self.mount().await?;
        Ok(Cut { pending, kept })
    }

    async fn mount(&self) -> Result<(), String> {
        let device = self.device.as_deref().unwrap_or_default();
        let root = self.path().display().to_string();
        run_program(needs::MOUNT, &["-t", "ext4", "-o", "noatime", device, &root]).await.map(drop)
    }

    /// Puts the disk's file below a block device. Others on the machine take devices too, so it is tried again.
    async fn attach(&mut self) -> Result<String, String> {
        let file = Self::fuse(&self.run).join(file_name(&self.tag, self.life)).display().to_string();
        let deadline = Deadline::new(STEP_LIMIT);
        loop {
            make_device_files();
            match run_program(needs::LOSETUP, &["--find", "--show", &file]).await {
                Ok(device) => return Ok(self.device.insert(device.trim().to_owned()).clone()),
                Err(error) if !deadline.rest().await => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn detach(&mut self) -> Result<(), String> {
        let root = self.path().display().to_string();
        if run_program(needs::UMOUNT, &[&root]).await.is_err() {
            // Somebody looks at it, a scanner perhaps. What is left of it cannot reach the disk's next life.
            run_program(needs::UMOUNT, &["--lazy", &root]).await?;
        }
        if let Some(device) = self.device.take() {
            run_program(needs::LOSETUP, &["--detach", &device]).await?;
        }
        Ok(())
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.server.end();
        take_down(&self.run);
    }
}

impl Server {
    fn start(run: &Path, tag: &str, bytes: usize) -> Result<Self, String> {
        let mut command = Command::new(bin("power"));
        command.args(["disk", "--tag", tag, "--bytes", &bytes.to_string()]).arg(Drive::fuse(run));
        let failed = |error: std::io::Error| format!("the process behind the disk: {error}");
        let log = std::fs::File::create(run.join("disk.log")).map_err(failed)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed)?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().expect("it was piped");
        let answers = BufReader::new(ChildStdout::from_std(answers).map_err(failed)?).lines();
        Ok(Self { child, orders, answers })
    }

    async fn order(&mut self, order: &str) -> Result<String, String> {
        let orders = self.orders.as_mut().expect("orders are given until the end");
        writeln!(orders, "{order}").map_err(|error| format!("the process behind the disk takes no order: {error}"))?;
        self.answer(order).await
    }

    async fn answer(&mut self, to: &str) -> Result<String, String> {
        match tokio::time::timeout(STEP_LIMIT, self.answers.next_line()).await {
            Ok(Ok(Some(line))) if line.starts_with("on") || line.starts_with("off") => Ok(line),
            Ok(Ok(Some(line))) => Err(format!("the disk answered {line:?} to {to:?}")),
            Ok(Ok(None)) => Err(format!("the process behind the disk ended before it answered {to:?}")),
            Ok(Err(error)) => Err(format!("the disk's answer to {to:?}: {error}")),
            Err(_) => Err(format!("the disk did not answer {to:?} within {} s", STEP_LIMIT.as_secs())),
        }
    }

    /// Ends the process; everybody who still waits for the disk then hears an error.
    fn end(&mut self) {
        drop(self.orders.take());
        let _ended_already = self.child.kill().is_err();
        let _waited_already = self.child.wait().is_err();
    }
}

/// A kernel may know block devices that nobody made a file for, in a container most of all.
fn make_device_files() {
    for entry in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = format!("/dev/{name}");
        let number = std::fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
        if let (true, false, Some((major, minor))) =
            (name.starts_with("loop"), Path::new(&file).exists(), number.trim().split_once(':'))
        {
            let mut command = Command::new(needs::MKNOD.path());
            command.args([&file, "b", major, minor]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _made_by_another = command.status().is_err();
        }
    }
}

/// Runs a program to its end and gives what it printed.
async fn run_program(need: Need, arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new(need.path());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("{} {}", need.program(), arguments.join(" "));
    match tokio::time::timeout(STEP_LIMIT, command.output()).await {
        Err(_) => Err(format!("`{what}` did not end within {} s", STEP_LIMIT.as_secs())),
        Ok(Err(error)) => Err(format!("`{what}`: {error}")),
        Ok(Ok(output)) if !output.status.success() => {
            Err(format!("`{what}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}
