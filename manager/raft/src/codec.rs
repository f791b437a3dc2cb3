//! Values to bytes and back: a format number, then MessagePack with named fields, so that a later version can add
//! a field that has a default.

use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// Of log entries, votes, snapshots and messages between managers. A golden file holds each that was released.
pub(crate) const FORMAT: u8 = 1;

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(io::Error::other)?;
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match bytes.split_first() {
        Some((&FORMAT, rest)) => rmp_serde::from_slice(rest).map_err(|e| invalid(e.to_string())),
        Some((other, _)) => Err(invalid(format!("format {other} is unknown: this version reads format {FORMAT}"))),
        None => Err(invalid("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_another_format_is_named() {
        let bytes = encode(&(7u64, "seven")).unwrap();
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap(), (7, "seven".to_owned()));
        let error = decode::<u64>(&[9, 1]).unwrap_err();
        assert_eq!(error.to_string(), "format 9 is unknown: this version reads format 1");
        assert!(decode::<u64>(&[]).is_err());
    }
}
