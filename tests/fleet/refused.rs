//! A program that meets what a later one wrote, and what this one writes for an earlier one.

use std::path::{Path, PathBuf};
use std::process::Command;

use world::agent::{Agent, Mqtt};
use world::bin::bin;

fn newest_segment(data_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data_dir.join("journal")).expect("a journal");
    let segments = entries.map(|entry| entry.expect("a file of the journal").path());
    segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).max().expect("a segment")
}

/// Marks a segment as one of a format that no program has written yet, under a checksum that fits.
fn make_newer(bytes: &mut [u8]) {
    let length = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn an_older_program_leaves_a_newer_journal_alone_and_says_what_to_install() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mqtt = Mqtt { url: "mqtt://127.0.0.1:1".to_owned(), identity: None };
    let mut agent = Agent::new(directory.path(), "0042", "box1", &mqtt, "");
    agent.start();
    agent.ready().await;
    agent.stop().await;
    let segment = newest_segment(&agent.data_dir());
    let mut bytes = std::fs::read(&segment).expect("a segment");
    make_newer(&mut bytes);
    std::fs::write(&segment, &bytes).expect("a segment");

    let output = Command::new(bin("counterfoil")).arg("run").arg("--config").arg(agent.config()).output();
    let output = output.expect("the agent starts");
    let said = String::from_utf8_lossy(&output.stderr);
    // 78: systemd does not try again; see `RestartPreventExitStatus`.
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("has format version 3, this software reads up to 2. Install the version that wrote it"),
        "{said}"
    );
    assert!(std::fs::read(&segment).expect("a segment") == bytes, "it is left as it was");
}

#[test]
fn a_command_line_that_is_wrong_ends_as_sysexits_says_so_that_systemd_does_not_try_again() {
    for program in ["counterfoil", "counterfoil-hub"] {
        let end = |argument: &str| Command::new(bin(program)).arg(argument).output().expect("the program starts");
        assert_eq!(end("rum").status.code(), Some(64), "{program}");
        assert!(end("--help").status.success(), "{program}");
    }
}

/// Unless somebody says otherwise, the release before reads what is written here.
#[tokio::test]
async fn the_format_that_is_asked_for_is_written() {
    for (more, format) in [("", "format 1"), ("[journal]\nformat_write = 2\n", "format 2, made by counterfoil ")] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mqtt = Mqtt { url: "mqtt://127.0.0.1:1".to_owned(), identity: None };
        let mut agent = Agent::new(directory.path(), "0042", "box1", &mqtt, more);
        agent.start();
        agent.ready().await;
        agent.stop().await;
        let output = Command::new(bin("counterfoil")).arg("verify").arg(agent.data_dir()).output();
        let output = output.expect("the agent's program starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(&format!("1 of the segments in {format}")), "{said}");
    }
}
