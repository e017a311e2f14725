//! Numbers as strings, for readers whose numbers cannot hold them: `?numbers=string`. Pure text: no number is parsed.

/// `document` with each number in it as a string of the same characters. `document` is JSON.
pub fn as_strings(document: &str) -> String {
    let mut written = String::with_capacity(document.len() + document.len() / 8);
    let mut rest = document;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '-' | '0'..='9' => number_length(rest),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if first == '-' || first.is_ascii_digit() {
            written.push('"');
            written.push_str(token);
            written.push('"');
        } else {
            written.push_str(token);
        }
        rest = after;
    }
    written
}

/// How long the string is that `text` begins with, its quotes included.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_length(text: &str) -> usize {
    text.bytes().take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count()
}
