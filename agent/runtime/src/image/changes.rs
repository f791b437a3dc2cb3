//! `--change` of an import: the lines of a Dockerfile that only say how an image is run.

use super::config::RunConfig;
use crate::{Error, image::config::signal};

/// Applies one change: `CMD ["a", "b"]`, `CMD a b` (by a shell), `ENV K=V …`, `WORKDIR /x`, ….
pub(crate) fn apply(run: &mut RunConfig, change: &str) -> Result<(), Error> {
    let bad = || Error::Change(change.to_owned());
    let (word, rest) = change.trim().split_once(char::is_whitespace).ok_or_else(bad)?;
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => run.cmd = Some(command(rest).ok_or_else(bad)?),
        "ENTRYPOINT" => run.entrypoint = Some(command(rest).ok_or_else(bad)?),
        "ENV" => {
            let env = run.env.get_or_insert_default();
            for (key, value) in pairs(rest).ok_or_else(bad)? {
                env.retain(|e| e.split('=').next() != Some(key.as_str()));
                env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => run.labels.get_or_insert_default().extend(pairs(rest).ok_or_else(bad)?),
        "WORKDIR" => run.working_dir = Some(rest.to_owned()),
        "USER" => run.user = Some(rest.to_owned()),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(bad());
                }
                run.exposed_ports.get_or_insert_default().insert(format!("{number}/{protocol}"), Default::default());
            }
        }
        "VOLUME" => {
            let paths = if rest.starts_with('[') { command(rest).ok_or_else(bad)? } else { words(rest) };
            let volumes = run.volumes.get_or_insert_default();
            volumes.extend(paths.into_iter().map(|path| (path, Default::default())));
        }
        "STOPSIGNAL" => {
            signal(rest).ok_or_else(bad)?;
            run.stop_signal = Some(rest.to_owned());
        }
        _ => return Err(bad()),
    }
    Ok(())
}

/// A JSON list is run as it is, anything else by a shell.
fn command(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        serde_json::from_str(text).ok()
    } else {
        Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// `K=V K2="V 2"`, or the old `K V` with all of the rest as one value.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if !text.split_whitespace().next()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut words = Vec::new();
    let (mut word, mut quote, mut escaped) = (String::new(), None, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            _ if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if c.is_whitespace() && quote.is_none() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
        .iter()
        .map(|w| w.split_once('=').filter(|(k, _)| !k.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_a_dockerfile_is() {
        let mut run = RunConfig::default();
        for change in [
            r#"CMD ["httpd", "-f"]"#,
            "entrypoint echo $A",
            r#"ENV A=1 B="two words""#,
            "ENV A three",
            "WORKDIR /srv",
            "USER web:web",
            "EXPOSE 80 53/udp",
            "STOPSIGNAL QUIT",
            "VOLUME /a /b",
            r#"VOLUME ["/c"]"#,
        ] {
            apply(&mut run, change).unwrap();
        }
        assert_eq!(run.cmd.unwrap(), ["httpd", "-f"]);
        assert_eq!(run.entrypoint.unwrap(), ["/bin/sh", "-c", "echo $A"]);
        assert_eq!(run.env.unwrap(), ["B=two words", "A=three"]);
        assert_eq!(run.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(run.volumes.unwrap().into_keys().collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        for bad in ["CMD", "RUN x", "CMD [1", "ENV =x y=z", "EXPOSE http", "STOPSIGNAL NOPE", "ENV A=\"open"] {
            assert!(apply(&mut RunConfig::default(), bad).is_err(), "{bad}");
        }
    }
}
