//! TLS out of PEM files, for both programs and both directions; ring is the only provider.
//!
//! Invariant: whoever answers is verified against the given file alone, never against what a machine happens to trust. What is served from files
//! that were renewed is served with the new ones, and with the old ones for as long as the new ones do not fit together.
//!
//! Not known here: what is spoken over it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::certificate::Facts;

/// How soon a renewed file is noticed, when somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why no connection can be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of its kind.
    #[error("{} holds no usable {what}: {why}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        why: String,
    },
    /// The files are readable and do not fit together.
    #[error("The certificate {} and its key cannot be used together: {why}", file.display())]
    Identity {
        /// The certificate.
        file: PathBuf,
        /// Why not.
        why: String,
    },
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead from it to a root.
    pub cert_file: PathBuf,
    /// Its private key: PKCS #8, SEC 1 or PKCS #1.
    pub key_file: PathBuf,
}

/// All certificates of a file, in its order; none is an error.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).map_err(|error| pem(file, "certificate", &error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| pem(file, "certificate", &error))?;
    if found.is_empty() { Err(pem(file, "certificate", &"there is none in it")) } else { Ok(found) }
}

/// The first private key of a file.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| pem(file, "key", &error))
}

/// The certificates of a file, to be trusted.
pub fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| pem(file, "certificate", &error))?;
    }
    Ok(roots)
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// What signs the server's certificate.
    pub ca_file: PathBuf,
    /// Who we are, where the server asks.
    pub identity: Option<Identity>,
}

impl ClientFiles {
    /// A client as the files are now.
    pub fn read(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(&self.ca_file, &error))?
            .with_root_certificates(roots(&self.ca_file)?);
        let Some(Identity { cert_file, key_file }) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(cert_file)?;
        builder.with_client_auth_cert(chain, key(key_file)?).map_err(|error| unfit(cert_file, &error))
    }
}

/// What a server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// Who it is.
    pub identity: Identity,
    /// What the certificates of its clients are checked against; without it none is asked for. A client may come without one: what it may do then
    /// is for the program to say.
    pub client_ca_file: Option<PathBuf>,
}

/// As of when a client's certificate is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As of now: one that has expired is refused.
    AsOfNow,
    /// One that has expired as of its last second: chain and possession of the key are proven, its age is for the program to judge.
    AsOfItsEnd,
}

impl ServerFiles {
    /// A server as the files are now.
    pub fn read(&self) -> Result<ServerConfig, TlsError> {
        self.read_judging(Judged::AsOfNow)
    }

    fn read_judging(&self, judged: Judged) -> Result<ServerConfig, TlsError> {
        let Identity { cert_file, key_file } = &self.identity;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(cert_file, &error))?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| pem(file, "certificate", &error))?;
                builder.with_client_cert_verifier(match judged {
                    Judged::AsOfNow => verifier,
                    Judged::AsOfItsEnd => Arc::new(AsOfItsEnd(verifier)),
                })
            }
        };
        let chain = certificates(cert_file)?;
        let mut config = builder.with_single_cert(chain, key(key_file)?).map_err(|error| unfit(cert_file, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// What stands in them, to see whether they changed; a file that cannot be read is an empty one.
    fn bytes(&self) -> Vec<Vec<u8>> {
        let Identity { cert_file, key_file } = &self.identity;
        let files = [Some(cert_file), Some(key_file), self.client_ca_file.as_ref()];
        files.into_iter().flatten().map(|file| std::fs::read(file).unwrap_or_default()).collect()
    }
}

/// See [`Judged::AsOfItsEnd`].
#[derive(Debug)]
struct AsOfItsEnd(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AsOfItsEnd {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let facts = Facts::of(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        let judged_at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(facts.not_after_s)));
        self.0.verify_client_cert(end_entity, intermediates, judged_at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A server's configuration that follows its files.
#[derive(Debug)]
pub struct Renewing {
    files: ServerFiles,
    judged: Judged,
    state: Mutex<Served>,
}

#[derive(Debug)]
struct Served {
    looked: Instant,
    bytes: Vec<Vec<u8>>,
    config: Arc<ServerConfig>,
}

impl Renewing {
    /// Reads the files; they have to be right at the start.
    pub fn open(files: ServerFiles, now: Instant) -> Result<Self, TlsError> {
        Self::open_judging(files, Judged::AsOfNow, now)
    }

    /// The same, with a word about clients whose certificates have expired.
    pub fn open_judging(files: ServerFiles, judged: Judged, now: Instant) -> Result<Self, TlsError> {
        // Before they are read: what changes in between is read again.
        let bytes = files.bytes();
        let config = Arc::new(files.read_judging(judged)?);
        Ok(Self { files, judged, state: Mutex::new(Served { looked: now, bytes, config }) })
    }

    /// What a connection that begins now is served with; and, once for each change of the files, why they cannot be used as they are now.
    pub fn current(&self, now: Instant) -> (Arc<ServerConfig>, Option<TlsError>) {
        let mut served = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut trouble = None;
        if now.saturating_duration_since(served.looked) >= LOOK_EVERY {
            served.looked = now;
            let bytes = self.files.bytes();
            if bytes != served.bytes {
                served.bytes = bytes;
                match self.files.read_judging(self.judged) {
                    Ok(config) => served.config = Arc::new(config),
                    Err(error) => trouble = Some(error),
                }
            }
        }
        (Arc::clone(&served.config), trouble)
    }
}

fn pem(file: &Path, what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { file: file.to_owned(), what, why: why.to_string() }
}

fn unfit(file: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Identity { file: file.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test has no env; it steers from here on")]
    fn clock() -> Instant {
        Instant::now()
    }

    fn write(directory: &Path, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn renewed_files_are_taken_once_they_fit_together() {
        let directory = tempfile::tempdir().unwrap();
        let mut now = clock();
        let at = |name: &str| directory.path().join(name);
        write(directory.path(), "one.example");
        let identity = Identity { cert_file: at("cert.pem"), key_file: at("key.pem") };
        let serving = Renewing::open(ServerFiles { identity, client_ca_file: None }, now).unwrap();
        let (first, trouble) = serving.current(now);
        assert!(trouble.is_none());
        let old_key = std::fs::read(at("key.pem")).unwrap();
        let (_, new_key) = write(directory.path(), "two.example");
        // The certificate is there and its key is not yet.
        std::fs::write(at("key.pem"), old_key).unwrap();
        now += LOOK_EVERY;
        let (served, trouble) = serving.current(now);
        assert!(Arc::ptr_eq(&served, &first) && matches!(trouble, Some(TlsError::Identity { .. })), "{trouble:?}");
        now += LOOK_EVERY;
        assert!(serving.current(now).1.is_none(), "the same trouble is told once");
        std::fs::write(at("key.pem"), new_key).unwrap();
        let (served, _) = serving.current(now);
        assert!(Arc::ptr_eq(&served, &first), "nobody looks more often than said");
        now += LOOK_EVERY;
        let (served, trouble) = serving.current(now);
        assert!(!Arc::ptr_eq(&served, &first) && trouble.is_none(), "{trouble:?}");
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, "hello\n").unwrap();
        for wrong in [
            certificates(&file).unwrap_err(),
            key(&file).unwrap_err(),
            ClientFiles { ca_file: file.clone(), identity: None }.read().unwrap_err(),
        ] {
            assert!(wrong.to_string().contains("ca.pem"), "{wrong}");
        }
    }
}
