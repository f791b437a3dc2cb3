//! What a supervisor and those who are attached to its process tell each other, over one socket.
//!
//! A frame is a byte for its kind, four for the length of what follows (big endian), and that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;

use crate::{Fault, LogStream};

/// What follows a header is never longer; whoever says so is not one of us.
pub(crate) const PAYLOAD_MAX_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// To the process: for its standard input.
    Input(Bytes),
    /// To the process: its standard input ends.
    EndOfInput,
    /// To the process: its terminal has that size.
    Resize { rows: u16, columns: u16 },
    /// To the supervisor of an added process: who says so goes, and the process goes on unheard.
    Leave,
    /// From the process.
    Output(LogStream, Bytes),
    /// From the supervisor: the process runs.
    Running,
    /// From the supervisor: the process could not be started, and why.
    Failed(Fault, String),
    /// From the supervisor: the process ended, and this is the last word.
    Exit(i32),
}

impl Frame {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let mut put = |kind: u8, payload: &[u8]| {
            let payload = &payload[..payload.len().min(PAYLOAD_MAX_BYTES)];
            out.put_u8(kind);
            out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
            out.put_slice(payload);
        };
        match self {
            Frame::Input(bytes) => put(b'i', bytes),
            Frame::EndOfInput => put(b'e', &[]),
            Frame::Leave => put(b'l', &[]),
            Frame::Resize { rows, columns } => {
                let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
                put(b's', &[a, b, c, d]);
            }
            Frame::Output(LogStream::Stdout, bytes) => put(b'1', bytes),
            Frame::Output(LogStream::Stderr, bytes) => put(b'2', bytes),
            Frame::Running => put(b'r', &[]),
            Frame::Failed(fault, reason) => {
                let kind = match fault {
                    Fault::NotFound => b'n',
                    Fault::NotExecutable => b'x',
                    Fault::Other => b'o',
                };
                put(b'f', &[&[kind], reason.as_bytes()].concat());
            }
            Frame::Exit(code) => put(b'x', &code.to_be_bytes()),
        }
    }

    /// The first frame of `bytes`, taken from it; `None` while it is not whole.
    pub(crate) fn decode(bytes: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some((mut header, _)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Ok(None);
        };
        let (kind, length) = (header.get_u8(), header.get_u32() as usize);
        if length > PAYLOAD_MAX_BYTES {
            return Err(garbled("a frame longer than any"));
        }
        if bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        bytes.advance(HEADER_BYTES);
        let payload = bytes.split_to(length).freeze();
        let frame = match kind {
            b'i' => Frame::Input(payload),
            b'e' => Frame::EndOfInput,
            b'l' => Frame::Leave,
            b's' => {
                let [a, b, c, d] = four(&payload)?;
                Frame::Resize { rows: u16::from_be_bytes([a, b]), columns: u16::from_be_bytes([c, d]) }
            }
            b'1' => Frame::Output(LogStream::Stdout, payload),
            b'2' => Frame::Output(LogStream::Stderr, payload),
            b'r' => Frame::Running,
            b'f' => {
                let (kind, reason) = payload.split_first().ok_or_else(|| garbled("a failure of no kind"))?;
                let fault = match kind {
                    b'n' => Fault::NotFound,
                    b'x' => Fault::NotExecutable,
                    _ => Fault::Other,
                };
                Frame::Failed(fault, String::from_utf8_lossy(reason).into_owned())
            }
            b'x' => Frame::Exit(i32::from_be_bytes(four(&payload)?)),
            _ => return Err(garbled("a frame of no kind that we know")),
        };
        Ok(Some(frame))
    }
}

fn four(payload: &[u8]) -> io::Result<[u8; 4]> {
    payload.try_into().map_err(|_| garbled("a frame of the wrong length"))
}

fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written_however_they_arrive() {
        let frames = [
            Frame::Input(Bytes::from_static(b"hello")),
            Frame::EndOfInput,
            Frame::Leave,
            Frame::Resize { rows: 24, columns: 300 },
            Frame::Output(LogStream::Stdout, Bytes::from_static(b"out")),
            Frame::Output(LogStream::Stderr, Bytes::from(vec![0; PAYLOAD_MAX_BYTES])),
            Frame::Running,
            Frame::Failed(Fault::NotExecutable, "no".into()),
            Frame::Exit(-1),
        ];
        let mut written = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut written));
        for step in [1, 7, 1 << 20] {
            let (mut arrived, mut read) = (BytesMut::new(), Vec::new());
            for piece in written.chunks(step) {
                arrived.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut arrived).unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames);
        }
        assert!(Frame::decode(&mut BytesMut::from(&b"z\0\0\0\0"[..])).is_err());
        assert!(Frame::decode(&mut BytesMut::from(&b"i\xff\0\0\0"[..])).is_err());
    }
}
