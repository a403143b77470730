//! Files that fit together or not, and what TLS takes for now.

use counterfoil_config::certificate;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;

/// A certificate for the key in `key_file`, self-signed, valid from then on for a day.
fn write(files: &Identity, common_name: &str, began_s: u64) {
    let key = RequestKey::make().unwrap();
    std::fs::write(&files.key_file, key.pem().unwrap()).unwrap();
    let pair = KeyPair::from_pem(&key.pem().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    (params.not_before, params.not_after) = (at(began_s).into(), at(began_s + 86_400).into());
    let made = params.self_signed(&pair).unwrap();
    std::fs::write(&files.cert_file, certificate::pem(made.der()).unwrap()).unwrap();
}

fn files(directory: &tempfile::TempDir) -> Identity {
    Identity { cert_file: directory.path().join("cert.pem"), key_file: directory.path().join("key.pem") }
}

#[test]
fn certificate_and_key_belong_together_and_to_this_box() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    assert!(matches!(read(&files, "0042.box1"), Err(IdentityError::Files(_))));
    write(&files, "0042.box1", 1_800_000_000);
    let (facts, key) = read(&files, "0042.box1").unwrap();
    assert_eq!((facts.not_before_s, facts.not_after_s), (1_800_000_000, 1_800_086_400));
    assert_eq!(facts.public_key, key.public_key().unwrap());
    assert!(matches!(read(&files, "0042.box2"), Err(IdentityError::Foreign { .. })));
    std::fs::write(&files.key_file, RequestKey::make().unwrap().pem().unwrap()).unwrap();
    assert!(matches!(read(&files, "0042.box1"), Err(IdentityError::Unfit { .. })));
}

#[test]
fn a_box_whose_clock_is_at_1970_knows_what_it_is_at_least() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    let (env, script) = Env::scripted(1);
    script.set_wall(WallTime(0));
    let now = |files: Option<&Identity>| clock(&env, files).current_time().unwrap().as_secs();
    let built = now(None);
    assert!(built > 1_700_000_000);
    env.note_newest(wall(built + 1_000));
    assert_eq!(now(None), built + 1_000);
    write(&files, "0042.box1", built + 2_000);
    assert_eq!(now(Some(&files)), built + 2_000);
    script.set_wall(wall(built + 3_000));
    assert_eq!(now(Some(&files)), built + 3_000);
}

#[test]
fn an_envelope_gives_back_what_was_put_in_and_foreign_bytes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory);
    write(&files, "0042.box1", 1_800_000_000);
    let one = tls::certificates(&files.cert_file).unwrap().remove(0);
    write(&files, "0042.box2", 1_800_000_000);
    let two = tls::certificates(&files.cert_file).unwrap().remove(0);
    let sealed = certificate::seal(&[one.clone(), two.clone()]).unwrap();
    assert_eq!(certificate::seal(&[two.clone(), one.clone()]).unwrap(), sealed, "a set has no order");
    let mut found = certificate::open(&sealed).unwrap();
    found.sort_by_key(|found| *found == two);
    assert_eq!(found, [one, two]);
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 0xff;
        // Whatever comes of it, it is no panic.
        let _read = certificate::open(&bad).is_ok();
        assert!(certificate::open(&sealed[..at]).is_err());
    }
    assert!(certificate::open(&certificate::seal(&[]).unwrap()).is_err());
}

#[test]
fn a_fingerprint_is_read_however_it_is_written() {
    let plain = "ab".repeat(32);
    let colons = vec!["AB"; 32].join(":");
    for written in [plain.clone(), colons.clone(), format!("sha256:{plain}"), format!(" SHA256:{colons}\n")] {
        assert_eq!(certificate::read_fingerprint(&written).as_ref(), Some(&plain), "{written}");
    }
    for bad in ["", "ab", "zz".repeat(32).as_str(), "ab".repeat(33).as_str()] {
        assert_eq!(certificate::read_fingerprint(bad), None);
    }
}
