//! Text from elsewhere, kept within a limit.

/// At most `bytes` of the text. Where something is missing, the end says how much.
pub fn cut(text: String, bytes: usize) -> String {
    if text.len() <= bytes {
        return text;
    }
    let mark = format!(" … (cut: {} bytes in all)", text.len());
    let room = bytes.saturating_sub(mark.len());
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{mark}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so_and_stays_within_the_limit() {
        assert_eq!(cut("short".to_owned(), 5), "short");
        let long = "ä".repeat(1000);
        let cut = cut(long, 101);
        assert!(cut.len() <= 101 && cut.starts_with("ää") && cut.ends_with("ä … (cut: 2000 bytes in all)"), "{cut}");
    }
}
