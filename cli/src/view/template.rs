//! Templates such as `{{.Name}}`: of Go's text/template what Docker's users write, by Go's rules of truth, blanks and
//! printing. Docker's functions, too, and its word `table` in front. Not there: `define`, `template`, `block`, `break`,
//! `continue`, `call`, and what escapes for web pages. Apart from Go, a field that is not there is an error that names
//! those that are. Our own, for the one crate that has Go's templates renders what is missing as an error in the middle.

mod compare;
mod eval;
mod functions;
mod header;
mod lex;
mod parse;
mod printf;
#[cfg(test)]
mod tests;

use parse::Node;
use serde_json::Value;

/// What `--format` says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    nodes: Vec<Node>,
    pub(crate) is_table: bool,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (is_table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Self { nodes: parse::parse(text)?, is_table })
    }

    pub(crate) fn render(&self, value: &Value) -> Result<String, String> {
        eval::render(&self.nodes, value)
    }

    /// Of a table, in Docker's words. What has ids calls them in its own: `NETWORK ID`.
    pub(crate) fn header(&self, id: &str) -> String {
        header::header(&self.nodes, id)
    }
}
