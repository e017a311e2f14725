//! JSON Pointers (RFC 6901): where a value is in a document.
use crate::json::Value;

/// A step into an object or an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    index: Option<usize>,
}

impl Token {
    fn new(text: String) -> Self {
        // RFC 6901: digits without a leading zero.
        let is_index = text == "0"
            || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        let index = if is_index { text.parse().ok() } else { None };
        Self { text, index }
    }

    /// As the member of an object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As the element of an array, from 0; None where it can be none.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// `-`: behind the last element of an array.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.text == "-"
    }
}

/// A checked pointer. The empty one points to the whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<Token>,
}

/// The most steps of a pointer.
const MOST_TOKENS: usize = 64;

impl Pointer {
    /// Reads `""` or `/a/b~1c`; `~0` stands for `~`, `~1` for `/`.
    ///
    /// # Errors
    /// What it must be, for a message: "must …".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("must be a JSON Pointer, which begins with /".into());
        };
        let tokens = rest.split('/').map(|token| unescaped(token).map(Token::new)).collect::<Result<Vec<_>, _>>()?;
        if tokens.len() > MOST_TOKENS {
            return Err(format!("must have at most {MOST_TOKENS} steps, not {}", tokens.len()));
        }
        Ok(Self { tokens })
    }

    /// The steps from the document's root on.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.iter()
    }

    /// What it points to, if there is such a value.
    #[must_use]
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.tokens.iter().try_fold(document, |value, token| match value {
            Value::Object(members) => members.get(token.as_str()),
            Value::Array(elements) => elements.get(token.index()?),
            _ => None,
        })
    }

    /// The steps to the parent, and the last one; None for the whole document.
    pub(super) fn split(&self) -> Option<(&[Token], &Token)> {
        self.tokens.split_last().map(|(last, parents)| (parents, last))
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", escaped(token.as_str())))
    }
}

/// A token as it stands in a pointer.
pub(super) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn unescaped(token: &str) -> Result<String, String> {
    let mut text = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match character {
            '~' => match characters.next() {
                Some('0') => text.push('~'),
                Some('1') => text.push('/'),
                _ => return Err("must be a JSON Pointer, in which ~ is followed by 0 or 1".into()),
            },
            other => text.push(other),
        }
    }
    Ok(text)
}
