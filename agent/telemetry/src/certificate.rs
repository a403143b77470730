//! Until when certificates in files are valid, so that somebody hears of it before they are not.
//!
//! Invariant: a file is looked at anew each time it is asked for, as whoever uses it does. What it holds is not verified here.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When the first certificate in a PEM file expires, which is the program's own: unix seconds; `None` where there is none that can be read.
pub fn expires_at(file: &Path) -> Option<i64> {
    let certificate = CertificateDer::pem_file_iter(file).ok()?.next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_of_a_file_counts_and_rubbish_has_no_date() {
        let directory = tempfile::tempdir().unwrap();
        let pem = |year| {
            let mut parameters = rcgen::CertificateParams::new(vec!["box1".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 2, 3);
            parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let file = directory.path().join("chain.pem");
        std::fs::write(&file, pem(2031) + &pem(2040)).unwrap();
        assert_eq!(expires_at(&file), Some(1_927_843_200));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(expires_at(&file), None);
        assert_eq!(expires_at(&directory.path().join("absent")), None);
    }
}
