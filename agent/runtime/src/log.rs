//! The log of a container: a JSON line for each line of output, in files that are rotated by size.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Bytes after which a file is put aside.
pub(crate) const FILE_MAX_BYTES: u64 = 10 << 20;
/// Files kept, the one being written included: a container that chatters costs so many times as much disk.
pub(crate) const FILES: usize = 3;
/// A longer line becomes several: nobody should need memory for a line without end.
pub(crate) const LINE_MAX_BYTES: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    #[serde(rename = "time")]
    pub time_ms: u64,
    pub stream: LogStream,
    /// Without the line's end. What is not UTF-8 is replaced.
    pub text: String,
}

/// The n-th file of a log, 0 being the one that is written.
pub(crate) fn file(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("log.{n}"))
}

/// The writing end, which the supervisor holds.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl Log {
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(file(dir, 0))?;
        let bytes = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), file, bytes, max_bytes })
    }

    /// Appends whole lines, already encoded.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..FILES).rev() {
            match fs::rename(file(&self.dir, n - 1), file(&self.dir, n)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        *self = Self::open(&self.dir, self.max_bytes)?;
        Ok(())
    }
}

/// Cuts one stream of bytes into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: LogStream,
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: LogStream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Encodes the lines that `bytes` completes onto `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], time_ms: u64, out: &mut Vec<u8>) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(part);
            while self.rest.len() > LINE_MAX_BYTES {
                let longer = self.rest.split_off(LINE_MAX_BYTES);
                let line = std::mem::replace(&mut self.rest, longer);
                self.encode(&line, time_ms, out);
            }
            if self.rest.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.rest);
                self.encode(&line[..line.len() - 1], time_ms, out);
            }
        }
    }

    /// What came last and had no line's end.
    pub(crate) fn finish(&mut self, time_ms: u64, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            let line = std::mem::take(&mut self.rest);
            self.encode(&line, time_ms, out);
        }
    }

    fn encode(&self, line: &[u8], time_ms: u64, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line).into_owned();
        serde_json::to_writer(&mut *out, &LogLine { time_ms, stream: self.stream, text })
            .expect("a line of text can be put into JSON in memory");
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(encoded: &[u8]) -> Vec<String> {
        encoded
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice::<LogLine>(l).unwrap().text)
            .collect()
    }

    #[test]
    fn output_is_cut_into_lines_however_it_arrives() {
        let (mut cut, mut out) = (Lines::new(LogStream::Stdout), Vec::new());
        for piece in ["on", "e\ntwo\n", "\n", "thr", "ee"] {
            cut.push(piece.as_bytes(), 1, &mut out);
        }
        assert_eq!(lines(&out), ["one", "two", ""]);
        cut.finish(2, &mut out);
        assert_eq!(lines(&out), ["one", "two", "", "three"]);
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_limit() {
        let (mut cut, mut out) = (Lines::new(LogStream::Stderr), Vec::new());
        cut.push(&vec![b'x'; 2 * LINE_MAX_BYTES + 1], 1, &mut out);
        cut.push(b"\n", 1, &mut out);
        let lengths: Vec<usize> = lines(&out).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_MAX_BYTES, LINE_MAX_BYTES, 1]);
    }

    #[test]
    fn a_log_never_grows_past_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 100).unwrap();
        for n in 0..50 {
            log.append(format!("{n:>39}\n").as_bytes()).unwrap();
        }
        let files: Vec<_> = (0..=FILES).filter_map(|n| fs::read_to_string(file(dir.path(), n)).ok()).collect();
        assert_eq!(files.len(), FILES);
        assert!(files.iter().all(|f| f.len() <= 100));
        assert!(files[0].trim_end().ends_with("49"), "the newest line is in the file being written");
    }
}
