//! Reading a container's log, also while it grows.

use futures::{StreamExt, stream::BoxStream};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

use crate::{
    Error,
    log::{FILES, LogLine, file},
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
    let mut last = !options.follow || *ended.borrow();
    let mut reader = match blocking(move || Reader::open(&dir, options)).await {
        Ok((reader, lines)) => {
            if send(&to, lines).await.is_err() {
                return;
            }
            reader
        }
        Err(e) => {
            let _ = to.send(Err(e)).await;
            return;
        }
    };
    while !last {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = ended.wait_for(|ended| *ended) => {}
            () = to.closed() => return,
        }
        last = *ended.borrow() || ended.has_changed().is_err();
        let read = blocking(move || {
            let lines = reader.more()?;
            Ok((reader, lines))
        });
        match read.await {
            Ok((same, lines)) => {
                reader = same;
                if send(&to, lines).await.is_err() {
                    return;
                }
            }
            Err(e) => {
                let _ = to.send(Err(e)).await;
                return;
            }
        }
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
    /// The file that was the newest when we opened it; a container that wrote nothing yet has none.
    newest: Option<BufReader<File>>,
    /// A line of which the end was not written yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(dir: &Path, options: LogOptions) -> Result<(Self, VecDeque<LogLine>), Error> {
        let mut reader =
            Self { dir: dir.to_owned(), since_ms: options.since_ms.unwrap_or(0), newest: None, partial: Vec::new() };
        let keep = options.tail.unwrap_or(usize::MAX);
        let mut lines = VecDeque::new();
        for n in (0..FILES).rev() {
            let Some(mut file) = open(&file(dir, n))? else {
                continue;
            };
            reader.drain(&mut file, |line| {
                lines.push_back(line);
                if lines.len() > keep {
                    lines.pop_front();
                }
            })?;
            reader.newest = Some(file);
        }
        Ok((reader, lines))
    }

    /// What was written since.
    fn more(&mut self) -> Result<Vec<LogLine>, Error> {
        let mut lines = Vec::new();
        if let Some(mut file) = self.newest.take() {
            self.drain(&mut file, |line| lines.push(line))?;
            self.newest = Some(file);
        }
        // Was it put aside meanwhile? Then what came into it last is read now, and the new one after it.
        let path = file(&self.dir, 0);
        let inode = |file: &BufReader<File>| file.get_ref().metadata().map(|m| m.ino());
        let current = fs::metadata(&path).map(|m| m.ino()).ok();
        let open_inode = self.newest.as_ref().map(inode).transpose().map_err(Error::file("look at", &path))?;
        if current.is_some() && current != open_inode {
            if let Some(mut old) = self.newest.take() {
                self.drain(&mut old, |line| lines.push(line))?;
            }
            if let Some(mut new) = open(&path)? {
                self.drain(&mut new, |line| lines.push(line))?;
                self.newest = Some(new);
            }
        }
        Ok(lines)
    }

    fn drain(&mut self, file: &mut BufReader<File>, mut each: impl FnMut(LogLine)) -> Result<(), Error> {
        loop {
            let n = file.read_until(b'\n', &mut self.partial).map_err(Error::file("read the log in", &self.dir))?;
            if n == 0 || self.partial.last() != Some(&b'\n') {
                return Ok(());
            }
            // A line that a power cut left broken is not worth failing for.
            if let Ok(line) = serde_json::from_slice::<LogLine>(&self.partial)
                && line.time_ms >= self.since_ms
            {
                each(line);
            }
            self.partial.clear();
        }
    }
}

fn open(path: &Path) -> Result<Option<BufReader<File>>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { doing: "open", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Lines, Log, LogStream};

    fn write(log: &mut Log, text: &str) {
        let mut out = Vec::new();
        Lines::new(LogStream::Stdout).push(format!("{text}\n").as_bytes(), 5, &mut out);
        log.append(&out).unwrap();
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
