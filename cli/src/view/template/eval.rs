//! What a template's tree comes to, of one value.

use serde_json::{Map, Value};

use super::{
    compare::is_true,
    functions::{self, Function},
    parse::{Command, Node, Pipeline, Term},
    printf::text,
};

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, String> {
    let mut scope = Scope { variables: vec![(String::new(), value.clone())], out: String::new() };
    scope.nodes(nodes, value)?;
    Ok(scope.out)
}

struct Scope {
    /// The innermost last. The first is `$`.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Scope {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.node(node, dot))
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        let outer = self.variables.len();
        match node {
            Node::Text(text) => {
                self.out.push_str(text);
                return Ok(());
            }
            Node::Show(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&text(&value));
                }
                // Its variable is there until the end of the block that it stands in.
                return Ok(());
            }
            Node::If { when, then, otherwise } => {
                let value = self.pipeline(when, dot)?;
                self.nodes(if is_true(&value) { then } else { otherwise }, dot)?;
            }
            Node::With { of, then, otherwise } => {
                let value = self.pipeline(of, dot)?;
                if is_true(&value) { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range { over, body, otherwise } => {
                let items = items(self.values(over, dot)?)?;
                if items.is_empty() {
                    self.nodes(otherwise, dot)?;
                }
                for (key, item) in items {
                    match over.variables.as_slice() {
                        [] => {}
                        [value] => self.set(over, value, item.clone())?,
                        [k, v, ..] => {
                            self.set(over, k, key)?;
                            self.set(over, v, item.clone())?;
                        }
                    }
                    self.nodes(body, &item)?;
                    self.variables.truncate(outer);
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.values(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.set(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn set(&mut self, by: &Pipeline, name: &str, value: Value) -> Result<(), String> {
        if by.assigns {
            let known = self.variables.iter_mut().rev().find(|(n, _)| n == name);
            known.ok_or_else(|| format!("there is no variable ${name}: := makes one"))?.1 = value;
        } else {
            self.variables.push((name.to_owned(), value));
        }
        Ok(())
    }

    /// Each command is given what the one before it came to as its last argument.
    fn values(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or_default())
    }

    fn command(&mut self, command: &Command, piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        let arguments = &command.arguments;
        match &command.first {
            Term::Function(function @ (Function::And | Function::Or)) => {
                // The rest is not looked at once it is known.
                let mut last = None;
                for argument in arguments {
                    let value = self.term(argument, dot)?;
                    if is_true(&value) == (*function == Function::Or) {
                        return Ok(value);
                    }
                    last = Some(value);
                }
                piped.or(last).ok_or_else(|| format!("{function} of nothing"))
            }
            Term::Function(function) => {
                let mut values = arguments.iter().map(|a| self.term(a, dot)).collect::<Result<Vec<Value>, String>>()?;
                values.extend(piped);
                functions::call(*function, &values).map_err(|why| format!("{function}: {why}"))
            }
            // The one method that Docker's rows have.
            Term::Fields(of, names) if names.last().is_some_and(|n| n == "Label") && arguments.len() == 1 => {
                let of = self.term(of, dot)?;
                let labels = [&names[..names.len() - 1], &["Labels".to_owned()]].concat();
                let key =
                    arguments.iter().map(|a| self.term(a, dot).map(|key| text(&key))).collect::<Result<String, _>>()?;
                Ok(Value::String(label(&field(&of, &labels)?, &key)))
            }
            Term::Dot | Term::Variable(_) | Term::Literal(_) | Term::Group(_) | Term::Fields(..)
                if !arguments.is_empty() || piped.is_some() =>
            {
                Err("a value is given arguments, and is no function".to_owned())
            }
            value => self.term(value, dot),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, String> {
        match term {
            Term::Dot => Ok(dot.clone()),
            Term::Literal(value) => Ok(value.clone()),
            Term::Variable(name) => self.variable(name).cloned(),
            Term::Group(pipeline) => self.values(pipeline, dot),
            Term::Function(function) => functions::call(*function, &[]).map_err(|why| format!("{function}: {why}")),
            // Not cloned whole for one field of it.
            Term::Fields(of, names) => match of.as_ref() {
                Term::Dot => field(dot, names),
                Term::Variable(name) => field(self.variable(name)?, names),
                of @ (Term::Literal(_) | Term::Function(_) | Term::Group(_) | Term::Fields(..)) => {
                    field(&self.term(of, dot)?, names)
                }
            },
        }
    }

    fn variable(&self, name: &str) -> Result<&Value, String> {
        let known = self.variables.iter().rev().find(|(n, _)| n == name);
        known.map(|(_, value)| value).ok_or_else(|| format!("there is no variable ${name}"))
    }
}

/// Key and value of each, in the order of the keys.
fn items(of: Value) -> Result<Vec<(Value, Value)>, String> {
    match of {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.into_iter().enumerate().map(|(n, item)| (Value::from(n), item)).collect()),
        Value::Object(items) => Ok(sorted(items).into_iter().map(|(key, item)| (Value::String(key), item)).collect()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(format!("range goes over a list or a map, and not over {of}"))
        }
    }
}

fn sorted(items: Map<String, Value>) -> std::collections::BTreeMap<String, Value> {
    items.into_iter().collect()
}

fn field(of: &Value, names: &[String]) -> Result<Value, String> {
    let mut at = of;
    for name in names {
        let known = match at {
            Value::Object(fields) => fields,
            Value::Null => return Err(format!("there is no field {name}: what it is looked for in is not there")),
            Value::Array(_) => return Err(format!("there is no field {name}: a list has none, see index and range")),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(format!("there is no field {name}: {at} has none"));
            }
        };
        at = known.get(name).or_else(|| known.get(in_json(name)?)).ok_or_else(|| {
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("there is no field {name}: there are {known}")
        })?;
    }
    Ok(at.clone())
}

/// Where Docker's templates call a field otherwise than its JSON does.
fn in_json(name: &str) -> Option<&'static str> {
    match name {
        "ID" => Some("Id"),
        "HostIP" => Some("HostIp"),
        "DNS" => Some("Dns"),
        "DNSSearch" => Some("DnsSearch"),
        "DNSOptions" => Some("DnsOptions"),
        _ => None,
    }
}

/// Rows have labels as one text: `a=1,b=2`.
fn label(labels: &Value, key: &str) -> String {
    match labels {
        Value::String(all) => {
            let mut pairs = all.split(',').map(|label| label.split_once('=').unwrap_or((label, "")));
            pairs.find(|(k, _)| *k == key).map(|(_, value)| value.to_owned()).unwrap_or_default()
        }
        other => other.get(key).map(text).unwrap_or_default(),
    }
}
