//! Our own terminal while a container has it: every key goes through, but for those that leave.

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The terminal as it was, put back when this is dropped.
pub(super) struct Raw(Termios);

impl Raw {
    pub(super) fn enter() -> Result<Self, Failure> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Of a terminal that has gone nothing is to be put back.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Rows and columns, if there is a terminal.
pub(super) fn size() -> Option<(u16, u16)> {
    let of = rustix::termios::tcgetwinsize(io::stdout()).or_else(|_| rustix::termios::tcgetwinsize(io::stdin()));
    of.ok().filter(|_| io::stdin().is_terminal() || io::stdout().is_terminal()).map(|s| (s.ws_row, s.ws_col))
}

/// Speaks up when the size has changed.
pub(super) fn sizes() -> Option<Signal> {
    signal(SignalKind::window_change()).ok()
}

/// The keys that leave a session, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    keys: Vec<u8>,
    pressed: usize,
}

impl Default for Keys {
    fn default() -> Self {
        // ctrl-p ctrl-q
        Self { keys: vec![0x10, 0x11], pressed: 0 }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// These go on to the process.
    Through(Vec<u8>),
    /// These too, and then the session is left.
    Leave(Vec<u8>),
}

impl Keys {
    /// `ctrl-p,ctrl-q`, or letters.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let key = |word: &str| match (word.strip_prefix("ctrl-"), word.as_bytes()) {
            (Some(key), _) => match key.as_bytes() {
                [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
                b"@" => Some(0),
                b"[" => Some(27),
                b"\\" => Some(28),
                b"]" => Some(29),
                b"^" => Some(30),
                b"_" => Some(31),
                _ => None,
            },
            (None, [c]) if c.is_ascii() => Some(*c),
            (None, _) => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self { keys, pressed: 0 }),
            _ => Err(Failure::usage(format!(
                "detach-keys: {text:?} is not accepted: keys joined by commas, each a letter or ctrl- and a letter"
            ))),
        }
    }

    /// What was held back because it might have been the keys comes with what shows that it was not.
    pub(super) fn press(&mut self, typed: &[u8]) -> Pressed {
        let mut through = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.pressed] {
                self.pressed += 1;
                if self.pressed == self.keys.len() {
                    self.pressed = 0;
                    return Pressed::Leave(through);
                }
                continue;
            }
            through.extend_from_slice(&self.keys[..self.pressed]);
            self.pressed = usize::from(*byte == self.keys[0]);
            if self.pressed == 0 {
                through.push(*byte);
            }
        }
        Pressed::Through(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_leave_and_all_others_go_through() {
        let mut keys = Keys::default();
        assert_eq!(keys.press(b"ls\n"), Pressed::Through(b"ls\n".to_vec()));
        // Alone ctrl-p is held back until the next key shows what it was.
        assert_eq!(keys.press(b"\x10"), Pressed::Through(vec![]));
        assert_eq!(keys.press(b"x"), Pressed::Through(b"\x10x".to_vec()));
        assert_eq!(keys.press(b"a\x10"), Pressed::Through(b"a".to_vec()));
        assert_eq!(keys.press(b"\x10\x11rest"), Pressed::Leave(b"\x10".to_vec()));
    }

    #[test]
    fn keys_are_letters_with_or_without_ctrl() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q").unwrap(), Keys::default());
        assert_eq!(Keys::parse("a,ctrl-]").unwrap().keys, [b'a', 29]);
        for bad in ["", "ctrl-", "ctrl-pp", "ab", "a,,b"] {
            assert!(Keys::parse(bad).is_err(), "{bad}");
        }
    }
}
