//! Text and actions, and the tokens of an action.

/// What one action is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `.` alone
    Dot,
    /// `.Name`
    Field(String),
    /// `.Name` right behind what it is a field of
    Sub(String),
    /// `$name`; empty: `$`, which is where the template began.
    Variable(String),
    Word(String),
    Text(String),
    Number(i64),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, trims_before) = match after.strip_prefix('-').filter(|r| r.starts_with(char::is_whitespace)) {
            Some(inside) => (inside, true),
            None => (after, false),
        };
        push_text(&mut pieces, before, trim, trims_before);
        let whole = || format!("{:?} has no end", shortened(&rest[before.len()..]));
        let (tokens, end) = match inside.trim_start().strip_prefix("/*") {
            Some(comment) => (None, comment.split_once("*/").ok_or_else(whole)?.1),
            None => {
                let (tokens, end) = action(inside)?.ok_or_else(whole)?;
                (Some(tokens), end)
            }
        };
        let closed = end.trim_start();
        (rest, trim) = match (closed.strip_prefix("-}}"), closed.strip_prefix("}}")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            (None, None) => return Err(format!("a comment is an action of its own: {:?}", shortened(end))),
        };
        pieces.extend(tokens.map(Piece::Action));
    }
    push_text(&mut pieces, rest, trim, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        // Docker's users write these in single quotes, where their shell leaves them alone.
        pieces.push(Piece::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

/// The tokens up to, and the text from, the braces that close; none: they do not come.
fn action(text: &str) -> Result<Option<(Vec<Token>, &str)>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let at = rest.trim_start();
        let blank = at.len() < rest.len();
        let Some(first) = at.chars().next() else { return Ok(None) };
        if at.starts_with("}}") || (blank && at.starts_with("-}}")) {
            return Ok(Some((tokens, at)));
        }
        let (token, after) = match first {
            '"' => match quoted(at)? {
                Some((text, after)) => (Token::Text(text), after),
                None => return Ok(None),
            },
            '`' => match at[1..].split_once('`') {
                Some((text, after)) => (Token::Text(text.to_owned()), after),
                None => return Ok(None),
            },
            '(' => (Token::Open, &at[1..]),
            ')' => (Token::Close, &at[1..]),
            '|' => (Token::Pipe, &at[1..]),
            ',' => (Token::Comma, &at[1..]),
            '=' => (Token::Assign, &at[1..]),
            ':' if at.starts_with(":=") => (Token::Declare, &at[2..]),
            '.' => {
                let (name, after) = name(&at[1..]);
                // Blanks tell the two fields of `.A .B` from the one of `.A.B`.
                let is_sub = !blank
                    && matches!(
                        tokens.last(),
                        Some(Token::Field(_) | Token::Sub(_) | Token::Variable(_) | Token::Close)
                    );
                match (name, is_sub) {
                    ("", true) => return Err(format!("a field's name is missing at {:?}", shortened(at))),
                    ("", false) => (Token::Dot, after),
                    (name, true) => (Token::Sub(name.to_owned()), after),
                    (name, false) => (Token::Field(name.to_owned()), after),
                }
            }
            '$' => {
                let (name, after) = name(&at[1..]);
                (Token::Variable(name.to_owned()), after)
            }
            '-' | '+' | '0'..='9' => number(at)?,
            c if c.is_alphabetic() || c == '_' => {
                let (name, after) = name(at);
                (Token::Word(name.to_owned()), after)
            }
            _ => return Err(format!("{:?} is not understood: fields are written {{{{.Name}}}}", shortened(at))),
        };
        tokens.push(token);
        rest = after;
    }
}

fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let end = text[sign..].find(|c: char| !c.is_alphanumeric() && c != '.' && c != '_').map(|n| n + sign);
    let (digits, after) = text.split_at(end.unwrap_or(text.len()));
    let number = digits.parse().map_err(|_| format!("{:?} is no whole number", shortened(digits)))?;
    Ok((Token::Number(number), after))
}

/// What is between double quotes, and what follows; none: they are not closed.
fn quoted(text: &str) -> Result<Option<(String, &str)>, String> {
    let mut out = String::new();
    let mut chars = text[1..].chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(Some((out, chars.as_str()))),
            '\\' => {
                let Some(escaped) = chars.next() else { return Ok(None) };
                out.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '"' | '\\' => escaped,
                    'x' => code(&mut chars, 2)?,
                    'u' => code(&mut chars, 4)?,
                    'U' => code(&mut chars, 8)?,
                    other => {
                        return Err(format!("\\{other} stands for nothing: there are \\n \\t \\r \\\" \\\\ \\x \\u"));
                    }
                });
            }
            c => out.push(c),
        }
    }
    Ok(None)
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Result<char, String> {
    let text: String = chars.take(digits).collect();
    let code = Some(text.as_str()).filter(|t| t.len() == digits).and_then(|t| u32::from_str_radix(t, 16).ok());
    code.and_then(char::from_u32).ok_or_else(|| format!("{text:?} is no character's number of {digits} digits"))
}

/// So much of it as shows where it is.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
