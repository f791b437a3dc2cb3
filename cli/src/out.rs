//! The one place that writes to the terminal. Results go to stdout; everything said beside them to stderr.
//!
//! Names, messages and logs come from other hosts and from containers. A terminal gets them made [`inert`]; a file or
//! another program gets them as they are. Only what a process writes to whoever is attached to it is left alone.

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::{OwoColorize as _, Stream};
use serde::Serialize;
use std::io::{self, IsTerminal, Write as _};

use crate::{failure::Failure, inert};

/// A line of result.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut line = shown(io::stdout().is_terminal(), text.as_ref());
    line.push('\n');
    settle(io::stdout().lock().write_all(line.as_bytes()))
}

fn shown(on_a_terminal: bool, text: &str) -> String {
    if on_a_terminal { inert::text(text) } else { text.to_owned() }
}

/// A line of a container's log.
pub(crate) fn log(raw: &[u8]) -> Result<(), Failure> {
    settle(write_log(io::stdout().lock(), raw))
}

/// A line that a container wrote to its stderr.
pub(crate) fn log_aside(raw: &[u8]) -> Result<(), Failure> {
    settle(write_log(io::stderr().lock(), raw))
}

fn write_log(mut to: impl io::Write + IsTerminal, raw: &[u8]) -> io::Result<()> {
    if to.is_terminal() { to.write_all(&inert::log(raw)) } else { to.write_all(raw) }
}

/// What a process writes at this moment: shown at once, also where it ends no line. Of a reader that went away it is
/// told, as our own terminal may have to be put back first.
pub(crate) fn both(stdout: &[u8], stderr: &[u8]) -> io::Result<()> {
    if !stdout.is_empty() {
        io::stdout().lock().write_all(stdout)?;
        io::stdout().lock().flush()?;
    }
    io::stderr().lock().write_all(stderr)
}

/// The reader went away (`| head`): nothing is left to be said, and nobody to say it to.
fn settle(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// One object on a line of its own.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).map_err(io::Error::from)?)
}

/// What `inspect` prints: an array, as Docker does.
pub(crate) fn json_array<T: Serialize>(values: &[T]) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(values).map_err(io::Error::from)?)
}

/// A table as Docker prints them: no borders, three blanks between columns, no cell ever cut or wrapped.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    line(table_text(header, rows))
}

fn table_text(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    // A cell with line breaks would look like several rows.
    table.add_rows(rows.into_iter().map(|r| r.into_iter().map(|c| c.replace(['\n', '\r'], " ")).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Said beside the result.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nothing can be done about a stderr that cannot be written to.
    let text = shown(io::stderr().is_terminal(), text.as_ref());
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The last word of a command that failed.
pub(crate) fn error(message: &str) {
    let word = "error:".if_supports_color(Stream::Stderr, |t| t.red()).to_string();
    let message = shown(io::stderr().is_terminal(), message);
    let _ = writeln!(io::stderr().lock(), "{word} {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_looks_like_dockers_and_cuts_nothing() {
        let long = "no address left in net app (254 of 254; 31 held by stopped tasks for 4 s more)".repeat(4);
        let rows = vec![
            vec!["svc-1".to_owned(), "web".to_owned(), long.clone()],
            vec!["svc-12".into(), "a".into(), "x\ny".into()],
        ];
        let want = format!("ID       NAME   ERROR\nsvc-1    web    {long}\nsvc-12   a      x y");
        assert_eq!(table_text(&["ID", "NAME", "ERROR"], rows), want);
    }
}
