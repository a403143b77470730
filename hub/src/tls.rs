//! TLS as a client, from PEM files; ring is the only provider.
//!
//! Invariant: the server's certificate is always verified, against the given file alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why no connection can be encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or holds nothing of its kind.
    #[error("{file} holds no usable {what}: {why}")]
    Pem {
        /// Which.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        why: String,
    },
    /// Certificate and key do not fit.
    #[error("The certificate and its key cannot be used: {why}")]
    Identity {
        /// Why not.
        why: String,
    },
}

/// A client's configuration: whom to trust, and who we are.
pub(crate) fn client(ca_file: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots.add(certificate).map_err(|error| pem(ca_file, "certificate", &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Identity { why: error.to_string() })?
        .with_root_certificates(roots);
    let Some((cert_file, key_file)) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| pem(key_file, "key", &error))?;
    let chain = certificates(cert_file)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Identity { why: error.to_string() })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).map_err(|error| pem(file, "certificate", &error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| pem(file, "certificate", &error))?;
    if found.is_empty() {
        return Err(pem(file, "certificate", &"there is none in it"));
    }
    Ok(found)
}

fn pem(file: &Path, what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { file: file.to_owned(), what, why: why.to_string() }
}
