//! Values to bytes and back: a format number, then MessagePack with named fields, so that a later version can add
//! a field that has a default.

use serde::{Serialize, de::DeserializeOwned};
use std::io;

/// Of log entries, votes, snapshots and messages between managers. `testdata` holds each that was released.
pub(crate) const FORMAT: u8 = 1;

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_to(&mut bytes, value)?;
    Ok(bytes)
}

pub(crate) fn encode_to<T: Serialize>(to: &mut impl io::Write, value: &T) -> io::Result<()> {
    to.write_all(&[FORMAT])?;
    rmp_serde::encode::write_named(to, value).map_err(|e| match e {
        // So that a full disk is told as one.
        rmp_serde::encode::Error::InvalidValueWrite(why) => {
            let why: io::Error = why.into();
            why
        }
        other => io::Error::other(other),
    })
}

pub(crate) fn decode_from<T: DeserializeOwned>(from: &mut impl io::Read) -> io::Result<T> {
    let mut format = [0];
    from.read_exact(&mut format)?;
    if format != [FORMAT] {
        return Err(unknown(format[0]));
    }
    rmp_serde::from_read(from).map_err(|e| invalid(e.to_string()))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn unknown(format: u8) -> io::Error {
    invalid(format!("format {format} is unknown: this version reads format {FORMAT}"))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => rmp_serde::from_slice(rest).map_err(|e| invalid(e.to_string())),
        Some((other, _)) => Err(unknown(*other)),
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
