//! Reading a container's log, also while it grows.

use futures::{StreamExt, stream::BoxStream};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

use crate::{
    Error,
    log::{Before, FILES, LogLine, LogStream, file, lost},
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only so many of the last lines that are there already.
    pub tail: Option<usize>,
    /// Go on until the container has ended.
    pub follow: bool,
    /// Only lines not older than this, in milliseconds since the epoch.
    pub since_ms: Option<u64>,
}

/// Lines read ahead of a consumer that is slower than the disk.
const AHEAD: usize = 256;

/// Lines read from disk at once.
const BATCH: usize = 1024;

/// Files that one reader keeps open. All that a log has, and as many again that were rotated away since.
const HELD: usize = 2 * FILES;

/// How often a log that is followed is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Lines, oldest first. `ended` says when nothing more will be written.
pub(crate) fn read(
    dir: PathBuf,
    options: LogOptions,
    ended: watch::Receiver<bool>,
) -> BoxStream<'static, Result<LogLine, Error>> {
    let (to, from) = mpsc::channel(AHEAD);
    tokio::spawn(feed(dir, options, ended, to));
    futures::stream::unfold(from, |mut from| async move { from.recv().await.map(|line| (line, from)) }).boxed()
}

/// Ends when there is nothing more, or nobody listens.
async fn feed(
    dir: PathBuf,
    options: LogOptions,
    mut ended: watch::Receiver<bool>,
    to: mpsc::Sender<Result<LogLine, Error>>,
) {
    // Asked before reading: what was written before the end is then certainly read.
    let mut last = !options.follow || *ended.borrow() || ended.has_changed().is_err();
    let mut opening = Some((dir, options));
    let mut reader = None;
    loop {
        let (opened, kept) = (opening.take(), reader.take());
        let read = blocking(move || {
            let mut reader = match (opened, kept) {
                (Some((dir, options)), _) => Reader::open(&dir, options)?,
                (None, Some(reader)) => reader,
                (None, None) => return Ok(None),
            };
            let batch = reader.batch()?;
            Ok(Some((reader, batch)))
        });
        let is_more = match read.await {
            Ok(Some((same, batch))) => {
                reader = Some(same);
                let is_more = batch.is_more;
                if send(&to, batch.lines).await.is_err() {
                    return;
                }
                is_more
            }
            Ok(None) => return,
            Err(e) => {
                let _ = to.send(Err(e)).await;
                return;
            }
        };
        if is_more {
            continue;
        }
        if last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = ended.wait_for(|ended| *ended) => {}
            () = to.closed() => return,
        }
        last = *ended.borrow() || ended.has_changed().is_err();
    }
}

async fn send(to: &mpsc::Sender<Result<LogLine, Error>>, lines: impl IntoIterator<Item = LogLine>) -> Result<(), ()> {
    for line in lines {
        to.send(Ok(line)).await.map_err(|_| ())?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker("read a log"))?
}

/// Where we are in the log.
struct Reader {
    dir: PathBuf,
    since_ms: u64,
    follow: bool,
    /// Files that are read one after the other, the one being read first. They stay open, so that a rotation takes none
    /// of them away. A container that wrote nothing yet has none.
    files: VecDeque<Open>,
    /// Lines since the container was made, up to where we are.
    lines: u64,
    /// Of the end that was asked for.
    tail: VecDeque<LogLine>,
}

struct Open {
    inode: u64,
    file: BufReader<File>,
    /// Nothing of it was read yet.
    is_new: bool,
}

#[derive(Default)]
struct Batch {
    lines: VecDeque<LogLine>,
    is_more: bool,
}

impl Reader {
    fn open(dir: &Path, options: LogOptions) -> Result<Self, Error> {
        let mut reader = Self {
            dir: dir.to_owned(),
            since_ms: options.since_ms.unwrap_or(0),
            follow: options.follow,
            files: VecDeque::new(),
            lines: 0,
            tail: VecDeque::new(),
        };
        reader.open_newer()?;
        // What was rotated away before is not missed: nobody has seen what came before it either.
        reader.lines = if reader.files.is_empty() { 0 } else { u64::MAX };
        if let Some(keep) = options.tail {
            while let Some(line) = reader.next()? {
                reader.tail.push_back(line);
                if reader.tail.len() > keep {
                    reader.tail.pop_front();
                }
            }
        }
        Ok(reader)
    }

    /// What was written since, as far as it goes into a batch.
    fn batch(&mut self) -> Result<Batch, Error> {
        if self.follow {
            self.open_newer()?;
        }
        let mut lines = std::mem::take(&mut self.tail);
        while lines.len() < BATCH {
            match self.next()? {
                Some(line) => lines.push_back(line),
                None => return Ok(Batch { lines, is_more: false }),
            }
        }
        Ok(Batch { lines, is_more: true })
    }

    /// Opens what came after the newest file that is open. From the newest on: a rotation meanwhile shows a file a second
    /// time rather than hiding one.
    fn open_newer(&mut self) -> Result<(), Error> {
        let known = self.files.back().map(|open| open.inode);
        let mut newer = VecDeque::new();
        for n in 0..FILES {
            let Some(open) = open(&file(&self.dir, n))? else { continue };
            if Some(open.inode) == known {
                break;
            }
            if newer.front().is_none_or(|later: &Open| later.inode != open.inode) {
                newer.push_front(open);
            }
        }
        self.files.extend(newer);
        // A reader that is slow keeps only so many files from being removed; the one it is in is one of them.
        while self.files.len() > HELD {
            self.files.remove(1);
        }
        Ok(())
    }

    /// The next line that is whole.
    fn next(&mut self) -> Result<Option<LogLine>, Error> {
        let mut line = Vec::new();
        while let Some(open) = self.files.front_mut() {
            line.clear();
            let n = open.file.read_until(b'\n', &mut line).map_err(Error::file("read the log in", &self.dir))?;
            if line.last() == Some(&b'\n') {
                let is_first = std::mem::replace(&mut open.is_new, false);
                if let Some(lost) = self.note(&line, is_first) {
                    return Ok(Some(lost));
                }
                // A line that a power cut left broken is not worth failing for.
                match serde_json::from_slice::<LogLine>(&line) {
                    Ok(line) if line.time_ms >= self.since_ms => return Ok(Some(line)),
                    Ok(_) | Err(_) => continue,
                }
            }
            // It may be written on, or taken back: where it began we begin again.
            let back = i64::try_from(n).unwrap_or(0);
            open.file.seek_relative(-back).map_err(Error::file("read the log in", &self.dir))?;
            if self.files.len() == 1 {
                return Ok(None);
            }
            self.files.pop_front();
        }
        Ok(None)
    }

    /// Counts a line; if others should have come before it, what is to be said of them.
    fn note(&mut self, line: &[u8], is_first: bool) -> Option<LogLine> {
        let Some(Before { lines_before }) = Before::read(line).filter(|_| is_first) else {
            if is_first && self.lines == u64::MAX {
                self.lines = 0;
            }
            self.lines = self.lines.saturating_add(1);
            return None;
        };
        let missed = lines_before.saturating_sub(self.lines);
        self.lines = lines_before;
        let why = "the container wrote more than its log keeps before they were read";
        (missed > 0).then(|| LogLine {
            time_ms: crate::record::now_ms(),
            stream: LogStream::Stderr,
            text: lost(missed, why),
        })
    }
}

fn open(path: &Path) -> Result<Option<Open>, Error> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.ino(), file)));
    match opened {
        Ok((inode, file)) => Ok(Some(Open { inode, file: BufReader::new(file), is_new: true })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { doing: "open", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Lines, Log};

    fn write(log: &mut Log, text: &str) {
        let mut out = Vec::new();
        Lines::new(LogStream::Stdout).push(format!("{text}\n").as_bytes(), 5, &mut out);
        log.append(&out);
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_over_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 200).unwrap();
        write(&mut log, "0");
        let (end, ended) = watch::channel(false);
        let mut lines = read(dir.path().into(), LogOptions { follow: true, ..LogOptions::default() }, ended);
        for n in 1..10 {
            assert_eq!(lines.next().await.unwrap().unwrap().text, (n - 1).to_string());
            write(&mut log, &n.to_string());
        }
        end.send(true).unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().text, "9");
        assert!(lines.next().await.is_none());
        assert!(file(dir.path(), 1).exists(), "the log was rotated meanwhile");
    }

    /// The numbers that it has, and those that it says are lost.
    fn seen(lines: &[LogLine]) -> (Vec<u64>, u64) {
        let lost = |text: &str| text.strip_prefix("[shoal: ")?.split(' ').next()?.parse::<u64>().ok();
        let numbers = lines.iter().filter_map(|line| line.text.parse().ok()).collect();
        (numbers, lines.iter().filter_map(|line| lost(&line.text)).sum())
    }

    fn everything(reader: &mut Reader) -> Vec<LogLine> {
        let mut out = Vec::new();
        loop {
            let batch = reader.batch().unwrap();
            out.extend(batch.lines);
            if !batch.is_more {
                return out;
            }
        }
    }

    #[test]
    fn a_follower_misses_no_line_of_the_files_that_are_kept_and_is_told_of_the_others() {
        // So many rotations between two looks, and how many of its files are gone by then.
        for rotations in 0..=12 {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::open(dir.path(), 200).unwrap();
            write(&mut log, "0");
            let mut reader = Reader::open(dir.path(), LogOptions { follow: true, ..LogOptions::default() }).unwrap();
            let mut lines = everything(&mut reader);
            let mut n = 0;
            let inode = || std::fs::metadata(file(dir.path(), 0)).unwrap().ino();
            for _ in 0..rotations {
                let before = inode();
                while inode() == before {
                    n += 1;
                    write(&mut log, &n.to_string());
                }
            }
            lines.extend(everything(&mut reader));
            let (numbers, lost) = seen(&lines);
            assert!(numbers.is_sorted(), "{numbers:?}");
            assert_eq!(numbers.last(), Some(&n));
            assert_eq!(numbers.len() as u64 + lost, n + 1, "{rotations}: {numbers:?}, {lost} are said to be lost");
            assert_eq!(lost > 0, rotations > FILES, "{rotations}: {lost}");
        }
    }

    #[test]
    fn a_line_that_was_taken_back_is_not_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 1000).unwrap();
        write(&mut log, "0");
        let mut reader = Reader::open(dir.path(), LogOptions { follow: true, ..LogOptions::default() }).unwrap();
        let path = file(dir.path(), 0);
        let whole = std::fs::metadata(&path).unwrap().len();
        // As a disk that fills leaves it, before it is mended.
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"time\":5,\"stream\":\"stdout\",\"te");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(seen(&everything(&mut reader)).0, [0]);
        File::options().write(true).open(&path).unwrap().set_len(whole).unwrap();
        write(&mut log, "1");
        assert_eq!(seen(&everything(&mut reader)).0, [1]);
    }

    #[tokio::test]
    async fn tail_and_since_choose_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 200).unwrap();
        for n in 0..8 {
            write(&mut log, &n.to_string());
        }
        let (_keep, ended) = watch::channel(false);
        let get =
            |options| read(dir.path().into(), options, ended.clone()).map(|l| l.unwrap().text).collect::<Vec<_>>();
        assert_eq!(get(LogOptions { tail: Some(2), ..LogOptions::default() }).await, ["6", "7"]);
        assert!(get(LogOptions { since_ms: Some(6), ..LogOptions::default() }).await.is_empty());
    }
}
