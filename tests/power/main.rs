//! One command for the power cuts. Only arguments and the exit code live here; `world::power` does it.
//!
//! Exit 0: nothing was lost, doubled or wrong; 1: something was; 2: this machine does not allow the rig.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use world::power::{Options, Outcome, cuts, lies, serve};

/// Cuts the power under a selling agent: the real program on ext4, on a block device whose unflushed writes are thrown away, all, all but the first,
/// or by lot. Needs root, FUSE and loop devices.
#[derive(Debug, Parser)]
#[command(name = "power")]
struct Arguments {
    /// How often
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// What everything by lot is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give segments back as soon as the hub has them, and use their files again
    #[arg(long)]
    reclaiming: bool,
    /// One cut of a disk that confirms flushes without doing them instead; losses must be found
    #[arg(long)]
    lying: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The process behind the disk
    #[command(hide = true)]
    Disk {
        #[arg(long)]
        tag: String,
        #[arg(long)]
        bytes: usize,
        mountpoint: PathBuf,
    },
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Role::Disk { tag, bytes, mountpoint }) = arguments.role {
        return match serve(&mountpoint, &tag, bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", mountpoint.display());
                ExitCode::FAILURE
            }
        };
    }
    let Arguments { cuts: number, seed, reclaiming, .. } = arguments;
    let options = Options { cuts: number, seed, reclaiming, progress: |line| println!("{line}") };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let outcome = runtime.block_on(async { if arguments.lying { lies(&options).await } else { cuts(&options).await } });
    match outcome {
        Outcome::Skipped(reason) => {
            eprintln!("SKIPPED: this machine does not allow power cuts: {reason}");
            ExitCode::from(2)
        }
        Outcome::Ran(figures) => {
            print!("{}", figures.text());
            println!("The hub names: {:?}", figures.named);
            if figures.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
