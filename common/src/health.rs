//! Health checks: a process that is started in a container again and again, and whose exit code says how it is.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

use crate::Invalid;

/// What is asked for. What is left open the image says, and what that leaves open too has a default (as in Docker).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    pub test: Option<HealthTest>,
    /// Between the end of one probe and the next.
    pub interval: Option<Duration>,
    /// A probe that takes longer has failed.
    pub timeout: Option<Duration>,
    /// Failures within this time from the start do not count.
    pub start_period: Option<Duration>,
    /// The interval within the start period, until one has passed.
    pub start_interval: Option<Duration>,
    /// So many failures in a row make a container unhealthy.
    pub retries: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// None is wanted, also not the image's.
    Off,
    Exec(Vec<String>),
    /// By the container's `/bin/sh -c`.
    Shell(String),
}

/// A health check with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub args: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl HealthCheck {
    /// As Docker's.
    const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
    const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
    const DEFAULT_RETRIES: u32 = 3;

    /// What is done in a container of `image`; `None` where nobody asks for a check.
    pub fn probe(&self, image: &HealthCheck) -> Option<Probe> {
        let args = match self.test.as_ref().or(image.test.as_ref())? {
            HealthTest::Off => return None,
            HealthTest::Exec(args) => args.clone(),
            HealthTest::Shell(command) => ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        };
        Some(Probe {
            args,
            interval: self.interval.or(image.interval).unwrap_or(Self::DEFAULT_INTERVAL),
            timeout: self.timeout.or(image.timeout).unwrap_or(Self::DEFAULT_TIMEOUT),
            start_period: self.start_period.or(image.start_period).unwrap_or_default(),
            start_interval: self.start_interval.or(image.start_interval).unwrap_or(Self::DEFAULT_START_INTERVAL),
            retries: self.retries.or(image.retries).unwrap_or(Self::DEFAULT_RETRIES),
        })
    }
}

impl HealthTest {
    /// As images say it: nothing, `NONE`, `CMD` and a command, or `CMD-SHELL` and a line.
    pub fn of_words(words: &[String]) -> Result<Option<Self>, Invalid> {
        let [kind, rest @ ..] = words else { return Ok(None) };
        match (kind.as_str(), rest) {
            ("NONE", []) => Ok(Some(Self::Off)),
            ("CMD", [program, ..]) if !program.is_empty() => Ok(Some(Self::Exec(rest.to_vec()))),
            ("CMD-SHELL", [command]) if !command.is_empty() => Ok(Some(Self::Shell(command.clone()))),
            _ => {
                let expected = "NONE, CMD and a command, or CMD-SHELL and one line for a shell";
                Err(Invalid::new("health-cmd", words.join(" "), expected))
            }
        }
    }

    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Off => vec!["NONE".to_owned()],
            Self::Exec(args) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
            Self::Shell(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
        }
    }
}

/// What a container's checks say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// None has passed yet, and not enough have failed.
    Starting,
    Healthy,
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

impl FromStr for Health {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        match s {
            "starting" => Ok(Self::Starting),
            "healthy" => Ok(Self::Healthy),
            "unhealthy" => Ok(Self::Unhealthy),
            _ => Err(Invalid::new("health", s, "starting, healthy or unhealthy")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_check_is_the_users_then_the_images_then_dockers() {
        let image = HealthCheck {
            test: Some(HealthTest::Exec(words("probe -q"))),
            interval: Some(Duration::from_secs(7)),
            retries: Some(5),
            ..HealthCheck::default()
        };
        let own = HealthCheck { retries: Some(1), ..HealthCheck::default() };
        assert_eq!(
            own.probe(&image),
            Some(Probe {
                args: words("probe -q"),
                interval: Duration::from_secs(7),
                timeout: Duration::from_secs(30),
                start_period: Duration::ZERO,
                start_interval: Duration::from_secs(5),
                retries: 1,
            })
        );
        assert_eq!(own.probe(&HealthCheck::default()), None);
        let off = HealthCheck { test: Some(HealthTest::Off), ..own };
        assert_eq!(off.probe(&image), None);
        let shell = HealthCheck { test: Some(HealthTest::Shell("true || exit 3".into())), ..off };
        assert_eq!(
            shell.probe(&image).map(|p| p.args),
            Some(vec!["/bin/sh".into(), "-c".into(), "true || exit 3".into()])
        );
    }

    #[test]
    fn a_test_reads_back_what_it_writes() {
        for text in ["NONE", "CMD probe -q", "CMD-SHELL true"] {
            let test = HealthTest::of_words(&words(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(test.map(|t| t.words()), Some(words(text)));
        }
        assert_eq!(HealthTest::of_words(&[]), Ok(None));
        for text in ["CMD", "CMD-SHELL", "CMD-SHELL a b", "NONE x", "probe"] {
            assert!(HealthTest::of_words(&words(text)).is_err(), "{text}");
        }
    }
}
