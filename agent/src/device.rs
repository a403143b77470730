//! The box's own key: Ed25519, made at the first start, kept beside the journal.
//!
//! Invariant: the secret half never leaves its file, which its owner alone may read. A file that is missing or damaged gives a new key:
//! what it signs then names another public key, and whoever checks sees the change. Not known here: what is signed.

use std::io;

use counterfoil_proto::id::{PublicKey, Signature};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::env::Env;
use crate::error::ExitError;
use crate::journal::Disk;
use crate::journal::disk::{read_whole, replace};

/// The file below the data directory.
const FILE: &str = "device.key";
const MAGIC: [u8; 8] = *b"CFDEVKEY";
const SEED_BYTES: usize = 32;
const FILE_BYTES: usize = MAGIC.len() + SEED_BYTES + 4;

/// The key pair.
#[derive(Debug)]
pub struct DeviceKey {
    pair: Ed25519KeyPair,
    public_key: PublicKey,
}

impl DeviceKey {
    /// Reads the key, or makes one.
    pub fn open(disk: &dyn Disk, env: &Env) -> Result<Self, ExitError> {
        if let Some(key) = Self::read(disk).map_err(|error| ExitError::Disk(Box::new(error)))? {
            return Ok(key);
        }
        let seed = env.random_bytes::<SEED_BYTES>()?;
        let key = Self::of(&seed)
            .ok_or_else(|| ExitError::Disk(Box::new(io::Error::other("an Ed25519 key of 32 random bytes"))))?;
        replace(disk, "", FILE, &encode(seed)).map_err(|error| ExitError::Disk(Box::new(error)))?;
        tracing::info!(public_key = %key.public_key, "new device key made");
        Ok(key)
    }

    /// Reads the key; `None` where there is none, or it is damaged.
    pub fn read(disk: &dyn Disk) -> io::Result<Option<Self>> {
        match read_whole(disk, FILE, FILE_BYTES) {
            Ok(bytes) => Ok(decode(&bytes).and_then(|seed| Self::of(&seed))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of(seed: &[u8; SEED_BYTES]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public_key = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public_key })
    }

    /// The public half.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Signs.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        let mut signature = Signature::default();
        signature.0.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }
}

fn encode(seed: [u8; SEED_BYTES]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &seed].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<[u8; SEED_BYTES]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let seed = body.strip_prefix(&MAGIC)?.try_into().ok()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(seed)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::journal::MemoryDisk;

    fn is_signed_by(public_key: PublicKey, bytes: &[u8], signature: Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key.0).verify(bytes, &signature.0).is_ok()
    }

    #[test]
    fn a_key_is_made_once_and_signs_for_ever_and_a_spoiled_file_gives_another() {
        let (disk, (env, _script)) = (MemoryDisk::new(), Env::scripted(1));
        let first = DeviceKey::open(&disk, &env).unwrap();
        let signature = first.sign(b"totals");
        disk.power_cut(crate::journal::disk::memory::Cut::DropAll);
        let again = DeviceKey::open(&disk, &env).unwrap();
        assert_eq!(again.public_key(), first.public_key());
        assert!(is_signed_by(again.public_key(), b"totals", signature));
        assert!(!is_signed_by(again.public_key(), b"total$", signature));
        let mut bytes = disk.content(FILE).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            disk.set_content(FILE, bytes.clone());
            let other = DeviceKey::open(&disk, &env).unwrap();
            assert_ne!(other.public_key(), first.public_key(), "byte {at}");
            assert!(!is_signed_by(other.public_key(), b"totals", signature));
            bytes[at] ^= 1;
        }
    }
}
