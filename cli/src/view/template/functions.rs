//! The functions of Go's templates, and Docker's own.

use serde_json::Value;
use std::{fmt, str::FromStr};

use super::{
    compare::{is_equal, is_true, order},
    printf::{printf, sprint, text},
};

/// Blanks that `pad`, and a width of `printf`, may ask for: an error beyond, not a terminal full of them.
pub(super) const MAX_PADDING: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Slice,
    Len,
    Json,
    Join,
    Split,
    Title,
    Upper,
    Lower,
    Pad,
    Truncate,
    Print,
    Println,
    Printf,
}

const NAMES: [(&str, Function); 23] = [
    ("and", Function::And),
    ("eq", Function::Eq),
    ("ge", Function::Ge),
    ("gt", Function::Gt),
    ("index", Function::Index),
    ("join", Function::Join),
    ("json", Function::Json),
    ("le", Function::Le),
    ("len", Function::Len),
    ("lower", Function::Lower),
    ("lt", Function::Lt),
    ("ne", Function::Ne),
    ("not", Function::Not),
    ("or", Function::Or),
    ("pad", Function::Pad),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
    ("slice", Function::Slice),
    ("split", Function::Split),
    ("title", Function::Title),
    ("truncate", Function::Truncate),
    ("upper", Function::Upper),
];

impl FromStr for Function {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, function)| *function).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            format!("{name} is not known: there are if, range, with, {}", known.join(", "))
        })
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, function)| function == self).map_or("", |(name, _)| name))
    }
}

pub(super) fn call(function: Function, values: &[Value]) -> Result<Value, String> {
    let shown = |text: String| Ok(Value::String(text));
    match (function, values) {
        (Function::Not, [value]) => Ok(Value::Bool(!is_true(value))),
        // Those that are looked at one by one are called elsewhere.
        (Function::And | Function::Or, _) => Err("it has no arguments".to_owned()),
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if is_equal(first, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        (Function::Ne, [a, b]) => Ok(Value::Bool(!is_equal(a, b)?)),
        (Function::Lt, [a, b]) => Ok(Value::Bool(order(a, b)?.is_lt())),
        (Function::Le, [a, b]) => Ok(Value::Bool(order(a, b)?.is_le())),
        (Function::Gt, [a, b]) => Ok(Value::Bool(order(a, b)?.is_gt())),
        (Function::Ge, [a, b]) => Ok(Value::Bool(order(a, b)?.is_ge())),
        (Function::Index, [of, keys @ ..]) => keys.iter().try_fold(of.clone(), |at, key| index(&at, key)),
        (Function::Slice, [of, ends @ ..]) if ends.len() <= 2 => slice(of, ends),
        (Function::Len, [Value::Null]) => Ok(Value::from(0)),
        (Function::Len, [Value::Array(items)]) => Ok(Value::from(items.len())),
        (Function::Len, [Value::Object(items)]) => Ok(Value::from(items.len())),
        (Function::Len, [Value::String(text)]) => Ok(Value::from(text.len())),
        (Function::Json, [value]) => shown(value.to_string()),
        (Function::Join, [Value::Null, Value::String(_)]) => shown(String::new()),
        (Function::Join, [Value::Array(items), Value::String(between)]) => {
            shown(items.iter().map(text).collect::<Vec<_>>().join(between))
        }
        (Function::Split, [Value::String(text), Value::String(between)]) => {
            Ok(Value::Array(parts(text, between).into_iter().map(Value::from).collect()))
        }
        (Function::Title, [value]) => shown(title(&text(value))),
        (Function::Upper, [value]) => shown(text(value).to_uppercase()),
        (Function::Lower, [value]) => shown(text(value).to_lowercase()),
        (Function::Pad, [value, before, after]) => {
            let (before, after) = (padding(before)?, padding(after)?);
            let text = text(value);
            shown(if text.is_empty() { text } else { format!("{:before$}{text}{:after$}", "", "") })
        }
        (Function::Truncate, [value, length]) => {
            let length = position(length)?;
            shown(text(value).chars().take(length).collect())
        }
        (Function::Print, values) => shown(sprint(values)),
        (Function::Println, values) => shown(values.iter().map(text).collect::<Vec<_>>().join(" ") + "\n"),
        (Function::Printf, [Value::String(format), values @ ..]) => shown(printf(format, values)?),
        (
            Function::Not
            | Function::Eq
            | Function::Ne
            | Function::Lt
            | Function::Le
            | Function::Gt
            | Function::Ge
            | Function::Index
            | Function::Slice
            | Function::Len
            | Function::Json
            | Function::Join
            | Function::Split
            | Function::Title
            | Function::Upper
            | Function::Lower
            | Function::Pad
            | Function::Truncate
            | Function::Printf,
            values,
        ) => {
            let given: Vec<String> = values.iter().map(Value::to_string).collect();
            Err(format!("({}) is not what it takes: {}", given.join(", "), takes(function)))
        }
    }
}

fn takes(function: Function) -> &'static str {
    match function {
        Function::Eq => "a value and those to compare it with",
        Function::Ne | Function::Lt | Function::Le | Function::Gt | Function::Ge => "two values",
        Function::Index => "a list or a map, and keys",
        Function::Slice => "a list or a text, and where it begins and ends",
        Function::Join => "a list, and what is between",
        Function::Split => "a text, and what is between",
        Function::Pad => "a text, and how many blanks are before and behind it",
        Function::Truncate => "a text and a length",
        Function::Printf => "a format such as \"%s\", and values",
        Function::Len => "a list, a map or a text",
        Function::And | Function::Or | Function::Print | Function::Println => "any values",
        Function::Not | Function::Json | Function::Title | Function::Upper | Function::Lower => "one value",
    }
}

fn index(of: &Value, key: &Value) -> Result<Value, String> {
    match of {
        Value::Array(items) => {
            let n = position(key)?;
            items.get(n).cloned().ok_or_else(|| format!("there is no element {n}: there are {}", items.len()))
        }
        Value::Object(items) => match key {
            Value::String(key) => Ok(items.get(key).cloned().unwrap_or_else(|| empty(items.values().next()))),
            key => Err(format!("a map's keys are texts, and {key} is none")),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(format!("{key} is looked for in {of}, which is no list and no map"))
        }
    }
}

/// What a map of Go's has under a key that is not there: the empty value of what it holds. An empty one, such as that of
/// labels, mostly holds text.
fn empty(like: Option<&Value>) -> Value {
    match like {
        None | Some(Value::String(_)) => Value::from(""),
        Some(Value::Bool(_)) => Value::Bool(false),
        Some(Value::Number(_)) => Value::from(0),
        Some(Value::Array(_)) => Value::Array(Vec::new()),
        Some(Value::Null | Value::Object(_)) => Value::Null,
    }
}

fn slice(of: &Value, ends: &[Value]) -> Result<Value, String> {
    let whole = match of {
        Value::Array(items) => items.len(),
        other => text(other).len(),
    };
    let from = ends.first().map_or(Ok(0), position)?;
    let to = ends.get(1).map_or(Ok(whole), position)?;
    let beyond = || format!("{from} to {to} is not inside of it: it has {whole}");
    match of {
        Value::Array(items) => items.get(from..to).map(|items| Value::Array(items.to_vec())).ok_or_else(beyond),
        other => text(other).get(from..to).map(Value::from).ok_or_else(beyond),
    }
}

fn position(of: &Value) -> Result<usize, String> {
    let n = of.as_u64().and_then(|n| usize::try_from(n).ok());
    n.ok_or_else(|| format!("{of} is no position: those are 0, 1, 2 and so on"))
}

fn padding(of: &Value) -> Result<usize, String> {
    position(of).and_then(|n| match n {
        0..=MAX_PADDING => Ok(n),
        _ => Err(format!("{n} blanks are more than {MAX_PADDING}")),
    })
}

/// As Go does: between nothing is between characters.
fn parts(text: &str, between: &str) -> Vec<String> {
    match between {
        "" => text.chars().map(String::from).collect(),
        between => text.split(between).map(str::to_owned).collect(),
    }
}

fn title(text: &str) -> String {
    let mut begins = true;
    let mut out = String::new();
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        begins = c.is_whitespace();
    }
    out
}
