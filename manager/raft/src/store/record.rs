//! The bytes of a segment of the log. All numbers are little endian.
//!
//! A segment begins with its head: magic, format, CRC, the number of its first record, and the store's incarnation.
//! Records follow, each on a multiple of eight bytes; after the last one all is zero.
//!
//! | Bytes of a record | |
//! |---|---|
//! | 0..4   | length of the payload |
//! | 4..8   | CRC-32C of everything else in the record, the length too |
//! | 8..16  | `seq`: records are numbered without a gap for as long as the store exists |
//! | 16..24 | `synced`: every record up to this one was durable when this one was written |
//! | 24..32 | index of the entry, or of the next entry after a truncation |
//! | 32..40 | term of the entry |
//! | 40..48 | kind: an entry, or a truncation |
//! | 48..   | payload, padded with zeros |
//!
//! `synced` tells damage from a torn write: if a record is unreadable and a later one says that it had been durable,
//! then something that was acknowledged is damaged.

pub(super) const HEAD_BYTES: usize = 48;
pub(super) const SEGMENT_HEAD_BYTES: usize = 64;
/// Of the log's own bytes. What a payload holds has a format of its own (`codec.rs`).
const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"SHOALLOG";
const INCARNATION_BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry,
    /// The log goes on with the entry of the index; what was there from it on is cut off.
    Truncation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) synced: u64,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) kind: Kind,
}

/// What begins at some place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Record {
        head: Head,
        payload: &'a [u8],
        bytes: usize,
    },
    /// Zeros, or the end of the file.
    Nothing,
    Unreadable,
}

pub(super) fn size(payload: usize) -> usize {
    (HEAD_BYTES + payload).next_multiple_of(8)
}

pub(super) fn write(buffer: &mut Vec<u8>, head: Head, payload: &[u8]) -> std::io::Result<()> {
    let begin = buffer.len();
    let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    for number in [head.seq, head.synced, head.index, head.term] {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    let kind: u64 = match head.kind {
        Kind::Entry => 1,
        Kind::Truncation => 2,
    };
    buffer.extend_from_slice(&kind.to_le_bytes());
    buffer.extend_from_slice(payload);
    let crc = crc_of(&buffer[begin..]);
    buffer[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(begin + size(payload.len()), 0);
    Ok(())
}

fn crc_of(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

/// What begins at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Found<'_> {
    let Some(head) = bytes.get(..HEAD_BYTES) else {
        return if bytes.iter().all(|b| *b == 0) { Found::Nothing } else { Found::Unreadable };
    };
    if head.iter().all(|b| *b == 0) {
        return Found::Nothing;
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let number = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let length = word(0) as usize;
    let Some(record) = bytes.get(..HEAD_BYTES.saturating_add(length)) else { return Found::Unreadable };
    let kind = match number(40) {
        1 => Kind::Entry,
        2 => Kind::Truncation,
        _other => return Found::Unreadable,
    };
    if crc_of(record) != word(4) {
        return Found::Unreadable;
    }
    let head = Head { seq: number(8), synced: number(16), index: number(24), term: number(32), kind };
    Found::Record { head, payload: &record[HEAD_BYTES..], bytes: size(length).min(bytes.len()) }
}

/// Whether a record further on says that record `seq` had been durable.
pub(super) fn says_durable(rest: &[u8], seq: u64) -> bool {
    (0..rest.len()).step_by(8).any(|at| match read(&rest[at..]) {
        Found::Record { head, .. } => head.synced >= seq,
        Found::Nothing | Found::Unreadable => false,
    })
}

pub(super) fn segment_head(first_seq: u64, incarnation: &str) -> std::io::Result<[u8; SEGMENT_HEAD_BYTES]> {
    let mut head = [0; SEGMENT_HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[16..24].copy_from_slice(&first_seq.to_le_bytes());
    let Some(room) = head[24..24 + INCARNATION_BYTES].get_mut(..incarnation.len()) else {
        return Err(std::io::Error::other(format!("the incarnation {incarnation} is longer than {INCARNATION_BYTES}")));
    };
    room.copy_from_slice(incarnation.as_bytes());
    let crc = crc32c::crc32c(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(head)
}

/// Whether these bytes begin the segment of that number, in that store.
pub(super) fn is_segment(bytes: &[u8], first_seq: u64, incarnation: &str) -> bool {
    segment_head(first_seq, incarnation).is_ok_and(|head| bytes.get(..SEGMENT_HEAD_BYTES) == Some(&head[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        Head { seq, synced: seq - 1, index: 7, term: 3, kind: Kind::Entry }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_changed_bit_goes_unnoticed() {
        let mut bytes = Vec::new();
        write(&mut bytes, head(9), b"an entry").unwrap();
        assert_eq!(bytes.len(), size(8));
        assert_eq!(read(&bytes), Found::Record { head: head(9), payload: b"an entry", bytes: size(8) });
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&changed), Found::Unreadable, "bit {bit}");
        }
        for length in 1..bytes.len() {
            assert_eq!(read(&bytes[..length]), Found::Unreadable, "{length} bytes");
        }
        assert_eq!(read(&[]), Found::Nothing);
        assert_eq!(read(&[0; 100]), Found::Nothing);
    }

    #[test]
    fn a_later_record_tells_what_had_been_durable() {
        let mut bytes = vec![1; 24];
        write(&mut bytes, head(9), b"later").unwrap();
        assert!(says_durable(&bytes, 8));
        assert!(!says_durable(&bytes, 9));
    }

    #[test]
    fn a_segment_is_known_by_its_number_and_its_store() {
        let head = segment_head(12, "a0").unwrap();
        assert!(is_segment(&head, 12, "a0"));
        assert!(!is_segment(&head, 13, "a0") && !is_segment(&head, 12, "a1") && !is_segment(&head[..60], 12, "a0"));
        assert!(segment_head(1, &"x".repeat(33)).is_err());
    }
}
