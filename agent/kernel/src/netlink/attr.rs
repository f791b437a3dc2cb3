//! Netlink's framing (`linux/netlink.h`): messages of a header and type-length-value attributes, aligned to 4 bytes.
//!
//! Route messages are built and read by `netlink-packet-route`. This is for what it does not know (nftables,
//! conntrack) and for looking at a message's type before paying for reading all of it.

/// `struct nlmsghdr`: length, type, flags, sequence, port.
pub(crate) const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource id.
pub(crate) const NFGEN: usize = 4;
/// NLA_F_NESTED, beside the type of an attribute that is made of others.
pub(crate) const NESTED: u16 = 0x8000;

/// One message: its type, flags and sequence number, and what follows the header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)
}

/// The messages of one datagram. Ends early at a malformed one.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = word(datagram, 0)? as usize;
        let whole = datagram.get(..length.max(HEADER))?;
        let message = Message {
            kind: half(whole, 4)?,
            flags: half(whole, 6)?,
            sequence: word(whole, 8)?,
            whole,
            payload: &whole[HEADER..],
        };
        datagram = datagram.get(aligned(length.max(HEADER))..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes in `bytes`, their type without the nested and byte-order flags.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = half(bytes, 0)? as usize;
        let kind = half(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// A string attribute without its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// A request without its length, sequence number and port, which [`super::Socket`] fills in.
pub(crate) fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// Appends one attribute and its padding.
pub(crate) fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(aligned(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_framed_is_read_back() {
        let mut body = Vec::new();
        push(&mut body, 1, b"shoal\0");
        push(&mut body, 2 | 0x8000, &[7]);
        let mut bytes = request(42, 5, &body);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let twice = [bytes.clone(), bytes].concat();
        let read: Vec<_> = messages(&twice).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].flags), (42, 5));
        assert_eq!(attribute(read[1].payload, 1).map(text).as_deref(), Some("shoal"));
        assert_eq!(attribute(read[1].payload, 2), Some(&[7][..]));
    }

    #[test]
    fn nonsense_ends_the_iteration() {
        assert_eq!(messages(&[9, 0, 0, 0]).count(), 0);
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
    }
}
