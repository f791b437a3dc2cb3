//! Environment variables: `NAME=VALUE`, or `NAME` to take it from where the command runs; files of such lines.

use std::{collections::BTreeMap, path::PathBuf};

use crate::failure::Failure;

/// Files first, in order; then what was given one by one: the last one wins.
pub(crate) fn collect(files: &[PathBuf], given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut out = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::usage(format!("cannot read the env-file {}: {e}", path.display())))?;
        for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            add(&mut out, line, here)?;
        }
    }
    for variable in given {
        add(&mut out, variable, here)?;
    }
    Ok(out)
}

fn here(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn add(out: &mut BTreeMap<String, String>, text: &str, here: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, here(text)),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Failure::usage(format!("env: {text:?} is not accepted: NAME=VALUE")));
    }
    // A variable that is not set here is not set there either, as with Docker.
    out.extend(value.map(|v| (name.to_owned(), v)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_last_one_wins_and_comments_do_not_count() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "# a comment\n\nA=1\n  B=two words \nC=x=y").expect("written");
        let got = collect(&[file.path().to_owned()], &["A=3".into()]).expect("accepted");
        let want = [("A", "3"), ("B", "two words "), ("C", "x=y")];
        assert_eq!(got, want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        assert!(collect(&[], &["=x".into()]).is_err());
        assert!(collect(&[PathBuf::from("/nonexistent/env")], &[]).is_err());
    }

    #[test]
    fn a_bare_name_is_taken_from_where_the_command_runs() {
        let mut out = BTreeMap::new();
        let here = |n: &str| (n == "SET").then(|| "v".to_owned());
        add(&mut out, "SET", here).expect("accepted");
        add(&mut out, "UNSET", here).expect("accepted");
        assert_eq!(out, BTreeMap::from([("SET".to_owned(), "v".to_owned())]));
    }
}
