//! The first line of a template's table.

use super::parse::{Node, Pipeline, Term};

/// Where Docker's words are not the field's own.
const KNOWN: [(&str, &str); 6] = [
    ("RunningFor", "CREATED"),
    ("CreatedSince", "CREATED"),
    ("CPUPerc", "CPU %"),
    ("MemPerc", "MEM %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("PIDs", "PIDS"),
];

pub(super) fn header(nodes: &[Node], id: &str) -> String {
    let part = |node: &Node| match node {
        Node::Text(text) => text.clone(),
        Node::Show(pipeline) if pipeline.variables.is_empty() => of_pipeline(pipeline, id),
        Node::Show(_) => String::new(),
        Node::If { then, .. } => header(then, id),
        Node::With { of, .. } | Node::Range { over: of, .. } => of_pipeline(of, id),
    };
    nodes.iter().map(part).collect()
}

/// That of the last field that is named.
fn of_pipeline(pipeline: &Pipeline, id: &str) -> String {
    let words = pipeline.commands.iter().flat_map(|c| std::iter::once(&c.first).chain(&c.arguments));
    let named: Vec<String> = words.filter_map(|term| of_term(term, id)).collect();
    named.last().cloned().unwrap_or_default()
}

fn of_term(term: &Term, id: &str) -> Option<String> {
    match term {
        Term::Fields(_, names) => names.last().map(|name| of_field(name, id)),
        Term::Group(pipeline) => Some(of_pipeline(pipeline, id)).filter(|h| !h.is_empty()),
        Term::Dot | Term::Variable(_) | Term::Literal(_) | Term::Function(_) => None,
    }
}

fn of_field(name: &str, id: &str) -> String {
    if name == "ID" {
        return id.to_owned();
    }
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return (*known).to_owned();
    }
    // CreatedAt is CREATED AT, and IPv6 is IPV6.
    let mut out = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            out.push(' ');
        }
        if c != '_' {
            out.extend(c.to_uppercase());
        }
        before = c;
    }
    out
}
