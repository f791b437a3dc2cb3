//! `/etc/hosts` of a container: the lines that are ours, among those that the container itself wrote.
//!
//! The file is mounted into the container, so it is written in place: it stays the same file. Which lines are ours is
//! noted beside it, and before they are written: a writer that dies in between leaves nothing that the next one would
//! take for the container's own.

use shoal_rt::durable;
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
};

use crate::record::Dir;

/// In the container's directory.
pub(crate) const FILE: &str = "hosts";
/// Every line of ours that may be in it, once it is not as it was at the start.
const OURS: &str = "hosts.ours";

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// As it is at the start.
pub(crate) fn first(lines: &[String]) -> String {
    with(LOCALHOST, &[], lines)
}

/// `wanted` in place of all that is in `ours`; lines of others stay.
fn with(text: &str, ours: &[String], wanted: &[String]) -> String {
    let is_ours = |line: &str| ours.iter().chain(wanted).any(|own| own == line);
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        match (is_ours(line), seen) {
            (true, _) => seen = true,
            (false, false) => before.push(line),
            (false, true) => after.push(line),
        }
    }
    let lines = before.into_iter().chain(wanted.iter().map(String::as_str)).chain(after);
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// At a start nothing is left of what was written before.
pub(crate) fn forget(dir: &Dir) -> io::Result<()> {
    match fs::remove_file(dir.at(OURS)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes `wanted` the lines of ours in the file. `at_start`: those that it had at first.
pub(crate) fn set(at_start: &[String], dir: &Dir, wanted: &[String]) -> io::Result<()> {
    let mut ours = match fs::read_to_string(dir.at(OURS)) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => at_start.to_vec(),
        Err(e) => return Err(e),
    };
    let text = String::from_utf8_lossy(&fs::read(dir.at(FILE))?).into_owned();
    let new = with(&text, &ours, wanted);
    if new == text {
        return Ok(());
    }
    ours.extend(wanted.iter().filter(|line| !ours.contains(line)).cloned().collect::<Vec<_>>());
    note(dir, &ours)?;
    let file = OpenOptions::new().write(true).open(dir.at(FILE))?;
    // Not shortened first: whoever reads meanwhile finds more lines rather than none.
    file.write_all_at(new.as_bytes(), 0)?;
    file.set_len(new.len() as u64)?;
    note(dir, wanted)
}

fn note(dir: &Dir, lines: &[String]) -> io::Result<()> {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    durable::replace(&dir.at(OURS), text.as_bytes()).map_err(durable::Error::into_io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[&str]) -> Vec<String> {
        of.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_writer_that_died_leaves_no_line_that_passes_for_the_containers_own() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir(temporary.path().to_owned());
        let read = || fs::read_to_string(dir.at(FILE)).unwrap();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.at(FILE)).unwrap());
        let [one, two, three] = ["10.0.0.2\tweb", "10.0.1.2\tweb", "10.0.2.2\tweb"].map(|line| lines(&[line]));
        fs::write(dir.at(FILE), first(&one)).unwrap();
        let before = inode();
        // It had noted what it was about to write, and either had not written it or had.
        for written in [false, true] {
            note(&dir, &[one.clone(), two.clone()].concat()).unwrap();
            if written {
                fs::write(dir.at(FILE), first(&two)).unwrap();
            }
            set(&one, &dir, &three).unwrap();
            assert_eq!(read(), first(&three), "{written}");
            set(&one, &dir, &one).unwrap();
            assert_eq!(read(), first(&one), "{written}");
        }
        assert_eq!(inode(), before, "the container would not see another file");
        forget(&dir).unwrap();
        forget(&dir).unwrap();
    }

    #[test]
    fn our_lines_are_replaced_where_they_are_and_those_of_others_stay() {
        let (one, two) = (lines(&["10.0.0.2\tweb"]), lines(&["10.0.0.2\tweb", "10.0.1.2\tweb"]));
        let text = first(&one) + "192.0.2.1\tmine\n";
        let both = with(&text, &one, &two);
        assert_eq!(both, format!("{LOCALHOST}10.0.0.2\tweb\n10.0.1.2\tweb\n192.0.2.1\tmine\n"));
        assert_eq!(with(&both, &two, &one), text);
        assert_eq!(with(&text, &one, &one), text, "nothing to do");
        assert_eq!(with(&text, &one, &[]), format!("{LOCALHOST}192.0.2.1\tmine\n"));
        // Whoever emptied it gets what is ours, and an end of the last line.
        assert_eq!(with("", &one, &two), "10.0.0.2\tweb\n10.0.1.2\tweb\n");
        assert_eq!(with("192.0.2.1\tmine", &[], &one), "192.0.2.1\tmine\n10.0.0.2\tweb\n");
    }
}
