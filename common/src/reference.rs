//! Names of images, as Docker reads and shows them: `nginx` is `docker.io/library/nginx:latest`.

use std::{fmt, str::FromStr};

use crate::Invalid;

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_SPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// A reference with nothing left out. Displayed in the familiar, short form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// The registry, with its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The form that names one image for ever: without the tag where there is a digest.
    pub fn canonical(&self) -> String {
        let name = format!("{}/{}", self.host, self.repository);
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, tag) => format!("{name}:{}", tag.as_deref().unwrap_or(DEFAULT_TAG)),
        }
    }

    /// Registries on this very host are spoken to without TLS.
    pub fn is_loopback(&self) -> bool {
        let name = match self.host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Reference {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = |expected| Invalid::new("image", s, expected);
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => {
                let hex = digest.strip_prefix("sha256:").ok_or_else(|| bad("a digest that begins with sha256:"))?;
                if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(bad("a sha256 digest of 64 digits, 0-9 and a-f"));
                }
                (rest, Some(digest.to_owned()))
            }
            None => (s, None),
        };
        // A colon after the last slash parts the tag; one before it belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            Some(_) | None => (rest, None),
        };
        if let Some(tag) = &tag {
            let fits = (1..=128).contains(&tag.len())
                && !tag.starts_with(['.', '-'])
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            if !fits {
                return Err(bad("a tag of 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', not beginning with '.' or '-'"));
            }
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            Some(_) | None => (DEFAULT_HOST, name),
        };
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '[';
        if !host.starts_with(letter) || !host.chars().all(|c| letter(c) || matches!(c, '.' | '-' | ':' | ']')) {
            return Err(bad("a registry that is a host name or an address, and a port where it is not the usual one"));
        }
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let part = |p: &str| {
            let edge = |c: Option<u8>| c.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            edge(p.bytes().next())
                && edge(p.bytes().last())
                && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !path.split('/').all(part) {
            return Err(bad(
                "a repository of a-z, 0-9, '_', '.' and '-', in parts divided by '/', such as nginx or registry:5000/team/app:v2",
            ));
        }
        let repository = if host == DEFAULT_HOST && !path.contains('/') {
            format!("{DEFAULT_SPACE}{path}")
        } else {
            path.to_owned()
        };
        let tag = if digest.is_none() { Some(tag.unwrap_or_else(|| DEFAULT_TAG.to_owned())) } else { tag };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if self.host != DEFAULT_HOST {
            text = format!("{}/", self.host);
            text.push_str(&self.repository);
        } else {
            text.push_str(self.repository.strip_prefix(DEFAULT_SPACE).unwrap_or(&self.repository));
        }
        match (&self.digest, &self.tag) {
            (Some(digest), _) => text = format!("{text}@{digest}"),
            (None, Some(tag)) => text = format!("{text}:{tag}"),
            (None, None) => {}
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_shown_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table = [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            ("docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("registry:5000/team/app:v2", "registry:5000/team/app:v2", "registry:5000/team/app:v2"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", "127.0.0.1:5000/app:latest"),
            (&format!("web@{digest}"), &format!("docker.io/library/web@{digest}"), &format!("web@{digest}")),
            (&format!("web:v1@{digest}"), &format!("docker.io/library/web@{digest}"), &format!("web@{digest}")),
        ];
        for (given, canonical, shown) in table {
            let reference: Reference = given.parse().unwrap();
            assert_eq!((reference.canonical().as_str(), reference.to_string().as_str()), (canonical, shown), "{given}");
            assert_eq!(reference.canonical().parse::<Reference>().unwrap().canonical(), canonical, "{given}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "Nginx", "a//b", "../etc", "a:", "a:b c", "a@sha256:12", "a@md5:00", "/a", "a/", "http://a/b"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_is_spoken_to_without_tls() {
        for (name, loopback) in [
            ("localhost:5000/a", true),
            ("127.0.0.2:5000/a", true),
            ("[::1]:5000/a", true),
            ("registry:5000/a", false),
            ("10.0.0.1:5000/a", false),
            ("127.example.com/a", false),
            ("a", false),
        ] {
            assert_eq!(name.parse::<Reference>().unwrap().is_loopback(), loopback, "{name}");
        }
    }
}
