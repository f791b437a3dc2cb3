//! How Go prints values.

use serde_json::Value;

use super::functions::MAX_PADDING;

/// `%v`: a list is `[a b]`, a map `map[k:v]`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(within).collect::<Vec<_>>().join(" ")),
        Value::Object(items) => {
            let mut items: Vec<(&String, &Value)> = items.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            let items: Vec<String> = items.into_iter().map(|(k, v)| format!("{k}:{}", within(v))).collect();
            format!("map[{}]", items.join(" "))
        }
    }
}

fn within(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { text(value) }
}

/// With blanks between two of which none is text.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    for (n, value) in values.iter().enumerate() {
        if n > 0 && !value.is_string() && !values[n - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&within(value));
    }
    out
}

/// `%-10.3s`
#[derive(Debug, Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (verb, letter, after) = verb(after)?;
        rest = after;
        if letter == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("there is no value for %{letter}"))?;
        out.push_str(&verb.padded(verb.shown(letter, value)?, value.is_number()));
    }
    out.push_str(rest);
    match values.len() {
        0 => Ok(out),
        n => Err(format!("the last {n} of the values are not in {format:?}")),
    }
}

fn verb(text: &str) -> Result<(Verb, char, &str), String> {
    let mut verb = Verb::default();
    let flags = text.find(|c| !matches!(c, '-' | '0' | '+' | ' ' | '#')).unwrap_or(text.len());
    let (flags, rest) = text.split_at(flags);
    verb.left = flags.contains('-');
    verb.zeros = flags.contains('0') && !verb.left;
    verb.plus = flags.contains('+');
    let (width, mut rest) = digits(rest)?;
    verb.width = width.unwrap_or(0);
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = digits(after)?;
        (verb.precision, rest) = (Some(precision.unwrap_or(0)), after);
    }
    let letter = rest.chars().next().ok_or("% ends the format: %% is a percent sign")?;
    Ok((verb, letter, &rest[letter.len_utf8()..]))
}

fn digits(text: &str) -> Result<(Option<usize>, &str), String> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    match (digits, digits.parse::<usize>()) {
        ("", _) => Ok((None, rest)),
        (_, Ok(n)) if n <= MAX_PADDING => Ok((Some(n), rest)),
        _ => Err(format!("{digits} is wider than {MAX_PADDING}")),
    }
}

impl Verb {
    fn shown(&self, letter: char, value: &Value) -> Result<String, String> {
        let cut = |text: String| match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
        };
        let wants = |kind| Err(format!("%{letter} is for {kind}, and {value} is none"));
        match letter {
            's' | 'v' if value.is_string() => Ok(cut(text(value))),
            's' | 'v' => Ok(self.signed(within(value), value)),
            'q' if value.is_string() => Ok(Value::String(cut(text(value))).to_string()),
            'q' => match value {
                Value::Array(items) => {
                    let items = items.iter().map(|item| self.shown('q', item)).collect::<Result<Vec<_>, _>>()?;
                    Ok(format!("[{}]", items.join(" ")))
                }
                _ => wants("a text"),
            },
            'd' if value.is_i64() || value.is_u64() => Ok(self.signed(value.to_string(), value)),
            'd' => wants("a whole number"),
            't' if value.is_boolean() => Ok(value.to_string()),
            't' => wants("true and false"),
            other => Err(format!("%{other} is not known: there are %s %v %d %q %t %%")),
        }
    }

    fn signed(&self, text: String, value: &Value) -> String {
        if self.plus && value.is_number() && !text.starts_with('-') { format!("+{text}") } else { text }
    }

    fn padded(&self, text: String, is_number: bool) -> String {
        let blanks = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros && is_number) {
            (true, _) => format!("{text}{:blanks$}", ""),
            (false, true) => {
                let sign = usize::from(text.starts_with(['-', '+']));
                format!("{}{}{}", &text[..sign], "0".repeat(blanks), &text[sign..])
            }
            (false, false) => format!("{:blanks$}{text}", ""),
        }
    }
}
