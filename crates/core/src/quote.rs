//! How a value is shown to people: as a SQL literal in a statement they may paste, and shortened in a message.
//! Promises that a pasted literal means the same value and that a message stays short. Used by `error` and `name`.

/// Longest part of an offending value that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// `text` as a SQL string literal, as PostgreSQL's `quote_literal` writes it (src/backend/utils/adt/quote.c):
/// quotes doubled, and an `E''` string with doubled backslashes where there is a backslash.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') { format!("E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// `1 event`, `2 events`: a count with its noun, `one` where there is one.
#[must_use]
pub fn counted(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `name` as a SQL identifier, always in quotes.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` cut to [`SHOWN_CHARS`] characters, an ellipsis in place of the rest: an argument may have a gigabyte.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` as a message shows what a caller gave: in double quotes, control characters escaped, cut to a readable length.
#[must_use]
pub fn shown(text: &str) -> String {
    format!("{:?}", shortened(text))
}
