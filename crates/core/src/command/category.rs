//! What a category asks of whatever is appended to it. Owns the rules that need no look at the log, their settings and their words; when they are asked,
//! and the rule that needs a fold, are src/command's.
//!
//! Promises: a rule that is broken is said with what to do; what looks like personal data is never repeated; judging takes time that grows with the
//! length of names only.

use crate::argument::Argument;
use crate::broken::Broken;
use crate::command::personal::{Looks, looks_like};
use crate::error::{Error, Result};
use crate::event_id::{from_ulid_text, to_ulid_text};
use crate::name::{EventType, StreamName};
use crate::options::CategorySettings;
use crate::quote::{quote_literal, shown};
use crate::word::{CategoryRule, Needed, PersonalNames, TypesTaken};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::cell::OnceCell;

/// The longest pattern, in bytes.
const MOST_PATTERN_BYTES: usize = 1000;
/// The most bytes of a pattern that is made ready: what matching takes grows with it.
const MOST_READY_BYTES: usize = 128 << 10;

/// What one category asks.
#[derive(Debug, Default)]
pub struct CategoryRules {
    asked: Vec<CategoryRule>,
    id_pattern: Option<IdPattern>,
    /// In microseconds.
    max_future: Option<i64>,
}

/// An append to one stream.
#[derive(Debug, Clone, Copy)]
pub struct ToStream<'a> {
    #[allow(missing_docs)]
    pub stream: StreamName<'a>,
    /// Whether it has no events yet.
    pub is_new: bool,
    /// Whether something keeps what it was decided on: an expected version, or a lock.
    pub is_kept: bool,
}

/// One event of it.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the fields are what their names say
pub struct OneEvent<'a> {
    pub event_type: &'a str,
    pub tags: &'a [&'a str],
    pub is_declared: bool,
    /// Why nobody is named who acts: "name no actor".
    pub without_actor: Option<&'static str>,
    pub has_id: bool,
    /// In microseconds, how far ahead of the clock it says it occurred.
    pub ahead: i64,
}

/// What follows the category in a stream's name.
#[derive(Debug)]
enum IdPattern {
    Uuid,
    Ulid,
    Regex { pattern: String, ready: OnceCell<Result<Regex>> },
}

impl IdPattern {
    /// Looks at it only when it is needed.
    fn new(pattern: &str) -> Self {
        match pattern {
            "uuid" => Self::Uuid,
            "ulid" => Self::Ulid,
            pattern => Self::Regex { pattern: pattern.to_owned(), ready: OnceCell::new() },
        }
    }

    fn checked(pattern: &str) -> Result<Self> {
        let checked = Self::new(pattern);
        checked.ready()?;
        Ok(checked)
    }

    fn ready(&self) -> Result<Option<&Regex>> {
        let Self::Regex { pattern, ready } = self else { return Ok(None) };
        Ok(Some(ready.get_or_init(|| compiled(pattern)).as_ref().map_err(Clone::clone)?))
    }

    /// None: it is one. Of several spellings of one id only that of PostgreSQL, or of the ULIDs' specification, names a stream.
    fn fault(&self, id: &str) -> Result<Option<String>> {
        Ok(match self {
            Self::Uuid if !is_uuid(id) => Some("is no uuid, in small letters, as PostgreSQL prints one".into()),
            Self::Ulid if !is_ulid(id) => {
                Some("is no ULID, in capital letters, as es_new_event_id() and es_ulid make one".into())
            }
            Self::Regex { pattern, .. } => match self.ready()? {
                Some(regex) if !regex.is_match(id) => Some(format!("does not match {}", shown(pattern))),
                _ => None,
            },
            _ => None,
        })
    }
}

/// The whole of a text is to match.
fn compiled(pattern: &str) -> Result<Regex> {
    let mistake = |reason: String| Error::InvalidArgument { argument: "id_pattern".into(), reason, hint: None };
    if pattern.is_empty() || pattern.len() > MOST_PATTERN_BYTES {
        return Err(mistake(format!("must have 1 to {MOST_PATTERN_BYTES} bytes, not {}", pattern.len())));
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern).size_limit(MOST_READY_BYTES).dfa_size_limit(MOST_READY_BYTES).build().map_err(|_| {
            mistake(format!(
                "must be uuid, ulid, or a regular expression without references back and looks around, of at most {MOST_READY_BYTES} bytes when it is \
                 compiled, not {}",
                shown(pattern)
            ))
        })
    };
    // By itself first: what closes a group that it did not open would get out of ours.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn is_ulid(id: &str) -> bool {
    from_ulid_text(id).is_ok_and(|read| to_ulid_text(read) == id)
}

impl CategorySettings<'_> {
    /// By the rules' names.
    fn texts(&self) -> [(CategoryRule, Option<Option<&str>>); 8] {
        [
            (CategoryRule::EventTypes, self.event_types),
            (CategoryRule::ExpectedVersion, self.expected_version),
            (CategoryRule::Actor, self.actor),
            (CategoryRule::EventId, self.event_id),
            (CategoryRule::IdPattern, self.id_pattern),
            (CategoryRule::Foldable, self.foldable),
            (CategoryRule::MaxFuture, self.max_future),
            (CategoryRule::PersonalData, self.personal_data),
        ]
    }

    /// What of them changes in a row of settings that keeps nothing of defaults: null takes a key away.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which names the key.
    pub fn changes(&self) -> Result<Value> {
        let mut changes = Map::new();
        for (rule, text) in self.texts() {
            let Some(text) = text else { continue };
            let is_default = match text {
                None => true,
                Some(text) => is_default(rule, text)?,
            };
            changes.insert(rule.as_str().into(), text.filter(|_| !is_default).into());
        }
        Ok(changes.into())
    }
}

fn is_default(rule: CategoryRule, text: &str) -> Result<bool> {
    let key = rule.as_str();
    Ok(match rule {
        CategoryRule::EventTypes => TypesTaken::parse(key, text)? == TypesTaken::Any,
        CategoryRule::PersonalData => PersonalNames::parse(key, text)? == PersonalNames::Any,
        CategoryRule::IdPattern => IdPattern::checked(text).map(|_| false)?,
        CategoryRule::MaxFuture => false,
        _ => Needed::parse(key, text)? == Needed::Optional,
    })
}

impl CategoryRules {
    /// As its row says; `max_future` in microseconds.
    #[must_use]
    pub fn new(settings: &CategorySettings, max_future: Option<i64>) -> Self {
        let asked = settings.texts().into_iter().filter(|(_, text)| text.flatten().is_some()).map(|(rule, _)| rule);
        Self { asked: asked.collect(), id_pattern: settings.id_pattern.flatten().map(IdPattern::new), max_future }
    }

    /// Whether it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether a rule is asked.
    #[must_use]
    pub fn asks(&self, rule: CategoryRule) -> bool {
        self.asked.contains(&rule)
    }

    /// Whether an append to that stream is refused, whatever its events are. What a stream is called is judged when it is begun, and of one that is there no
    /// more.
    ///
    /// # Errors
    /// [`Error::RuleBroken`].
    pub fn judge_stream(&self, to: ToStream) -> Result<()> {
        if to.is_new && self.asks(CategoryRule::PersonalData) {
            refuse_personal_name(to.stream)?;
        }
        if let Some(pattern) = self.id_pattern.as_ref().filter(|_| to.is_new)
            && let Some(fault) = pattern.fault(to.stream.id())?
        {
            let category = to.stream.category();
            let hint = format!(
                "How streams of the category are called: select id_pattern from eventstream.categories where category = {};",
                quote_literal(category)
            );
            let reason = format!("what follows the category {fault}");
            return Err(broken(
                CategoryRule::IdPattern,
                format!("stream {}", shown(to.stream.as_str())),
                to.stream,
                reason,
                hint,
            ));
        }
        if !to.is_kept && self.asks(CategoryRule::ExpectedVersion) {
            let hint = format!(
                "Give the version that you decided on as expected_version; 0: the stream has no events yet. What it is by now: select es_stream_version({});",
                quote_literal(to.stream.as_str())
            );
            let what = format!("the append to stream {}", shown(to.stream.as_str()));
            return Err(broken(
                CategoryRule::ExpectedVersion,
                what,
                to.stream,
                "it has no expected_version".into(),
                hint,
            ));
        }
        Ok(())
    }

    /// Whether a command is refused from which events for that stream follow: its key, and the names of the streams that it was decided on, are told of in their metadata.
    ///
    /// # Errors
    /// [`Error::RuleBroken`].
    pub fn judge_command<'a>(
        &self,
        stream: StreamName,
        key: Option<&str>,
        mut decided_on: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        if !self.asks(CategoryRule::PersonalData) {
            return Ok(());
        }
        let of_key = key.and_then(looks_like).map(|looks| ("its command_key looks", looks));
        let of_name = || {
            decided_on
                .find_map(name_looks_like)
                .map(|looks| ("it is decided on, or begins, a stream whose name looks", looks))
        };
        let Some((which, looks)) = of_key.or_else(of_name) else { return Ok(()) };
        Err(Error::RuleBroken(Box::new(Broken {
            what: "the command".into(),
            rule: CategoryRule::PersonalData,
            category: stream.category().into(),
            stream: None,
            reason: format!("{which} like {looks}"),
            hint: PERSONAL_HINT.into(),
            failed: None,
            undeclared: None,
        })))
    }

    /// Whether the event at that place (from 0 on) of an append to that stream is refused. That a stream is closed is told by an event of eventstream's own, of
    /// which neither declaration nor id is asked.
    ///
    /// # Errors
    /// [`Error::RuleBroken`].
    pub fn judge_event(&self, stream: StreamName, place: usize, event: &OneEvent) -> Result<()> {
        if self.asks(CategoryRule::PersonalData) {
            refuse_personal_labels(stream, place, event)?;
        }
        let is_own = event.event_type == EventType::STREAM_CLOSED;
        let refused = |rule, reason: String, hint: String| {
            Err(broken(
                rule,
                format!("event {} for stream {}", place + 1, shown(stream.as_str())),
                stream,
                reason,
                hint,
            ))
        };
        if self.asks(CategoryRule::EventTypes) && !event.is_declared && !is_own {
            let reason = format!("event type {} is not declared", shown(event.event_type));
            let (what, hint) = (format!("event {} for stream {}", place + 1, shown(stream.as_str())), String::new());
            let mut broken = Broken::of(CategoryRule::EventTypes, what, named(stream), reason, hint);
            broken.undeclared = Some(event.event_type.into());
            broken.suggest(&[]);
            return Err(Error::RuleBroken(Box::new(broken)));
        }
        if let Some(why) = event.without_actor.filter(|_| self.asks(CategoryRule::Actor)) {
            return refused(CategoryRule::Actor, format!("its metadata {why}"), ACTOR_HINT.into());
        }
        if self.asks(CategoryRule::EventId) && !event.has_id && !is_own {
            return refused(CategoryRule::EventId, "it has no event_id".into(), EVENT_ID_HINT.into());
        }
        match self.max_future {
            Some(most) if event.ahead > most => {
                let (ahead, most) = (seconds(event.ahead), seconds(most));
                let reason = format!("it occurred {ahead} seconds ahead of the clock, more than {most}");
                refused(CategoryRule::MaxFuture, reason, FUTURE_HINT.into())
            }
            _ => Ok(()),
        }
    }
}

const ACTOR_HINT: &str = "Say who acts, in each event's metadata ({\"actor\": \"…\"}) or for the session: set eventstream.metadata = '{\"actor\": \"user-17\"}';";
const EVENT_ID_HINT: &str = "Give an event_id, made once (select es_new_event_id();), and the same one again where an answer was lost: then it is recorded once.";
const FUTURE_HINT: &str = "Record it when it has occurred, or say in the payload for when it is meant.";
const PERSONAL_HINT: &str = "Names are kept for ever: use an id that says nothing by itself, and put what may have to be erased into the payload of an event.";

/// Rounded up, so that what is too much is more than what may be.
fn seconds(microseconds: i64) -> i64 {
    microseconds / 1_000_000 + i64::from(microseconds % 1_000_000 > 0)
}

fn named<'a>(stream: StreamName<'a>) -> (&'a str, &'a str) {
    (stream.category(), stream.as_str())
}

fn broken(rule: CategoryRule, what: String, stream: StreamName, reason: String, hint: String) -> Error {
    Error::RuleBroken(Box::new(Broken::of(rule, what, named(stream), reason, hint)))
}

fn name_looks_like(name: &str) -> Option<Looks> {
    StreamName::parse_own(name).ok().and_then(looks_personal)
}

fn looks_personal(stream: StreamName) -> Option<Looks> {
    looks_like(stream.category()).or_else(|| looks_like(stream.id()))
}

fn refuse_personal_name(stream: StreamName) -> Result<()> {
    let Some(looks) = looks_personal(stream) else { return Ok(()) };
    // The category has the rule, and so was named before.
    Err(Error::RuleBroken(Box::new(Broken {
        what: "the name of a new stream".into(),
        rule: CategoryRule::PersonalData,
        category: stream.category().into(),
        stream: None,
        reason: format!("it looks like {looks}"),
        hint: PERSONAL_HINT.into(),
        failed: None,
        undeclared: None,
    })))
}

fn refuse_personal_labels(stream: StreamName, place: usize, event: &OneEvent) -> Result<()> {
    let of_tags = || event.tags.iter().find_map(|tag| looks_like(tag)).map(|looks| ("a tag", looks));
    let Some((which, looks)) = looks_like(event.event_type).map(|looks| ("an event type", looks)).or_else(of_tags)
    else {
        return Ok(());
    };
    let stream_told = looks_personal(stream).is_none().then(|| stream.as_str().to_owned());
    let for_stream = stream_told.as_deref().map(|stream| format!(" for stream {}", shown(stream))).unwrap_or_default();
    Err(Error::RuleBroken(Box::new(Broken {
        what: format!("event {}{for_stream}", place + 1),
        rule: CategoryRule::PersonalData,
        category: stream.category().into(),
        stream: stream_told,
        reason: format!("it has {which} that looks like {looks}"),
        hint: PERSONAL_HINT.into(),
        failed: None,
        undeclared: None,
    })))
}
