//! The log of a container: a JSON line for each line of output, in files that are rotated by size.
//!
//! A file begins with how many lines came before it, so that a reader who missed a file knows how much that was. What
//! is written is whole lines: a disk that fills in the middle of one costs the line, and the next one that fits is
//! preceded by the number of those that did not.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
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

/// The first line of a file, unless it is the first file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Before {
    pub(crate) lines_before: u64,
}

impl Before {
    /// Of a line of the file.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        // Most lines are not, and are told apart by their beginning.
        line.starts_with(b"{\"lines_before\"").then(|| serde_json::from_slice(line).ok())?
    }
}

/// The writing end, which the supervisor holds.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    file: File,
    /// Of whole lines in the file.
    bytes: u64,
    max_bytes: u64,
    /// Written since the container was made, in this file and in those before it.
    lines: u64,
    /// Not written since the last one that was.
    lost: u64,
    /// The file may end within a line.
    ragged: bool,
}

impl Log {
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(file(dir, 0))?;
        let mut log = Self { dir: dir.to_owned(), file, bytes: 0, max_bytes, lines: 0, lost: 0, ragged: false };
        log.count()?;
        Ok(log)
    }

    /// What is in the file, of which a power cut may have left the last line broken.
    fn count(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        let before = text.split_inclusive(|b| *b == b'\n').next().and_then(Before::read);
        self.lines = lines(&text[..whole]) - u64::from(before.is_some()) + before.map_or(0, |b| b.lines_before);
        self.bytes = whole as u64;
        self.ragged = whole < text.len();
        Ok(())
    }

    /// Appends whole lines, already encoded. Those for which there is no room are counted.
    pub(crate) fn append(&mut self, encoded: &[u8]) {
        if encoded.is_empty() {
            return;
        }
        let count = lines(encoded);
        match self.try_append(encoded) {
            Ok(()) => {
                self.lines += count + u64::from(self.lost > 0);
                self.lost = 0;
            }
            Err(_) => self.lost += count,
        }
    }

    fn try_append(&mut self, encoded: &[u8]) -> io::Result<()> {
        self.mend()?;
        let mut out = Vec::new();
        if self.lost > 0 {
            let text = lost(self.lost, "this host could not write them, its disk was full most likely");
            encode(&LogLine { time_ms: crate::record::now_ms(), stream: LogStream::Stderr, text }, &mut out);
        }
        if self.bytes > 0 && self.bytes + (out.len() + encoded.len()) as u64 > self.max_bytes {
            self.rotate()?;
        }
        if self.bytes == 0 && self.lines > 0 {
            let mut first = Vec::new();
            encode(&Before { lines_before: self.lines }, &mut first);
            out.splice(..0, first);
        }
        out.extend_from_slice(encoded);
        self.ragged = true;
        self.file.write_all(&out)?;
        self.ragged = false;
        self.bytes += out.len() as u64;
        Ok(())
    }

    /// Takes away what does not end in whole lines.
    fn mend(&mut self) -> io::Result<()> {
        if self.ragged {
            self.file.set_len(self.bytes)?;
            self.ragged = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..FILES).rev() {
            match fs::rename(file(&self.dir, n - 1), file(&self.dir, n)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        self.file = OpenOptions::new().create(true).read(true).append(true).open(file(&self.dir, 0))?;
        self.bytes = 0;
        Ok(())
    }
}

fn lines(encoded: &[u8]) -> u64 {
    encoded.iter().filter(|b| **b == b'\n').count() as u64
}

/// In the place of lines that are not there.
pub(crate) fn lost(lines: u64, why: &str) -> String {
    format!(
        "[shoal: {lines} {} of output {} lost here: {why}]",
        if lines == 1 { "line" } else { "lines" },
        if lines == 1 { "is" } else { "are" }
    )
}

fn encode(line: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, line).expect("a line of text can be put into JSON in memory");
    out.push(b'\n');
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
        encode(&LogLine { time_ms, stream: self.stream, text }, out);
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
    fn a_log_never_grows_past_its_files_and_each_says_how_many_lines_came_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 130).unwrap();
        for n in 0..50 {
            log.append(format!("{n:>39}\n").as_bytes());
            if n == 24 {
                // Another supervisor goes on where the one before was, whatever a power cut left of its last line.
                OpenOptions::new().append(true).open(file(dir.path(), 0)).unwrap().write_all(b"{\"half").unwrap();
                log = Log::open(dir.path(), 130).unwrap();
            }
        }
        let files: Vec<_> = (0..=FILES).filter_map(|n| fs::read_to_string(file(dir.path(), n)).ok()).collect();
        assert_eq!(files.len(), FILES);
        for text in &files {
            assert!(text.len() <= 130, "{text}");
            let lines: Vec<&str> = text.lines().collect();
            let before = Before::read(lines[0].as_bytes()).unwrap();
            assert_eq!(lines[1].trim().parse::<u64>().ok(), Some(before.lines_before), "{text}");
        }
        assert!(files[0].trim_end().ends_with("49"), "the newest line is in the file being written");
    }

    #[test]
    fn a_full_disk_costs_whole_lines_and_says_how_many() {
        let disk = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new("size=64k").unwrap();
        rustix::mount::mount("tmpfs", disk.path(), "tmpfs", rustix::mount::MountFlags::empty(), size.as_c_str())
            .unwrap();
        let mut log = Log::open(disk.path(), FILE_MAX_BYTES).unwrap();
        let mut cut = Lines::new(LogStream::Stdout);
        let mut write = |log: &mut Log, text: &str| {
            let mut out = Vec::new();
            cut.push(format!("{text}\n").as_bytes(), 1, &mut out);
            log.append(&out);
        };
        let long = "x".repeat(5000);
        for n in 0..100 {
            write(&mut log, &format!("{n} {long}"));
        }
        let whole =
            |text: &str| text.lines().map(|line| serde_json::from_str::<LogLine>(line).unwrap()).collect::<Vec<_>>();
        let text = fs::read_to_string(file(disk.path(), 0)).unwrap();
        let kept = whole(&text[..=text.rfind('\n').unwrap()]).len();
        assert!((5..20).contains(&kept), "{kept}");

        rustix::mount::mount_remount(disk.path(), rustix::mount::MountFlags::empty(), c"size=1m").unwrap();
        write(&mut log, "there is room again");
        let lines = whole(&fs::read_to_string(file(disk.path(), 0)).unwrap());
        assert_eq!(lines.len(), kept + 2);
        assert!(
            lines[kept].text.contains(&format!("{} lines of output are lost here", 100 - kept)),
            "{:?}",
            lines[kept]
        );
        assert_eq!(lines[kept + 1].text, "there is room again");
        rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
