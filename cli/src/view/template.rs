//! Templates such as `{{.Name}}`: the part of Go's templates that Docker's users write. Field paths (`.State.Status`),
//! `json`, `len`, `index .X "key"`, `join .X ", "`, `upper`, `lower`, and `range`/`end`; a table by the word `table` in
//! front. Our own, for the one crate that has Go's templates renders what is missing as an error in the middle.

use serde_json::Value;

use crate::failure::Failure;

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Value(Vec<Word>),
    Range(Vec<Word>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Path(Vec<String>),
    Name(String),
    Text(String),
}

/// What `--format` says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    pub(crate) is_table: bool,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let (is_table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        let parts = parts(&mut rest, false)?;
        Ok(Self { parts, is_table })
    }

    pub(crate) fn render(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        render(&self.parts, value, &mut out)?;
        Ok(out)
    }

    /// Of a table: the last name of each path.
    pub(crate) fn header(&self) -> String {
        let name = |words: &[Word]| match words.last() {
            Some(Word::Path(path)) => path.last().map(|name| name.to_uppercase()).unwrap_or_default(),
            Some(Word::Name(_) | Word::Text(_)) | None => String::new(),
        };
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(words) | Part::Range(words, _) => name(words),
        };
        self.parts.iter().map(part).collect()
    }
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("format: {what}"))
}

fn parts(rest: &mut &str, inside: bool) -> Result<Vec<Part>, Failure> {
    let mut out = Vec::new();
    loop {
        let Some(at) = rest.find("{{") else {
            if inside {
                return Err(bad("{{end}} is missing"));
            }
            out.push(Part::Text((*rest).to_owned()));
            return Ok(out);
        };
        if at > 0 {
            out.push(Part::Text(rest[..at].to_owned()));
        }
        let after = &rest[at + 2..];
        let close = after.find("}}").ok_or_else(|| bad(format!("{:?} has no end", &rest[at..])))?;
        let action = words(after[..close].trim().trim_matches('-').trim())?;
        *rest = &after[close + 2..];
        match action.split_first() {
            Some((Word::Name(name), [])) if name == "end" && inside => return Ok(out),
            Some((Word::Name(name), of)) if name == "range" => {
                let of = of.to_vec();
                out.push(Part::Range(of, parts(rest, true)?));
            }
            Some(_) => out.push(Part::Value(action)),
            None => return Err(bad("{{}} says nothing")),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, Failure> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or_else(|| bad(format!("{rest:?} has no end")))?;
            out.push(Word::Text(quoted[..end].to_owned()));
            rest = quoted[end + 1..].trim_start();
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &rest[..end];
        out.push(match word.strip_prefix('.') {
            Some(path) => Word::Path(path.split('.').filter(|p| !p.is_empty()).map(str::to_owned).collect()),
            None if word.chars().all(char::is_alphanumeric) => Word::Name(word.to_owned()),
            None => return Err(bad(format!("{word:?} is not understood: fields are written {{{{.Name}}}}"))),
        });
        rest = rest[end..].trim_start();
    }
    Ok(out)
}

fn render(parts: &[Part], value: &Value, out: &mut String) -> Result<(), Failure> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(words) => out.push_str(&call(words, value)?),
            Part::Range(words, body) => match one(words, value)? {
                Value::Array(items) => items.iter().try_for_each(|item| render(body, item, out))?,
                Value::Object(items) => items.values().try_for_each(|item| render(body, item, out))?,
                _ => {}
            },
        }
    }
    Ok(())
}

fn call(words: &[Word], value: &Value) -> Result<String, Failure> {
    let Some((Word::Name(function), arguments)) = words.split_first() else {
        return Ok(text(&one(words, value)?));
    };
    let of = |n: usize| one(arguments.get(n..=n).unwrap_or_default(), value);
    Ok(match function.as_str() {
        "json" => of(0)?.to_string(),
        "len" => match of(0)? {
            Value::Array(items) => items.len().to_string(),
            Value::Object(items) => items.len().to_string(),
            other => text(&other).chars().count().to_string(),
        },
        "upper" => text(&of(0)?).to_uppercase(),
        "lower" => text(&of(0)?).to_lowercase(),
        "join" => {
            let between = text(&of(1)?);
            of(0)?.as_array().map(|items| items.iter().map(text).collect::<Vec<_>>().join(&between)).unwrap_or_default()
        }
        "index" => {
            let mut at = of(0)?;
            for n in 1..arguments.len() {
                let key = text(&of(n)?);
                let next = key.parse::<usize>().ok().and_then(|n| at.get(n)).or_else(|| at.get(&key));
                at = next.cloned().unwrap_or(Value::Null);
            }
            text(&at)
        }
        other => {
            return Err(bad(format!("{other} is not known: there are json, len, index, join, upper, lower, range")));
        }
    })
}

fn one(words: &[Word], value: &Value) -> Result<Value, Failure> {
    match words {
        [Word::Path(path)] => {
            let mut at = value;
            for name in path {
                at = at.get(name).ok_or_else(|| {
                    let known: Vec<&str> =
                        at.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
                    bad(format!("there is no field {name}: there are {}", known.join(", ")))
                })?;
            }
            Ok(at.clone())
        }
        [Word::Text(text)] => Ok(Value::String(text.clone())),
        [Word::Name(number)] if number.parse::<u64>().is_ok() => Ok(Value::String(number.clone())),
        _ => Err(bad("one field is expected")),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, String> {
        let value = json!({ "Name": "web", "State": { "Running": true }, "Ports": ["80", "81"], "M": { "a.b": 7 } });
        Template::parse(template).and_then(|t| t.render(&value)).map_err(|f| f.message)
    }

    #[test]
    fn what_dockers_users_write_is_understood() {
        for (template, text) in [
            ("{{.Name}}", "web"),
            ("{{ .Name }}: {{.State.Running}}", "web: true"),
            ("{{json .State}}", r#"{"Running":true}"#),
            ("{{len .Ports}} {{upper .Name}}", "2 WEB"),
            ("{{range .Ports}}[{{.}}]{{end}}!", "[80][81]!"),
            (r#"{{index .M "a.b"}} {{index .Ports 1}}"#, "7 81"),
            (r#"{{join .Ports ", "}}"#, "80, 81"),
            (r"{{.Name}}\t{{.Name}}", "web\tweb"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(text), "{template}");
        }
        assert_eq!(
            Template::parse("table {{.Name}}\\t{{.State.Running}}").map(|t| t.header()).unwrap(),
            "NAME\tRUNNING"
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (template, part) in [
            ("{{.Nmae}}", "there is no field Nmae"),
            ("{{.Name", "has no end"),
            ("{{frob .Name}}", "frob"),
            ("{{range .Ports}}", "end"),
            ("{{}}", "nothing"),
        ] {
            assert!(render(template).unwrap_err().contains(part), "{template}: {:?}", render(template));
        }
    }
}
