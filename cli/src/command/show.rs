//! What `--format` makes of what was asked for.

use serde::Serialize;
use serde_json::Value;

use crate::{
    failure::Failure,
    out,
    view::{Form, template::Template, value},
};

/// A listing's rows; `table` prints them where nothing else is asked for. `id` is what Docker's tables call the ids.
pub(crate) fn rows<R: Serialize>(
    form: Option<&Form>,
    id: &str,
    rows: &[R],
    table: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    match form {
        None | Some(Form::Table) => table(),
        Some(Form::Json) => rows.iter().try_for_each(out::json),
        Some(Form::Template(template)) => by(template, id, rows.iter().map(value)),
    }
}

/// What `inspect` prints: an array, unless one by one is asked for.
pub(super) fn inspected(form: Option<&Form>, values: &[Value]) -> Result<(), Failure> {
    match form {
        None | Some(Form::Table) => out::json_array(values),
        Some(Form::Json) => values.iter().try_for_each(out::json),
        Some(Form::Template(template)) => by(template, "ID", values.iter().cloned()),
    }
}

/// One thing, which is told in words where nothing else is asked for.
pub(super) fn one(
    form: Option<&Form>,
    of: &impl Serialize,
    words: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    match form {
        None | Some(Form::Table) => words(),
        Some(Form::Json) => out::json(of),
        Some(Form::Template(template)) => by(template, "ID", [value(of)]),
    }
}

/// A line for each value; aligned if it is that of a table.
fn by(template: &Template, id: &str, values: impl IntoIterator<Item = Value>) -> Result<(), Failure> {
    let render = |value| template.render(&value).map_err(|why| Failure::usage(format!("format: {why}")));
    let lines = values.into_iter().map(render).collect::<Result<Vec<String>, Failure>>()?;
    if !template.is_table {
        return lines.iter().try_for_each(out::line);
    }
    let cells = |line: &String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let header = cells(&template.header(id));
    out::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), lines.iter().map(cells).collect())
}
