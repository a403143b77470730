//! Where our own programs are: beside the running test, built when they are missing or out of date.
//!
//! `cargo test` builds no programs of other packages, and what lies in the target directory may be older than the source. So cargo
//! is asked once per process; it answers at once when there is nothing to do, and with the same packages as the caller it
//! builds with the same features, so that nothing is compiled twice.
//!
//! Invariant: the program that is started was built from the source as it is now, with the profile of the test. `COUNTERFOIL_BIN_DIR` names a
//! directory to take the programs from instead, as they are (a release build, a package).

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The program `name` (`counterfoil`, `counterfoil-hub`).
pub fn bin(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| match std::env::var_os("COUNTERFOIL_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    });
    let file = directory.join(name);
    assert!(file.is_file(), "{} does not exist", file.display());
    file
}

/// Takes from a command what cargo tells this test of its own package: build scripts that look at it (ring's) would run again, and all that
/// depends on them.
pub fn forget_package(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
}

/// Builds all programs and says where they are.
fn build() -> PathBuf {
    // target/PROFILE/NAME, or target/PROFILE/deps/NAME-HASH for a test.
    let me = std::env::current_exe().expect("the path of this program");
    let mut directory = me.parent().expect("a program lies in a directory").to_owned();
    if directory.ends_with("deps") {
        directory.pop();
    }
    let (Some(target), Some(profile)) = (directory.parent(), directory.file_name().and_then(|name| name.to_str()))
    else {
        panic!("{} is not in a target directory; name the programs' directory in COUNTERFOIL_BIN_DIR", me.display());
    };
    let profile = if profile == "debug" { "dev" } else { profile };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    forget_package(&mut command);
    let output = command
        .args(["build", "--quiet", "--bins", "-p", "counterfoil", "-p", "counterfoil-hub", "-p", "counterfoil-tests"])
        .args([
            "--profile",
            profile,
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "--target-dir",
        ])
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "Building the programs failed:\n{}", String::from_utf8_lossy(&output.stderr));
    directory
}
