//! A private certificate authority with a server certificate for the loopback and a client certificate for whoever asks.
//!
//! Invariant: keys live in a temporary directory and die with it; nothing here is secret or long-lived.

use std::cell::Cell;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use tempfile::TempDir;

use crate::process::write_file;

/// A certificate authority and its files.
#[derive(Debug)]
pub struct Pki {
    directory: TempDir,
    authority: Authority,
    issued: Cell<u32>,
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authority")
    }
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The common name.
    pub common_name: String,
    /// The authority's certificate.
    pub ca_file: PathBuf,
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its private key, PKCS #8.
    pub key_file: PathBuf,
}

impl Pki {
    /// A new authority.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut params = CertificateParams::new(Vec::new()).expect("a certificate without names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Counterfoil test authority");
        let authority = CertifiedIssuer::self_signed(params, key()).expect("a self-signed certificate");
        write_file(&directory.path().join("ca.pem"), &authority.pem());
        Self { directory, authority: Authority(authority), issued: Cell::new(0) }
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The list of revoked certificates, PEM, with those of these identities on it.
    pub fn revocation_list(&self, revoked: &[&Identity]) -> String {
        let serial = |identity: &&Identity| {
            let read = counterfoil_config::tls::certificates(&identity.cert_file).expect("a certificate of our own");
            let facts = counterfoil_config::certificate::Facts::of(&read[0]).expect("a certificate of our own");
            RevokedCertParams {
                serial_number: SerialNumber::from(facts.serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(serial).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&*self.authority.0).and_then(|list| list.pem()).expect("a list of our own")
    }

    /// A server certificate for `localhost` and `127.0.0.1`.
    pub fn server(&self) -> Identity {
        self.issue("localhost", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The client certificate of an agent.
    pub fn agent(&self, store_id: &str, agent_id: &str) -> Identity {
        self.client(&format!("{store_id}.{agent_id}"))
    }

    /// A client certificate with that common name.
    pub fn client(&self, common_name: &str) -> Identity {
        self.issue(common_name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, common_name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names that certificates may have");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params.signed_by(&key, &self.authority.0).expect("signing with a key of our own");
        let number = self.issued.get();
        self.issued.set(number + 1);
        let identity = Identity {
            common_name: common_name.to_owned(),
            ca_file: self.ca_file(),
            cert_file: self.directory.path().join(format!("{number}.pem")),
            key_file: self.directory.path().join(format!("{number}-key.pem")),
        };
        write_file(&identity.cert_file, &certificate.pem());
        write_file(&identity.key_file, &key.serialize_pem());
        identity
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a P-256 key")
}
