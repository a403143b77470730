//! The packages: made, judged by lintian, and made again to the same bytes.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use world::bin::{bin, forget_package};
use world::needs;

/// The version of cargo-deb that packages are made with; what CI installs.
const CARGO_DEB: &str = "3.8.0";

/// A fixed time in every file of a package: two runs give the same bytes.
const SOURCE_DATE_EPOCH: &str = "1795737600";

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of a workspace")
}

/// The target directory of this test.
pub(crate) fn target() -> PathBuf {
    let profile = bin("counterfoil").parent().expect("a program lies in a directory").to_owned();
    profile.parent().expect("a profile lies in a target directory").to_owned()
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_package(&mut command);
    command.stdin(Stdio::null()).current_dir(workspace()).env("CARGO_TARGET_DIR", target());
    command
}

/// Where cargo-deb is: on the path, or beside the build, where it is compiled the first time (minutes).
fn cargo_deb_path() -> OsString {
    let root = target().join("tools/cargo-deb");
    let own = root.join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lock = File::create(target().join("cargo-deb.lock")).expect("a lock file in the target directory");
    flock(&lock, FlockOperation::LockExclusive).expect("locking a file of our own");
    let is_there = std::env::split_paths(&path).chain([own.clone()]).any(|place| place.join("cargo-deb").is_file());
    if !is_there {
        let mut install = cargo();
        install.args(["install", "cargo-deb", "--locked", "--quiet", "--version", CARGO_DEB]).arg("--root").arg(&root);
        let installed = install.status().is_ok_and(|status| status.success());
        assert!(
            installed,
            "The tests need cargo-deb. Install it with: cargo install cargo-deb --locked --version {CARGO_DEB}"
        );
    }
    std::env::join_paths(std::env::split_paths(&path).chain([own])).expect("paths without separators")
}

/// Makes the package of `program` with `version` in `directory`; gives its file. One at a time: the man pages of all lie in one place.
pub(crate) fn build(program: &str, version: &str, directory: &Path) -> PathBuf {
    let lock = File::create(target().join("package.lock")).expect("a lock file in the target directory");
    flock(&lock, FlockOperation::LockExclusive).expect("locking a file of our own");
    for need in [needs::DPKG_SHLIBDEPS, needs::STRIP] {
        need.path();
    }
    let profile = bin("counterfoil").parent().expect("a program lies in a directory").to_owned();
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's name");
    let documents = profile.join("documents");
    let written = Command::new(bin("manual")).arg(&documents).status().expect("the manual's program starts");
    assert!(written.success(), "the man pages cannot be written");
    let file = directory.join(format!("{program}_{version}.deb"));
    let mut command = cargo();
    command.env("PATH", cargo_deb_path()).env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH);
    command.args(["deb", "--quiet", "--no-build", "--strip", "--no-dbgsym", "--fast", "--package", program]);
    command.args(["--profile", if name == "debug" { "dev" } else { name }, "--deb-version", version]);
    let output = command.arg("--output").arg(&file).output().expect("cargo starts");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    file
}

/// The tarball of the agent, whose directory is `counterfoil`, at `to`.
pub(crate) fn tarball(directory: &Path, to: &Path) {
    let file = build("counterfoil", "0.1.0-1", directory);
    let made = directory.join("counterfoil.tar.gz");
    let mut command = Command::new(workspace().join("systemd/tarball/make"));
    let status = command.arg(&file).arg(&made).env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH).status();
    assert!(status.is_ok_and(|status| status.success()), "the tarball cannot be made");
    std::fs::copy(&made, to).expect("a copy into the box");
}

#[test]
fn packages_are_as_debian_wants_them_and_the_same_bytes_each_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let packages = ["counterfoil", "counterfoil-hub"].map(|program| build(program, "0.1.0-1", directory.path()));
    let output = Command::new(needs::LINTIAN.path())
        .args(["--fail-on", "error,warning", "--allow-root"])
        .args(&packages)
        .output()
        .expect("lintian runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "lintian says:\n{}", String::from_utf8_lossy(&said));
    let again = tempfile::tempdir().expect("a temporary directory");
    let [first, second] = [&packages[0], &build("counterfoil", "0.1.0-1", again.path())]
        .map(|file| std::fs::read(file).expect("a package"));
    assert!(first == second, "two runs differ");
}
