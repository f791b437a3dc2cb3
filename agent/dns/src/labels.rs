//! A domain name as its labels, in lower case, ready to be looked up.

use hickory_proto::{
    rr::Name,
    serialize::binary::{BinDecodable, BinDecoder},
};

/// RFC 1035 §2.3.4, the root's zero byte included.
const MAX_BYTES: usize = 255;
/// So many one-byte labels fit.
const MAX_LABELS: usize = 127;

/// A name in wire form (each label after its length), in lower case and without the root: `\x03web\x04blue`.
/// Length before label, so that a label with a dot in it is not mistaken for two. It lives on the stack: every
/// query makes one.
#[derive(Clone)]
pub(crate) struct Labels {
    bytes: [u8; MAX_BYTES],
    /// Where each label begins, and after the last one where the name ends.
    starts: [u8; MAX_LABELS + 1],
    count: usize,
}

impl Labels {
    fn empty() -> Self {
        Self { bytes: [0; MAX_BYTES], starts: [0; MAX_LABELS + 1], count: 0 }
    }

    pub(crate) fn of(name: &Name) -> Self {
        let mut labels = Self::empty();
        for label in name.iter() {
            // A name that was read is never too long; should one be, the rest is cut and nothing is found by it.
            if labels.push(label).is_none() {
                break;
            }
        }
        labels
    }

    /// From text such as `web.1`; `None` if that is no domain name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut labels = Self::empty();
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            labels.push(label.as_bytes())?;
        }
        Some(labels)
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let at = self.end();
        let next = at + 1 + label.len();
        // One byte stays free for the root.
        if label.is_empty() || label.len() > 63 || next >= MAX_BYTES {
            return None;
        }
        self.bytes[at] = label.len() as u8;
        self.bytes[at + 1..next].copy_from_slice(label);
        self.bytes[at + 1..next].make_ascii_lowercase();
        self.count += 1;
        self.starts[self.count] = next as u8;
        Some(())
    }

    /// The name followed by another label or more.
    pub(crate) fn under(&self, parent: &str) -> Option<Self> {
        let mut labels = self.clone();
        for label in parent.split('.') {
            labels.push(label.as_bytes())?;
        }
        Some(labels)
    }

    fn end(&self) -> usize {
        usize::from(self.starts[self.count])
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// At which byte of the wire form the `n`th label begins.
    pub(crate) fn start(&self, n: usize) -> u8 {
        self.starts[n]
    }

    /// The bytes of the `n`th label from the left.
    pub(crate) fn label(&self, n: usize) -> &[u8] {
        &self.bytes[usize::from(self.starts[n]) + 1..usize::from(self.starts[n + 1])]
    }

    /// Some of the labels, as a key.
    pub(crate) fn wire(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[usize::from(self.starts[range.start])..usize::from(self.starts[range.end])]
    }

    pub(crate) fn key(&self) -> Box<[u8]> {
        self.wire(0..self.count).into()
    }

    pub(crate) fn to_name(&self) -> Name {
        // `bytes` is zero behind the name, and one byte is always free: that is the root.
        let wire = &self.bytes[..=self.end()];
        Name::read(&mut BinDecoder::new(wire)).expect("labels were checked when they were pushed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_lower_case_and_label_by_label() {
        let labels = Labels::parse("Web.1.BLUE").unwrap();
        assert_eq!(&*labels.key(), b"\x03web\x011\x04blue");
        assert_eq!(labels.wire(0..2), b"\x03web\x011");
        assert_eq!(labels.label(2), b"blue");
        assert_eq!(labels.to_name().to_string(), "web.1.blue.");
        assert_eq!(Labels::of(&labels.to_name()).key(), labels.key());
    }

    #[test]
    fn what_is_no_domain_name_is_none() {
        for bad in ["", ".", "a..b", &"x".repeat(64), &"a.".repeat(128)] {
            assert!(Labels::parse(bad).is_none(), "{bad}");
        }
        let longest = Labels::parse(&"a.".repeat(127)).unwrap();
        assert_eq!(longest.to_name().num_labels(), 127);
    }

    #[test]
    fn a_dot_inside_a_label_does_not_part_it() {
        let name = Name::read(&mut BinDecoder::new(b"\x05web.1\x00")).unwrap();
        assert_ne!(Labels::of(&name).key(), Labels::parse("web.1").unwrap().key());
    }
}
