//! Checksums that fit bytes which a fuzzer made up. The forms are those in the headers of the journal's modules.
//!
//! Invariant: nothing but checksums is changed, and where there is no place for one, nothing is.

const FRAME_HEADER_BYTES: usize = 40;
/// The kind of frame that says how far what is lost reaches.
const HOLE: u8 = 5;
const PAGE_BYTES: usize = 4096;

/// Makes the checksums in the file `name` fit.
pub(super) fn seal(name: &str, bytes: &mut [u8]) {
    if name.starts_with("cursor") {
        seal_end(bytes);
    } else if name.rsplit_once('.').is_some_and(|(_, extension)| extension == "idx") {
        seal_index(bytes);
    } else {
        seal_segment(bytes);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let (number, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn seal_end(bytes: &mut [u8]) {
    if let Some((body, checksum)) = bytes.split_last_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(body).to_le_bytes();
    }
}

fn seal_index(bytes: &mut [u8]) {
    let block = number(bytes, 24).and_then(|length| bytes.split_at_mut_checked(length));
    if let Some((block, pages)) = block {
        seal_end(block);
        pages.chunks_mut(PAGE_BYTES).for_each(seal_end);
    }
}

/// Header and frames; a binding is a header alone.
fn seal_segment(bytes: &mut [u8]) {
    let header = number(bytes, 12).and_then(|length| bytes.split_at_mut_checked(length));
    let Some((header, frames)) = header else { return };
    seal_end(header);
    let (Some(nonce), Some(number)) = (header.get(24..32), header.get(16..20)) else { return };
    let seed = crc32c::crc32c_append(crc32c::crc32c(nonce), number);
    let mut at = 0;
    while let Some(length) = self::number(frames, at + 4) {
        let whole = at.saturating_add(FRAME_HEADER_BYTES).saturating_add(length);
        let span = if frames.get(at + 2) == Some(&HOLE) { self::number(frames, at + 16).unwrap_or(0) } else { 0 };
        let Some(frame) = frames.get_mut(at..whole) else { return };
        let offset = u32::try_from(header.len() + at).unwrap_or(u32::MAX);
        // The place of the checksum carries the offset.
        frame[12..16].copy_from_slice(&offset.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, frame);
        frame[12..16].copy_from_slice(&checksum.to_le_bytes());
        at = whole.max(at.saturating_add(span)).next_multiple_of(8);
    }
}
