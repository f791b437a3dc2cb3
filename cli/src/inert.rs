//! Text from other hosts and from containers, made harmless to a terminal. A name, a message or a log line could
//! otherwise move the cursor, set the window's title, write to the clipboard (OSC 52) or hide what it says.

use std::fmt::Write as _;

/// For tables, messages and results: line breaks and tabs stay, all other control characters are spelled out.
pub(crate) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        push(&mut out, c);
    }
    out
}

/// For what a container wrote to its log: as [`text`], but colours stay. They change how text looks and nothing else.
pub(crate) fn log(raw: &[u8]) -> Vec<u8> {
    let raw = String::from_utf8_lossy(raw);
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw.as_ref();
    let mut coloured = false;
    while let Some(c) = rest.chars().next() {
        let colour = colour(rest);
        if colour > 0 {
            out.push_str(&rest[..colour]);
            rest = &rest[colour..];
            coloured = true;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if c == '\n' && coloured {
            // The next line is another task's, perhaps.
            out.push_str("\u{1b}[0m");
            coloured = false;
        }
        // A line of Windows.
        if !(c == '\r' && rest.starts_with('\n')) {
            push(&mut out, c);
        }
    }
    out.into_bytes()
}

/// The length of the colour that this begins with (ECMA-48 SGR), or 0.
fn colour(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || matches!(c, ';' | ':')));
    match end {
        Some(end) if parameters[end..].starts_with('m') => "\u{1b}[".len() + end + 1,
        Some(_) | None => 0,
    }
}

fn push(out: &mut String, c: char) {
    let spelled = match c {
        '\n' | '\t' => false,
        // C0, DEL and C1.
        c if c.is_control() => true,
        // What changes the direction of writing, and line ends that only some programs see (Unicode TR 36).
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    };
    if spelled {
        // A String takes all that is written to it.
        let _ = write!(out, "{}", c.escape_unicode());
    } else {
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_hides() {
        for (raw, inert) in [
            ("web häuschen\t1\n", "web häuschen\t1\n"),
            ("a\u{1b}]0;title\u{7}b", "a\\u{1b}]0;title\\u{7}b"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("c1\u{9b}2J", "c1\\u{9b}2J"),
            ("a\rb\u{8}\u{7f}", "a\\u{d}b\\u{8}\\u{7f}"),
            ("gnp.\u{202e}exe", "gnp.\\u{202e}exe"),
        ] {
            assert_eq!(text(raw), inert);
        }
    }

    #[test]
    fn logs_keep_their_colours_to_the_end_of_the_line() {
        let shown = |raw: &str| String::from_utf8(log(raw.as_bytes())).unwrap();
        assert_eq!(shown("\u{1b}[1;31mred\n"), "\u{1b}[1;31mred\u{1b}[0m\n");
        assert_eq!(shown("plain\r\n"), "plain\n");
        assert_eq!(shown("10%\r20%\n"), "10%\\u{d}20%\n");
        assert_eq!(shown("\u{1b}[2J\u{1b}[;H\u{1b}]52;c;aGk=\u{7}\n"), "\\u{1b}[2J\\u{1b}[;H\\u{1b}]52;c;aGk=\\u{7}\n");
        assert_eq!(log(b"\xff\x9b2Jx"), "\u{fffd}\u{fffd}2Jx".as_bytes());
    }
}
