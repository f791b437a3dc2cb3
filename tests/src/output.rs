//! How a program ended, and what it said.

use std::process::ExitStatus;

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;

#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for whoever reads a failure.
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// What it printed, if it succeeded.
    pub fn success(self) -> anyhow::Result<String> {
        ensure!(self.status.success(), "{self}");
        Ok(self.stdout)
    }

    /// What it complained of, if it failed with this code.
    pub fn failure(self, code: i32) -> anyhow::Result<String> {
        ensure!(self.status.code() == Some(code), "exit code {code} was expected: {self}");
        Ok(self.stderr)
    }

    /// What it printed with `--format json`, one object a line, or an array of them, if it succeeded.
    pub fn json<T: DeserializeOwned>(self) -> anyhow::Result<Vec<T>> {
        ensure!(self.status.success(), "{self}");
        let mut all = Vec::new();
        for value in serde_json::Deserializer::from_str(&self.stdout).into_iter::<serde_json::Value>() {
            match value.with_context(|| format!("no JSON: {self}"))? {
                serde_json::Value::Array(values) => all.extend(values),
                value => all.push(value),
            }
        }
        let typed = all.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        typed.with_context(|| format!("other JSON than expected: {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "`{command}` ended with {status}\nstdout: {}\nstderr: {}", stdout.trim_end(), stderr.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn output(code: i32, stdout: &str) -> Output {
        let status = ExitStatus::from_raw(code << 8);
        Output { command: "it".into(), status, stdout: stdout.into(), stderr: "oh\n".into() }
    }

    #[test]
    fn lines_of_objects_and_an_array_of_them_read_alike() {
        let numbers = |text| output(0, text).json::<u8>().unwrap();
        assert_eq!(numbers("1\n2\n"), [1, 2]);
        assert_eq!(numbers("[\n  1,\n  2\n]\n"), [1, 2]);
        assert!(output(0, "no").json::<u8>().is_err());
        assert!(output(1, "1").json::<u8>().is_err());
    }

    #[test]
    fn success_and_failure_are_told_apart_by_the_exit_code() {
        assert_eq!(output(0, "x").success().unwrap(), "x");
        assert_eq!(output(3, "").failure(3).unwrap(), "oh\n");
        assert!(output(0, "").failure(3).is_err());
        assert!(output(2, "").failure(3).is_err());
        assert!(output(3, "x").success().unwrap_err().to_string().starts_with("`it` ended with exit status: 3"));
    }
}
