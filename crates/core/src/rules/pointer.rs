//! JSON Pointers (RFC 6901): where a value is in a document.
use crate::json::Value;
use std::borrow::Cow;

/// A step into an object or an array.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    text: String,
    index: Option<usize>,
    /// It came from an event: the member of an object, whatever it looks like.
    is_key: bool,
}

impl Token {
    fn new(text: String) -> Self {
        // RFC 6901: digits without a leading zero.
        let is_index = text == "0"
            || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        let index = if is_index { text.parse().ok() } else { None };
        Self { text, index, is_key: false }
    }

    fn key(text: String) -> Self {
        Self { text, index: None, is_key: true }
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
        self.text == "-" && !self.is_key
    }
}

/// A checked pointer. The empty one points to the whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
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

    /// The same, to be changed.
    pub(super) fn find_mut<'a>(&self, document: &'a mut Value) -> Option<&'a mut Value> {
        self.tokens.iter().try_fold(document, |value, token| match value {
            Value::Object(members) => members.get_mut(token.as_str()),
            Value::Array(elements) => elements.get_mut(token.index()?),
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

/// A pointer of which steps may be keys that an event's payload names: `/balances/{/currency}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Fixed(Pointer),
    Keyed(Vec<Step>),
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Named(Token),
    /// The string that the pointer finds in the payload.
    Key(Pointer),
}

/// How a key is written, for messages.
const KEY_RULE: &str = "must be a JSON Pointer, in which { and } stand only around a whole step that is a key from the payload: /balances/{/currency}";

impl Path {
    /// Reads a pointer, or one with keys.
    ///
    /// # Errors
    /// What it must be, for a message: "must …".
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(['{', '}']) {
            return Pointer::parse(text).map(Self::Fixed);
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let step = rest.strip_prefix('/').ok_or(KEY_RULE)?;
            if let Some(inner) = step.strip_prefix('{') {
                let (key, after) = inner.split_once('}').ok_or(KEY_RULE)?;
                if !key.starts_with('/') || key.contains('{') {
                    return Err(KEY_RULE.into());
                }
                steps.push(Step::Key(Pointer::parse(key)?));
                rest = after;
            } else {
                let (name, after) = step.split_at(step.find('/').unwrap_or(step.len()));
                if name.contains(['{', '}']) {
                    return Err(KEY_RULE.into());
                }
                steps.push(Step::Named(Token::new(unescaped(name)?)));
                rest = after;
            }
        }
        if steps.len() > MOST_TOKENS {
            return Err(format!("must have at most {MOST_TOKENS} steps, not {}", steps.len()));
        }
        Ok(Self::Keyed(steps))
    }

    /// How many steps it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fixed(pointer) => pointer.len(),
            Self::Keyed(steps) => steps.len(),
        }
    }

    /// Whether it names a place behind the last element of an array.
    pub(super) fn has_end(&self) -> bool {
        match self {
            Self::Fixed(pointer) => pointer.tokens.iter().any(Token::is_end),
            Self::Keyed(steps) => steps.iter().any(|step| matches!(step, Step::Named(token) if token.is_end())),
        }
    }

    /// Whether the one may lie within the other, or be it, for some event.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        self.steps().zip(other.steps()).all(|(a, b)| match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        })
    }

    /// The steps that are fixed; None for a key.
    fn steps(&self) -> impl Iterator<Item = Option<&str>> {
        let (fixed, keyed) = match self {
            Self::Fixed(pointer) => (pointer.tokens.as_slice(), [].as_slice()),
            Self::Keyed(steps) => ([].as_slice(), steps.as_slice()),
        };
        let keyed = keyed.iter().map(|step| match step {
            Step::Named(token) => Some(token.as_str()),
            Step::Key(_) => None,
        });
        fixed.iter().map(|token| Some(token.as_str())).chain(keyed)
    }

    /// Where the keys are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Pointer> {
        let steps = match self {
            Self::Fixed(_) => [].as_slice(),
            Self::Keyed(steps) => steps.as_slice(),
        };
        steps.iter().filter_map(|step| match step {
            Step::Named(_) => None,
            Step::Key(pointer) => Some(pointer),
        })
    }

    /// The pointer, once the keys are known: `key` gives what a pointer into the payload finds.
    pub(super) fn pointer<E>(&self, mut key: impl FnMut(&Pointer) -> Result<String, E>) -> Result<Cow<'_, Pointer>, E> {
        match self {
            Self::Fixed(pointer) => Ok(Cow::Borrowed(pointer)),
            Self::Keyed(steps) => {
                let token = |step: &Step| match step {
                    Step::Named(token) => Ok(token.clone()),
                    Step::Key(pointer) => key(pointer).map(Token::key),
                };
                let tokens = steps.iter().map(token).collect::<Result<Vec<_>, E>>()?;
                Ok(Cow::Owned(Pointer { tokens }))
            }
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(pointer) if pointer.len() == 0 => f.write_str("\"\""),
            Self::Fixed(pointer) => pointer.fmt(f),
            Self::Keyed(steps) => steps.iter().try_for_each(|step| match step {
                Step::Named(token) => write!(f, "/{}", escaped(token.as_str())),
                Step::Key(pointer) => write!(f, "/{{{pointer}}}"),
            }),
        }
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
