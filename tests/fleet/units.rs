//! The units, judged by systemd itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use world::bin::bin;
use world::needs;

/// `systemd-analyze security` counts exposure from 0 to 10, and its threshold in tenths: 1.5.
const EXPOSURE_MAX: &str = "--threshold=15";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of a workspace").join("systemd")
}

/// Runs `systemd-analyze`; success, and what it said.
fn analyze(arguments: &[&str], unit: &Path) -> (bool, String) {
    let mut command = Command::new(needs::SYSTEMD_ANALYZE.path());
    let output = command.args(arguments).arg(unit).env("SYSTEMD_COLORS", "0").output().expect("systemd-analyze runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn both_services_expose_little() {
    for name in ["counterfoil.service", "counterfoil-hub.service"] {
        let (success, said) = analyze(&["security", "--offline=true", EXPOSURE_MAX, "--no-pager"], &units().join(name));
        assert!(success, "{name} exposes too much:\n{said}");
    }
}

#[test]
fn every_unit_is_understood_to_the_last_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // The programs are not installed here, and a unit that starts nothing is refused.
    for name in ["counterfoil.service", "counterfoil.socket", "counterfoil-hub.service"] {
        let mut text = std::fs::read_to_string(units().join(name)).expect("a unit");
        for program in ["counterfoil-hub", "counterfoil"] {
            text = text.replace(&format!("/usr/bin/{program} "), &format!("{} ", bin(program).display()));
        }
        std::fs::write(directory.path().join(name), text).expect("a file of our own");
    }
    for name in ["counterfoil.service", "counterfoil.socket", "counterfoil-hub.service"] {
        let (success, said) = analyze(&["verify", "--man=no"], &directory.path().join(name));
        assert!(success && !said.contains("counterfoil"), "{name} is not understood:\n{said}");
    }
}

#[test]
fn every_directive_has_its_reason() {
    for name in ["counterfoil.service", "counterfoil.socket", "counterfoil-hub.service"] {
        let text = std::fs::read_to_string(units().join(name)).expect("a unit");
        let mut reasons = 0;
        for paragraph in text.split("\n\n") {
            let directives = paragraph.lines().filter(|line| line.contains('=') && !line.starts_with('#')).count();
            let comments = paragraph.lines().filter(|line| line.starts_with('#')).count();
            assert!(comments > 0 || directives <= 2, "{name}: nobody says why:\n{paragraph}");
            reasons += comments;
        }
        assert!(reasons > 5);
    }
}
