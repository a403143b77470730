//! The side file of a sealed segment: what the segment holds, a filter over its identities, and their sorted entries.
//!
//! Invariant: it is derived from the segment and never more than a help: missing, damaged or out of date it is built anew by a scan, and
//! whoever finds an identity here reads the frame before relying on it.
//!
//! ```text
//! head   magic "CFJINDEX", version: u16, 0: u16, number: u32, nonce: u64, block bytes: u32, meta bytes: u32, filter bytes: u32,
//!        keys: u32
//! block  head, meta (postcard of `Meta`), filter, fences (per page: first 8 bytes of its first key, big-endian number as u64 LE),
//!        zeros up to block bytes - 4, CRC32C of all before
//! pages  4,096 bytes each: up to 204 entries (key [16], offset u32), zeros, CRC32C of the 4,092 bytes before
//! ```

use std::io;

use counterfoil_proto::time::WallTime;

use super::disk::{self, Disk};
use super::limits::{FILTER_BITS_PER_KEY, FILTER_PROBES, PAGE_BYTES};
use super::scan::{Content, LocalPart, Mark, Run};
use super::segment::{DIR, index_name, path};
use super::table::{Entry, Pieces, Table};
use super::types::{Gone, GoneReason, IdentityKey};
use counterfoil_proto::id::{Chain, Epoch, LaneKey, SeqRange};

const MAGIC: [u8; 8] = *b"CFJINDEX";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 40;
const ENTRY_BYTES: usize = 20;
const ENTRIES_PER_PAGE: usize = (PAGE_BYTES - 4) / ENTRY_BYTES;
const BLOCK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a sealed segment holds, as its side file keeps it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Meta {
    pub(crate) header_bytes: u32,
    pub(crate) end: u32,
    pub(crate) wall_last: WallTime,
    pub(crate) records: u64,
    pub(crate) table: Vec<Entry>,
    /// Parents of the epochs that have records here.
    pub(crate) parents: Vec<(Epoch, Option<Epoch>)>,
    pub(crate) runs: Vec<Run>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) locals: Vec<LocalPart>,
    pub(crate) gone: Vec<(LaneKey, SeqRange, u8, Option<Chain>)>,
    /// Regions that hold no frames and could not be marked in the segment itself.
    pub(crate) holes: Vec<(u32, u32)>,
}

impl Meta {
    pub(crate) fn new(
        header_bytes: u32,
        end: u32,
        table: Vec<Entry>,
        content: &Content,
        holes: Vec<(u32, u32)>,
        epochs: &Table,
    ) -> Self {
        let mut named: Vec<_> = content.runs.iter().map(|run| run.key.epoch).collect();
        named.dedup();
        Self {
            header_bytes,
            end,
            wall_last: content.wall_last.unwrap_or_default(),
            records: content.records,
            table,
            parents: named.into_iter().map(|epoch| (epoch, epochs.get(epoch).and_then(|entry| entry.parent))).collect(),
            runs: content.runs.clone(),
            marks: content.marks.clone(),
            locals: content.locals.clone(),
            gone: content
                .gone
                .iter()
                .map(|gone| (gone.key, gone.range, gone.reason.code(), gone.chain_after))
                .collect(),
            holes,
        }
    }

    /// Epochs whose heads the segment states: in its table, or as a parent in a group header.
    pub(crate) fn named(&self) -> Vec<Epoch> {
        let parents = self.parents.iter().filter_map(|(_, parent)| *parent);
        self.table.iter().map(|entry| entry.epoch).chain(parents).collect()
    }

    pub(crate) fn gone(&self) -> impl Iterator<Item = Gone> + '_ {
        self.gone.iter().map(|&(key, range, reason, chain_after)| Gone {
            key,
            range,
            reason: GoneReason::from_code(reason),
            chain_after,
        })
    }
}

/// The part of a side file that stays in memory: 10 bits per identity and 8 bytes per 204 of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    bits: Box<[u8]>,
    fences: Box<[u64]>,
    block_bytes: u64,
    keys: usize,
}

fn prefix(key: &IdentityKey) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.0[..8]);
    u64::from_be_bytes(bytes)
}

fn probes(key: &IdentityKey, bits: u64) -> impl Iterator<Item = u64> {
    // Keys are hashes already: two halves make as many probes as are wanted.
    let first = prefix(key);
    let mut second = [0; 8];
    second.copy_from_slice(&key.0[8..]);
    let step = u64::from_le_bytes(second) | 1;
    (0..u64::from(FILTER_PROBES)).map(move |probe| first.wrapping_add(step.wrapping_mul(probe)) % bits.max(1))
}

impl Filter {
    fn build(keys: &[(IdentityKey, u32)]) -> Self {
        let mut bits = vec![0; (keys.len() * FILTER_BITS_PER_KEY).div_ceil(8).max(1)].into_boxed_slice();
        let count = bits.len() as u64 * 8;
        for (key, _) in keys {
            for bit in probes(key, count) {
                bits[usize::try_from(bit / 8).expect("within the filter")] |= 1 << (bit % 8);
            }
        }
        let fences =
            keys.chunks(ENTRIES_PER_PAGE).filter_map(|page| page.first()).map(|(key, _)| prefix(key)).collect();
        Self { bits, fences, block_bytes: 0, keys: keys.len() }
    }

    /// How many identities it stands for.
    pub(crate) const fn keys(&self) -> usize {
        self.keys
    }

    /// Whether the key may be there.
    pub(crate) fn may_hold(&self, key: &IdentityKey) -> bool {
        let count = self.bits.len() as u64 * 8;
        self.keys > 0
            && probes(key, count).all(|bit| {
                let byte = usize::try_from(bit / 8).ok().and_then(|at| self.bits.get(at));
                byte.is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
            })
    }

    /// Offsets at which the side file says that records of this identity stand, in order. `None`: the file is damaged.
    pub(crate) fn offsets(&self, disk: &dyn Disk, number: u32, key: &IdentityKey) -> io::Result<Option<Vec<u32>>> {
        let wanted = prefix(key);
        let first = self.fences.partition_point(|fence| *fence < wanted).saturating_sub(1);
        let file = match disk.open_read(&path(&index_name(number))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut offsets = Vec::new();
        for (page, fence) in self.fences.iter().enumerate().skip(first) {
            if *fence > wanted {
                break;
            }
            let mut bytes = [0; PAGE_BYTES];
            let count = file.read_at(&mut bytes, self.block_bytes + (page * PAGE_BYTES) as u64)?;
            let Some(body) = page_body(&bytes).filter(|_| count == PAGE_BYTES) else { return Ok(None) };
            // Behind the last entry a page holds zeros, which nothing hashes to.
            for entry in body.chunks_exact(ENTRY_BYTES) {
                if let Some((found, offset)) = entry.split_first_chunk::<16>()
                    && *found == key.0
                {
                    offsets.extend(Pieces(offset).u32());
                }
            }
        }
        Ok(Some(offsets))
    }

    /// Whether the pages of the side file are whole.
    pub(crate) fn pages_are_whole(&self, disk: &dyn Disk, number: u32) -> io::Result<bool> {
        let file = disk.open_read(&path(&index_name(number)))?;
        for page in 0..self.fences.len() {
            let mut bytes = [0; PAGE_BYTES];
            let count = file.read_at(&mut bytes, self.block_bytes + (page * PAGE_BYTES) as u64)?;
            if count != PAGE_BYTES || page_body(&bytes).is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn page_body(page: &[u8; PAGE_BYTES]) -> Option<&[u8]> {
    let (body, crc) = page.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a side file is smaller than its segment's limit")
}

/// The bytes of a side file; `keys` are sorted.
fn encode(number: u32, nonce: u64, meta: &Meta, keys: &[(IdentityKey, u32)]) -> (Vec<u8>, Filter) {
    let mut filter = Filter::build(keys);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&nonce.to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    let mut bytes = postcard::to_extend(meta, bytes).expect("plain values of memory have a postcard form");
    let meta_bytes = bytes.len() - HEAD_BYTES;
    bytes.extend_from_slice(&filter.bits);
    for fence in &filter.fences {
        bytes.extend_from_slice(&fence.to_le_bytes());
    }
    let block_bytes = (bytes.len() + 4).next_multiple_of(PAGE_BYTES);
    for (at, value) in [(24, block_bytes), (28, meta_bytes), (32, filter.bits.len()), (36, keys.len())] {
        bytes[at..at + 4].copy_from_slice(&to_u32(value).to_le_bytes());
    }
    bytes.resize(block_bytes - 4, 0);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    for page in keys.chunks(ENTRIES_PER_PAGE) {
        let start = bytes.len();
        for (key, offset) in page {
            bytes.extend_from_slice(&key.0);
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.resize(start + PAGE_BYTES - 4, 0);
        let crc = crc32c::crc32c(&bytes[start..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    filter.block_bytes = block_bytes as u64;
    (bytes, filter)
}

/// Writes a side file; durable when this returns. Also says how many bytes it has.
pub(crate) fn write(
    disk: &dyn Disk,
    number: u32,
    nonce: u64,
    meta: &Meta,
    keys: &[(IdentityKey, u32)],
) -> io::Result<(Filter, u64)> {
    let (bytes, filter) = encode(number, nonce, meta, keys);
    disk::replace(disk, DIR, &index_name(number), &bytes)?;
    Ok((filter, bytes.len() as u64))
}

/// Reads a side file but for its pages; `None` where it is missing or damaged. Also says how many bytes it has.
pub(crate) fn read(disk: &dyn Disk, number: u32, nonce: u64) -> io::Result<Option<(Meta, Filter, u64)>> {
    let file = match disk.open_read(&path(&index_name(number))) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.bytes()?;
    let mut head = [0; HEAD_BYTES];
    file.read_at(&mut head, 0)?;
    let block_bytes = Pieces(&head[24..]).u32().unwrap_or(0) as usize;
    // Whatever else is wrong with its beginning the checksum shows.
    if block_bytes as u64 > length.min(BLOCK_BYTES_MAX) {
        return Ok(None);
    }
    let mut block = vec![0; block_bytes];
    file.read_at(&mut block, 0)?;
    Ok(decode(&block, number, nonce)
        .filter(|(_, filter)| length >= block_bytes as u64 + (filter.fences.len() * PAGE_BYTES) as u64)
        .map(|(meta, filter)| (meta, filter, length)))
}

fn decode(block: &[u8], number: u32, nonce: u64) -> Option<(Meta, Filter)> {
    let (body, crc) = block.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut pieces = Pieces(body);
    let is_ours = pieces.array::<8>()? == MAGIC && pieces.u16()? == VERSION;
    pieces.u16()?;
    if !is_ours || pieces.u32()? != number || pieces.u64()? != nonce {
        return None;
    }
    pieces.u32()?;
    let (meta_bytes, filter_bytes, keys) = (pieces.u32()? as usize, pieces.u32()? as usize, pieces.u32()? as usize);
    let meta = postcard::from_bytes(pieces.0.get(..meta_bytes)?).ok()?;
    let rest = pieces.0.get(meta_bytes..)?;
    let bits = rest.get(..filter_bytes)?.into();
    let mut fences = Vec::new();
    let mut pieces = Pieces(rest.get(filter_bytes..)?);
    for _ in 0..keys.div_ceil(ENTRIES_PER_PAGE) {
        fences.push(pieces.u64()?);
    }
    Some((meta, Filter { bits, fences: fences.into(), block_bytes: block.len() as u64, keys }))
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::*;

    #[test]
    fn every_identity_is_found_and_few_others_pass_the_filter() {
        let disk = MemoryDisk::new();
        let key = |n: u32| IdentityKey::of(&n.to_string());
        let mut keys: Vec<_> = (0..5_000).map(|n| (key(n), n * 8)).collect();
        keys.push((key(7), 99_999));
        keys.sort_unstable();
        write(&disk, 3, 9, &Meta::default(), &keys).unwrap();
        let (_, filter, _) = read(&disk, 3, 9).unwrap().unwrap();
        for n in 0..5_000 {
            assert!(filter.may_hold(&key(n)));
            let offsets = filter.offsets(&disk, 3, &key(n)).unwrap().unwrap();
            assert_eq!(offsets, if n == 7 { vec![56, 99_999] } else { vec![n * 8] });
        }
        let strangers = (5_000..15_000).filter(|n| filter.may_hold(&key(*n))).count();
        assert!(strangers < 200, "{strangers} of 10,000");
        assert!(read(&disk, 4, 9).unwrap().is_none());
        assert!(read(&disk, 3, 8).unwrap().is_none());
    }

    #[test]
    fn what_precedes_the_pages_fits_whatever_its_length_and_is_no_longer_than_it_must_be() {
        let disk = MemoryDisk::new();
        let mut lengths = std::collections::BTreeSet::new();
        for holes in 1_900..4_100_u32 {
            let meta = Meta { holes: (0..holes).map(|_| (1, 1)).collect(), ..Meta::default() };
            write(&disk, 1, 9, &meta, &[(key(1, 1), 5)]).unwrap();
            let (found, filter, length) = read(&disk, 1, 9).unwrap().unwrap();
            assert_eq!((found.holes, filter.fences.len()), (meta.holes, 1));
            let page = PAGE_BYTES as u64;
            assert!(length - page < u64::from(2 * holes) + 2 * page, "{holes}: {length}");
            lengths.insert(length);
        }
        assert_eq!(lengths.len(), 3);
    }

    #[test]
    fn every_flip_of_a_side_file_is_seen() {
        let disk = MemoryDisk::new();
        let mut keys: Vec<_> = (0..300_u32).map(|n| (IdentityKey::of(&n.to_string()), n)).collect();
        keys.sort_unstable();
        write(&disk, 1, 9, &Meta::default(), &keys).unwrap();
        let name = path(&index_name(1));
        for offset in 0..disk.content(&name).unwrap().len() {
            disk.flip(&name, offset, 0x10);
            let whole = match read(&disk, 1, 9).unwrap() {
                Some((_, filter, _)) => filter.pages_are_whole(&disk, 1).unwrap(),
                None => false,
            };
            assert!(!whole, "byte {offset}");
            disk.flip(&name, offset, 0x10);
        }
    }

    fn key(first: u64, last: u64) -> IdentityKey {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&last.to_be_bytes());
        IdentityKey(bytes)
    }

    #[test]
    fn pages_are_searched_from_the_first_to_the_last_that_may_hold_an_identity() {
        let disk = MemoryDisk::new();
        for count in [0, 1, ENTRIES_PER_PAGE - 1, ENTRIES_PER_PAGE, ENTRIES_PER_PAGE + 1, 2 * ENTRIES_PER_PAGE + 7] {
            // One identity fills the end of a page and the beginning of the next.
            let number = |n: usize| u64::try_from(n / 20).unwrap();
            let keys: Vec<_> = (0..count).map(|n| (key(number(n), 1), u32::try_from(n).unwrap())).collect();
            write(&disk, 1, 9, &Meta::default(), &keys).unwrap();
            let (_, filter, length) = read(&disk, 1, 9).unwrap().unwrap();
            assert_eq!((filter.keys(), length), (count, disk.content(&path(&index_name(1))).unwrap().len() as u64));
            for wanted in 0..=number(count) + 1 {
                let expected: Vec<u32> =
                    keys.iter().filter(|(key, _)| prefix(key) == wanted).map(|(_, n)| *n).collect();
                assert_eq!(filter.offsets(&disk, 1, &key(wanted, 1)).unwrap(), Some(expected), "{wanted} of {count}");
            }
        }
    }

    #[test]
    fn a_side_file_that_ends_early_is_damaged_and_one_that_is_missing_is_so_too() {
        let disk = MemoryDisk::new();
        let keys: Vec<_> = (0..300).map(|n| (key(n, n), 1)).collect();
        let (filter, length) = write(&disk, 1, 9, &Meta::default(), &keys).unwrap();
        let name = path(&index_name(1));
        let whole = disk.content(&name).unwrap();
        assert_eq!(length, whole.len() as u64);
        let block = whole.len() - 2 * PAGE_BYTES;
        for left in [0, 1, HEAD_BYTES - 1, HEAD_BYTES, block - 1, block, block + PAGE_BYTES, whole.len() - 1] {
            disk.set_content(&name, whole[..left].to_vec());
            assert!(read(&disk, 1, 9).unwrap().is_none(), "{left} bytes");
        }
        let pages = filter.pages_are_whole(&disk, 1).unwrap();
        assert!(!pages, "the last page is cut");
        assert_eq!(filter.offsets(&disk, 1, &key(299, 299)).unwrap(), None);
        assert!(disk.delete(&name));
        assert_eq!(filter.offsets(&disk, 1, &key(1, 1)).unwrap(), None);
    }

    #[test]
    fn a_side_file_that_cannot_be_opened_is_not_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk::OsDisk::new(directory.path()).unwrap();
        disk.create_dir(DIR).unwrap();
        let keys = [(key(1, 1), 1)];
        let (filter, _) = write(&disk, 1, 9, &Meta::default(), &keys).unwrap();
        let name = directory.path().join(path(&index_name(1)));
        std::fs::remove_file(&name).unwrap();
        assert!(matches!(read(&disk, 1, 9), Ok(None)));
        // A link to itself: it is there, and the system does not open it.
        std::os::unix::fs::symlink(&name, &name).unwrap();
        assert!(read(&disk, 1, 9).is_err());
        assert!(filter.offsets(&disk, 1, &keys[0].0).is_err());
    }

    #[test]
    fn the_only_page_of_a_side_file_is_looked_at() {
        let disk = MemoryDisk::new();
        let (filter, length) = write(&disk, 1, 9, &Meta::default(), &[(key(1, 1), 1)]).unwrap();
        assert_eq!(length, 2 * PAGE_BYTES as u64);
        assert!(filter.pages_are_whole(&disk, 1).unwrap());
        disk.flip(&path(&index_name(1)), PAGE_BYTES + 3, 1);
        assert!(!filter.pages_are_whole(&disk, 1).unwrap());
    }
}
