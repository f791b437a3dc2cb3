//! A blocking netlink socket: requests in batches, answers in order; one dump at a time.
//!
//! Blocking, because the kernel answers a request before `send` returns: there is nothing to wait for, and a task,
//! a channel and a wake-up per request cost more than the request. Called on blocking threads only.

use nix::{
    errno::Errno,
    sys::{
        socket::{MsgFlags, recv, setsockopt, sockopt},
        time::TimeVal,
    },
};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST},
    sys::{self, SocketAddr},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::attr::{HEADER, Message, attribute, messages, text};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_ACK_TLVS`: the acknowledgement carries the kernel's words.
const ACK_TLVS: u16 = 0x200;
/// `NLM_F_CAPPED`: the acknowledgement does not repeat the request.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// Requests sent in one datagram. Their acknowledgements (about 1 KiB each, as the kernel counts) must fit into
/// [`RECEIVE_BUFFER_BYTES`] together, because they are read only after all were handled.
const BATCH: usize = 128;
/// Bytes sent in one datagram; the kernel allocates it in one piece.
const BATCH_BYTES: usize = 32 << 10;
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// What fits into a socket's buffer as it is (`net.core.wmem_default`, and what the kernel adds).
const SMALL_BYTES: usize = 64 << 10;
/// A transaction is one datagram. Enough for the VIPs of about 50,000 endpoints of a network.
const SEND_BUFFER_BYTES: usize = 32 << 20;
/// The kernel fills a datagram of a dump up to 32 KiB (`netlink_dump`).
const DATAGRAM_BYTES: usize = 64 << 10;
/// The kernel answers at once. Whoever waits longer waits for an answer that was lost.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;
/// A dump during which the table changed may lack what did not change: it is taken again so often. Then nothing is known.
const INTERRUPTED_DUMPS: usize = 8;

/// The kernel's "no" to one request, in its own words where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: Errno,
    pub message: Option<String>,
}

/// What the kernel says of an interrupted dump (NLM_F_DUMP_INTR).
const TORN: Errno = Errno::EINTR;

impl Refusal {
    /// What was asked for changed while it was told: to be asked again.
    pub fn is_torn(&self) -> bool {
        self.errno == TORN
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.errno),
            None => self.errno.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, message: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)).into()
    }
}

pub(crate) struct Socket {
    inner: sys::Socket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut inner = sys::Socket::new(protocol)?;
        inner.bind_auto()?;
        inner.connect(&SocketAddr::new(0, 0))?;
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        // Root may exceed net.core.rmem_max; without the right to, the default must do.
        if setsockopt(&inner, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&inner, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        }
        setsockopt(&inner, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0))?;
        Ok(Self { inner, sequence: 0 })
    }

    /// Makes the kernel check and honour the filters in dump requests.
    pub(crate) fn check_strictly(&self) -> io::Result<()> {
        self.inner.set_netlink_get_strict_chk(true)
    }

    /// Puts requests to the kernel, in order, and gives its answer to each. One refusal does not stop the rest.
    pub(crate) fn ask(&mut self, requests: Vec<Vec<u8>>) -> Vec<Result<(), Refusal>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let (mut datagram, mut count) = (Vec::new(), 0);
            while let Some(request) =
                requests.next_if(|r| count == 0 || count < BATCH && datagram.len() + r.len() <= BATCH_BYTES)
            {
                let sequence = self.sequence.wrapping_add(1 + count as u32);
                append(&mut datagram, request, sequence, NLM_F_REQUEST | NLM_F_ACK);
                count += 1;
            }
            let first = self.sequence.wrapping_add(1);
            self.sequence = self.sequence.wrapping_add(count as u32);
            answers.extend(self.exchange(&datagram, first, count));
        }
        answers
    }

    /// One request and its answer.
    pub(crate) fn ask_one(&mut self, request: Vec<u8>) -> Result<(), Refusal> {
        self.ask(vec![request]).pop().unwrap_or(Err(Errno::EIO.into()))
    }

    fn exchange(&mut self, datagram: &[u8], first: u32, count: usize) -> Vec<Result<(), Refusal>> {
        let mut answers: Vec<Option<Result<(), Refusal>>> = vec![None; count];
        let mut missing = count;
        let failed = |error: Refusal, answers: Vec<Option<Result<(), Refusal>>>| {
            answers.into_iter().map(|a| a.unwrap_or_else(|| Err(error.clone()))).collect()
        };
        if let Err(error) = self.inner.send(datagram, 0) {
            return failed(error.into(), answers);
        }
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while missing > 0 {
            let length = match self.receive(&mut buffer) {
                Ok(length) => length,
                Err(error) => return failed(error.into(), answers),
            };
            for message in messages(&buffer[..length]) {
                let Some(slot) = answers.get_mut(message.sequence.wrapping_sub(first) as usize) else { continue };
                if let Some(answer) = acknowledgement(&message)
                    && slot.replace(answer).is_none()
                {
                    missing -= 1;
                }
            }
        }
        failed(Errno::EIO.into(), answers)
    }

    /// Puts messages that are one transaction, as nftables takes them: all of it is done, or nothing. The last but one
    /// is the last that the kernel answers; before it come the answers to those that it refused.
    pub(crate) fn transaction(&mut self, messages: Vec<Vec<u8>>) -> Result<(), Refusal> {
        let (first, count) = (self.sequence.wrapping_add(1), messages.len() as u32);
        self.sequence = self.sequence.wrapping_add(count);
        let (mut datagram, mut sequence, last) = (Vec::new(), first, first.wrapping_add(count.saturating_sub(2)));
        for message in messages {
            let ack = if sequence == last { NLM_F_ACK } else { 0 };
            append(&mut datagram, message, sequence, NLM_F_REQUEST | ack);
            sequence = sequence.wrapping_add(1);
        }
        if datagram.len() > SEND_BUFFER_BYTES / 2 {
            return Err(Errno::EMSGSIZE.into());
        }
        // Most are small; the buffer is a limit, not an allocation.
        if datagram.len() > SMALL_BYTES && setsockopt(&self.inner, sockopt::SndBufForce, &SEND_BUFFER_BYTES).is_err() {
            setsockopt(&self.inner, sockopt::SndBuf, &SEND_BUFFER_BYTES)?;
        }
        self.inner.send(&datagram, 0)?;
        let (mut refused, mut buffer) = (None, vec![0; DATAGRAM_BYTES]);
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages_of(&buffer[..length], first, count) {
                let Some(answer) = acknowledgement(&message) else { continue };
                // About the whole of it, if it is to the first.
                let whole = message.sequence == first;
                if let Err(refusal) = answer {
                    refused.get_or_insert(refusal);
                }
                if whole || message.sequence == last {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks for a whole table and hands over each message. A request that the kernel refuses is an error.
    pub(crate) fn dump(&mut self, request: &[u8], mut each: impl FnMut(Message<'_>)) -> Result<(), Refusal> {
        let kept = whole(|kept| self.dump_once(request, NLM_F_REQUEST | NLM_F_DUMP, kept))?;
        messages(&kept).for_each(&mut each);
        Ok(())
    }

    /// One request that is answered by one message.
    pub(crate) fn get(&mut self, request: &[u8], mut each: impl FnMut(Message<'_>)) -> Result<(), Refusal> {
        let mut kept = Vec::new();
        self.dump_once(request, NLM_F_REQUEST | NLM_F_ACK, &mut kept)?;
        messages(&kept).for_each(&mut each);
        Ok(())
    }

    fn dump_once(&mut self, request: &[u8], flags: u16, kept: &mut Vec<u8>) -> Result<bool, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        append(&mut datagram, request.to_vec(), self.sequence, flags);
        self.inner.send(&datagram, 0)?;
        let (mut interrupted, mut buffer) = (false, vec![0; DATAGRAM_BYTES]);
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]).filter(|m| m.sequence == self.sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => return Ok(interrupted),
                    NLMSG_ERROR => return acknowledgement(&message).unwrap_or(Ok(())).map(|()| interrupted),
                    _ => {
                        kept.extend_from_slice(message.whole);
                        kept.resize(kept.len().next_multiple_of(4), 0);
                    }
                }
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.inner.as_fd().as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.inner.as_raw_fd()).finish_non_exhaustive()
    }
}

/// What one attempt gave that was not interrupted. A torn dump is never taken for the truth: half of a veth pair would be
/// missing from it, and the pair deleted under a running container.
fn whole(mut attempt: impl FnMut(&mut Vec<u8>) -> Result<bool, Refusal>) -> Result<Vec<u8>, Refusal> {
    for _ in 0..INTERRUPTED_DUMPS {
        let mut kept = Vec::new();
        if !attempt(&mut kept)? {
            return Ok(kept);
        }
    }
    Err(Refusal {
        errno: TORN,
        message: Some(format!("it changed each of {INTERRUPTED_DUMPS} times that it was read")),
    })
}

fn messages_of(datagram: &[u8], first: u32, count: u32) -> impl Iterator<Item = Message<'_>> {
    messages(datagram).filter(move |message| message.sequence.wrapping_sub(first) < count)
}

fn append(datagram: &mut Vec<u8>, mut request: Vec<u8>, sequence: u32, flags: u16) {
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    let flags = flags | u16::from_ne_bytes([request[6], request[7]]);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    datagram.append(&mut request);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

/// What an NLMSG_ERROR message says (`struct nlmsgerr`); nothing for another message.
fn acknowledgement(message: &Message<'_>) -> Option<Result<(), Refusal>> {
    if message.kind != NLMSG_ERROR {
        return None;
    }
    let code = message.payload.get(..4)?.try_into().ok().map(i32::from_ne_bytes)?;
    if code == 0 {
        return Some(Ok(()));
    }
    let mut at = 4 + HEADER;
    if message.flags & CAPPED == 0 {
        let request = message.payload.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)?;
        at = 4 + (request as usize).next_multiple_of(4);
    }
    let words = (message.flags & ACK_TLVS != 0).then(|| message.payload.get(at..)).flatten();
    let message = words.and_then(|w| attribute(w, ERROR_TEXT)).map(text);
    Some(Err(Refusal { errno: Errno::from_raw(-code), message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_dump_is_taken_again_and_never_for_the_truth() {
        for (torn, whole_at) in
            [(0, Some(1)), (3, Some(4)), (INTERRUPTED_DUMPS - 1, Some(INTERRUPTED_DUMPS)), (100, None)]
        {
            let mut attempts = 0;
            let got = whole(|kept| {
                attempts += 1;
                kept.push(u8::try_from(attempts).unwrap());
                Ok(attempts <= torn)
            });
            match whole_at {
                Some(nth) => assert_eq!(got, Ok(vec![u8::try_from(nth).unwrap()])),
                None => assert!(got.is_err_and(|refusal| refusal.is_torn())),
            }
        }
        let refused = whole(|_| Err(Errno::EPERM.into()));
        assert_eq!(refused, Err(Errno::EPERM.into()));
    }
}
