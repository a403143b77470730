//! Certificates, as far as agent and hub need to look into them: whose, how long, of which fingerprint; requests for them (PKCS#10), and the
//! envelope in which EST (RFC 7030) hands them out.
//!
//! Invariant: nothing here is a verification; chains are verified by rustls alone. Foreign bytes give an error, never a panic. Not known here:
//! files, sockets, who may have what.

use std::path::Path;
use std::time::Duration;

use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, BitString, ObjectIdentifier, PrintableStringRef, SetOfVec, Utf8StringRef};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::tls;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");

/// The bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not DER of the expected form.
    #[error("this is not the expected certificate data: {0}")]
    Der(#[from] x509_cert::der::Error),
    /// A key cannot be used.
    #[error("this is not an ECDSA P-256 key in PKCS #8: {0}")]
    Key(ring::error::KeyRejected),
    /// The machine has no randomness.
    #[error("no key can be made: the kernel gave no random bytes")]
    Random,
    /// An envelope without certificates.
    #[error("the envelope holds no certificate")]
    Empty,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject's common name; empty where there is none, or more than one.
    pub common_name: String,
    /// From when on it is valid, seconds since 1970.
    pub not_before_s: u64,
    /// Until when it is valid, seconds since 1970.
    pub not_after_s: u64,
    /// The serial number's bytes.
    pub serial: Vec<u8>,
    /// Whether subject and issuer are the same.
    pub is_self_issued: bool,
    /// The public key (`SubjectPublicKeyInfo`, DER).
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Reads a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let tbs = Certificate::from_der(certificate)?.tbs_certificate;
        let seconds = |duration: Duration| duration.as_secs();
        Ok(Self {
            common_name: common_name(&tbs.subject),
            not_before_s: seconds(tbs.validity.not_before.to_unix_duration()),
            not_after_s: seconds(tbs.validity.not_after.to_unix_duration()),
            serial: tbs.serial_number.as_bytes().to_vec(),
            is_self_issued: tbs.subject == tbs.issuer,
            public_key: tbs.subject_public_key_info.to_der()?,
        })
    }
}

/// When the first certificate in a PEM file ends, which is the program's own, in seconds since 1970; `None` where there is none that can be read.
pub fn ends_at(file: &Path) -> Option<u64> {
    let certificates = tls::certificates(file).ok()?;
    Facts::of(certificates.first()?).ok().map(|facts| facts.not_after_s)
}

fn common_name(name: &Name) -> String {
    let attributes = name.0.iter().flat_map(|rdn| rdn.0.iter());
    let mut values = attributes.filter(|attribute| attribute.oid == COMMON_NAME).map(|attribute| &attribute.value);
    let (Some(value), None) = (values.next(), values.next()) else { return String::new() };
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
    utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
        .unwrap_or_default()
}

/// SHA-256 of a certificate in lower-case hexadecimal digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let nibbles = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

/// A fingerprint as a person writes it (colons and capitals as openssl prints them, `sha256:` before it), in the form of [`fingerprint`].
pub fn read_fingerprint(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let digits: String =
        text.strip_prefix("sha256:").unwrap_or(&text).chars().filter(|letter| *letter != ':').collect();
    (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digits)
}

/// A certificate as PEM.
pub fn pem(certificate: &CertificateDer<'_>) -> Result<String, CertificateError> {
    Ok(Certificate::from_der(certificate)?.to_pem(LineEnding::LF)?)
}

/// A key that requests are signed with: ECDSA P-256.
#[derive(Debug)]
pub struct RequestKey {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl RequestKey {
    /// A new one.
    pub fn make() -> Result<Self, CertificateError> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::of(made.map_err(|_| CertificateError::Random)?.as_ref())
    }

    /// One that was made before.
    pub fn of(pkcs8: &[u8]) -> Result<Self, CertificateError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new());
        Ok(Self { pkcs8: pkcs8.to_vec(), pair: pair.map_err(CertificateError::Key)? })
    }

    /// The key as PEM (PKCS #8).
    pub fn pem(&self) -> Result<String, CertificateError> {
        let document = x509_cert::der::Document::from_der(&self.pkcs8)?;
        Ok(document.to_pem("PRIVATE KEY", LineEnding::LF)?)
    }

    /// Its public half (`SubjectPublicKeyInfo`, DER).
    pub fn public_key(&self) -> Result<Vec<u8>, CertificateError> {
        Ok(self.public()?.to_der()?)
    }

    fn public(&self) -> Result<SubjectPublicKeyInfoOwned, CertificateError> {
        let algorithm = AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::from(P256)) };
        let subject_public_key = BitString::from_bytes(self.pair.public_key().as_ref())?;
        Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key })
    }

    /// A request (PKCS #10, DER) for a certificate of that common name, signed with the key.
    pub fn request(&self, common_name: &str) -> Result<Vec<u8>, CertificateError> {
        let value = Any::from(Utf8StringRef::new(common_name)?);
        let attribute = AttributeTypeAndValue { oid: COMMON_NAME, value };
        let rdn = RelativeDistinguishedName::from(SetOfVec::try_from([attribute])?);
        let info = CertReqInfo {
            version: Version::V1,
            subject: RdnSequence(vec![rdn]),
            public_key: self.public()?,
            attributes: SetOfVec::new(),
        };
        let signed = self.pair.sign(&SystemRandom::new(), &info.to_der()?).map_err(|_| CertificateError::Random)?;
        let request = CertReq {
            info,
            algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
            signature: BitString::from_bytes(signed.as_ref())?,
        };
        Ok(request.to_der()?)
    }
}

/// Puts certificates into an envelope: a certs-only CMC simple PKI response (RFC 5272, 4.1), DER. Their order is not kept.
pub fn seal(certificates: &[CertificateDer<'_>]) -> Result<Vec<u8>, CertificateError> {
    let mut set = SetOfVec::new();
    for certificate in certificates {
        set.insert(CertificateChoices::Certificate(Certificate::from_der(certificate)?))?;
    }
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo { econtent_type: DATA, econtent: None },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    let content = ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(&signed)? };
    Ok(content.to_der()?)
}

/// The certificates in an envelope, at least one, in no order.
pub fn open(envelope: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let content = ContentInfo::from_der(envelope)?;
    let signed: SignedData = content.content.decode_as()?;
    let mut found = Vec::new();
    for choice in signed.certificates.iter().flat_map(|set| set.0.iter()) {
        if let CertificateChoices::Certificate(certificate) = choice {
            found.push(CertificateDer::from(certificate.to_der()?));
        }
    }
    if found.is_empty() { Err(CertificateError::Empty) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_of_a_file_counts_and_rubbish_has_no_end() {
        let directory = tempfile::tempdir().unwrap();
        let pem = |year| {
            let mut parameters = rcgen::CertificateParams::new(vec!["box1".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 2, 3);
            parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let file = directory.path().join("chain.pem");
        std::fs::write(&file, pem(2031) + &pem(2040)).unwrap();
        assert_eq!(ends_at(&file), Some(1_927_843_200));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(ends_at(&file), None);
        assert_eq!(ends_at(&directory.path().join("absent")), None);
    }
}
