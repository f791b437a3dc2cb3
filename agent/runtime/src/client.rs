//! One who is attached to a process, as its supervisor sees him.

use bytes::{Buf, BytesMut};
use rustix::event::PollFlags;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::Instant,
};

use crate::frame::Frame;

/// Output that waits for one client; with more he is slow.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

const READ_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: UnixStream,
    input: BytesMut,
    output: BytesMut,
    /// He may have closed his side and still listen.
    speaks: bool,
    pub(crate) slow_since: Option<Instant>,
    pub(crate) gone: bool,
}

impl Client {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Ok(Self { socket, input, output, speaks: true, slow_since: None, gone: false })
    }

    /// What to wait for. That he hung up is always told.
    pub(crate) fn interest(&self, hear: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.speaks && hear);
        flags.set(PollFlags::OUT, !self.output.is_empty());
        flags
    }

    pub(crate) fn tell(&mut self, frame: &Frame) {
        frame.encode(&mut self.output);
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        while !self.output.is_empty() && !self.gone {
            match self.socket.write(&self.output) {
                Ok(n) => self.output.advance(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        if self.output.len() <= BUFFER_BYTES {
            self.slow_since = None;
        } else if self.slow_since.is_none() {
            self.slow_since = Some(Instant::now());
        }
    }

    pub(crate) fn has_all(&self) -> bool {
        self.gone || self.output.is_empty()
    }

    /// What he says, as far as it is whole.
    pub(crate) fn hear(&mut self) -> Vec<Frame> {
        let mut bytes = [0; READ_BYTES];
        match self.socket.read(&mut bytes) {
            Ok(0) => self.speaks = false,
            Ok(n) => self.input.extend_from_slice(&bytes[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => self.gone = true,
        }
        let mut frames = Vec::new();
        loop {
            match Frame::decode(&mut self.input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(_) => {
                    self.gone = true;
                    return frames;
                }
            }
        }
    }
}
