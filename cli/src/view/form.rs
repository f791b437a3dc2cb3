//! What `--format` asks for.

use std::str::FromStr;

use super::template::Template;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// One object a line.
    Json,
    /// As without the flag.
    Table,
    Template(Template),
}

impl FromStr for Form {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "json" => Ok(Self::Json),
            "table" => Ok(Self::Table),
            template => Template::parse(template).map(Self::Template),
        }
    }
}
