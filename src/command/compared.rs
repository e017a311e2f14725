//! What a test expected, and what came: events, states, a result, or an error. The caller must be allowed to read what he compares.
use crate::access::{authorize, authorize_tenant};
use crate::log::event::moment_of;
use crate::log::filter::Filter;
use crate::log::target::Target;
use crate::pg::error::failure::{Caught, Result, invalid};
use crate::pg::jsonb::{Jsonb, Shape};
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::View;
use crate::present::door::Door;
use crate::present::event::{Event, StoredEvent, field};
use crate::present::protected::Protected;
use crate::present::upcasters;
use crate::projection::events::{self, Wanted};
use crate::shared::trial;
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::folds;
use crate::state::moment::Moment;
use eventstream_core::command::trial::{Differences, FIELDS, canonical_id, is_sqlstate, shown};
use eventstream_core::document;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::name::{StreamName, check_label};
use eventstream_core::privilege::Privilege;
use eventstream_core::protect::Cover;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;

/// The largest document that is compared, in bytes as text: it is held as a tree.
const MOST_BYTES: u64 = 1 << 20;
/// So many events are named where their number is another one.
const MOST_NAMED: usize = 10;

/// What a test expects; None: whatever comes.
pub struct Expected {
    events: Option<Vec<Map<String, Value>>>,
    error: Option<String>,
    states: Option<Map<String, Value>>,
    result: Option<Value>,
}

/// What came of the act.
pub struct Outcome {
    pub acted: std::result::Result<Option<Value>, Caught>,
    /// How many positions the test had taken before.
    pub begun: usize,
    /// Whether fields of the result are protected.
    pub is_protected: bool,
}

impl Expected {
    /// Errors: ES004, ES005.
    pub fn read(
        events: Option<Jsonb>,
        error: Option<&str>,
        states: Option<Jsonb>,
        result: Option<Jsonb>,
    ) -> Result<Self> {
        if error.is_some() && result.is_some() {
            return Err(invalid("result", "must be NULL where there is an error: what fails has no result"));
        }
        Ok(Self {
            events: events.map(read_events).transpose()?,
            error: error.map(|code| check_label("error", code).map(ToOwned::to_owned)).transpose()?,
            states: states.map(read_states).transpose()?,
            result: result.map(|result| parse("result", result)).transpose()?,
        })
    }

    /// Whether a result is compared: else nobody needs it, however large it is.
    pub fn has_result(&self) -> bool {
        self.result.is_some()
    }
}

/// A document as a tree whose numbers are what they are. Errors: ES005 where it is too large, or too deep.
pub fn parse(argument: &str, document: Jsonb) -> Result<Value> {
    if document.measure(MOST_BYTES)?.bytes > MOST_BYTES {
        return Err(invalid(argument, format!("must have at most {MOST_BYTES} bytes")));
    }
    document::read(&String::from_utf8_lossy(document.text()?))
        .map_err(|_| invalid(argument, "must not be nested deeper than 127 levels"))
}

fn read_states(states: Jsonb) -> Result<Map<String, Value>> {
    let Value::Object(states) = parse("states", states)? else {
        return Err(invalid("states", "must be a JSON object: of each stream, by its name, its state"));
    };
    for name in states.keys() {
        StreamName::parse_own(name)?;
    }
    Ok(states)
}

fn read_events(events: Jsonb) -> Result<Vec<Map<String, Value>>> {
    if events.shape() != Shape::Array {
        return Err(invalid("events", "must be a JSON array"));
    }
    let Value::Array(events) = parse("events", events)? else { return Ok(Vec::new()) };
    let mut expected = Vec::with_capacity(events.len());
    for (place, event) in events.into_iter().enumerate() {
        let Value::Object(mut event) = event else {
            return Err(invalid(format!("events[{place}]"), "must be a JSON object"));
        };
        if let Some(unknown) = event.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let reason = format!("must have no other keys than {}, not {}", FIELDS.join(", "), shown(&json!(unknown)));
            return Err(invalid(format!("events[{place}]"), reason));
        }
        normalize(&mut event).map_err(|failure| failure.within(|| format!("events[{place}]")))?;
        expected.push(event);
    }
    Ok(expected)
}

/// Tags are a set, which may be empty; an id and a moment may be written in several ways.
fn normalize(event: &mut Map<String, Value>) -> Result<()> {
    match event.get_mut("tags") {
        Some(Value::Array(tags)) => {
            tags.sort_by_cached_key(|tag| tag.as_str().map(ToOwned::to_owned));
            tags.dedup();
        }
        Some(tags @ Value::Null) => *tags = json!([]),
        _ => {}
    }
    if let Some(Value::String(id)) = event.get_mut("event_id") {
        *id = canonical_id(id);
    }
    for key in ["occurred_at", "recorded_at"] {
        if let Some(Value::String(text)) = event.get_mut(key) {
            *text = server::print_time_utc(moment_of(key, text)?)?;
        }
    }
    Ok(())
}

/// Adds what is not as it was expected. Errors: 42501 where the caller may not read what he compares; what the tested says wrong, or says in vain, is a difference.
pub fn compare(expected: &Expected, outcome: &Outcome, differences: &mut Differences) -> Result<()> {
    compare_error(expected.error.as_deref(), &outcome.acted, differences);
    let is_as_expected = outcome.acted.is_ok() == expected.error.is_none();
    // Where it failed and should not have, the rest says the same once more.
    if let Some(events) = expected.events.as_ref().filter(|_| is_as_expected) {
        compare_events(events, outcome.begun, differences)?;
    }
    for (name, state) in expected.states.iter().flatten().filter(|_| is_as_expected) {
        compare_state(name, state, differences)?;
    }
    if let (Some(result), Ok(found)) = (&expected.result, &outcome.acted) {
        differences.compare_shown("result", result, found.as_ref(), outcome.is_protected);
    }
    Ok(())
}

fn compare_error(
    expected: Option<&str>,
    acted: &std::result::Result<Option<Value>, Caught>,
    differences: &mut Differences,
) {
    match (expected, acted) {
        (None, Ok(_)) => {}
        (Some(code), Ok(_)) => differences.add(format!("error: expected {code}, and there was none")),
        (expected, Err(caught)) => {
            let refusal = refusal(caught);
            let found = |code| if is_sqlstate(code) { Some(caught.sqlstate.as_str()) } else { refusal.as_deref() };
            let is_expected = expected.is_some_and(|code| found(code) == Some(code));
            if !is_expected {
                let expected = expected.unwrap_or("none");
                let code =
                    refusal.map_or_else(|| caught.sqlstate.clone(), |code| format!("{} {code}", caught.sqlstate));
                differences.add(format!("error: expected {expected}, found {code}: {}", caught.message));
            }
        }
    }
}

/// The code that a decider refused by.
fn refusal(caught: &Caught) -> Option<String> {
    let detail = caught.detail.as_deref().filter(|_| caught.sqlstate == "ES033")?;
    let detail = document::read(detail).ok()?;
    detail.get("code")?.as_str().map(ToOwned::to_owned)
}

/// The first events that the act appended, at most so many, and how many they are. Errors: 42501.
fn appended(begun: usize, most: usize, memory: &Scratch) -> Result<(Vec<StoredEvent>, usize)> {
    let mut positions = trial::positions(begun);
    positions.sort_unstable();
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else { return Ok((Vec::new(), 0)) };
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    let filter = Filter::of(None, None);
    let wanted = Wanted { target, after: first - 1, to: last, most: i64::MAX, filter: &filter };
    let mut count = 0_usize;
    let events = events::read(&wanted, memory, |event| {
        let is_own = positions.binary_search(&event.global_position()).is_ok();
        count += usize::from(is_own);
        (is_own && count <= most, ControlFlow::Continue(()))
    })?;
    for event in &events {
        let category = StreamName::parse(event.stream()?)?.category();
        if !scope.covers(Some(&[category.to_owned()])) {
            return Err(access.refusal(Privilege::Read, Some(category))?.into());
        }
    }
    Ok((events, count))
}

fn compare_events(expected: &[Map<String, Value>], begun: usize, differences: &mut Differences) -> Result<()> {
    let memory = Scratch::new()?;
    let (events, count) = appended(begun, expected.len().max(MOST_NAMED), &memory)?;
    // Upcasters are what is tested, too.
    let shown = attempt(|| {
        let (mut named, mut found) = (Vec::new(), Vec::new());
        if !events.is_empty() {
            let upcasters = upcasters::of(authorize_tenant(None, Privilege::Read)?.0.tenant_id)?;
            let mut door = Door::new(&upcasters)?;
            for (place, event) in events.iter().enumerate() {
                let is_protected = is_protected(&upcasters.protected, event)?;
                let event = door.show(event.clone())?;
                named.push(format!("{} for {}", event.event_type()?, event.stream()?));
                if let Some(expected) = expected.get(place) {
                    found.push((event_value(&event, expected)?, is_protected));
                }
            }
        }
        Ok((named, found))
    })?;
    let (named, found) = match shown {
        Ok(shown) => shown,
        Err(Caught { sqlstate, message, .. }) => {
            differences.add(format!("events: cannot be read: {message} ({sqlstate})"));
            return Ok(());
        }
    };
    if count != expected.len() {
        let more = if count > MOST_NAMED { ", …" } else { "" };
        let named = named.get(..named.len().min(MOST_NAMED)).unwrap_or_default().join(", ");
        let those = if named.is_empty() { String::new() } else { format!(": {named}{more}") };
        differences.add(format!("events: expected {}, found {count}{those}", expected.len()));
    }
    for (place, (expected, (found, is_protected))) in expected.iter().zip(&found).enumerate() {
        for (key, expected) in expected {
            let key_is_protected = *is_protected && matches!(key.as_str(), "payload" | "metadata");
            differences.compare_shown(&format!("events[{place}].{key}"), expected, found.get(key), key_is_protected);
        }
    }
    Ok(())
}

/// Whether fields of it are protected: no test is shown them.
fn is_protected(protected: &Protected, event: &StoredEvent) -> Result<bool> {
    Ok(!matches!(protected.events.of(event.event_type()?, event.schema_version()), Cover::Free))
}

/// An event as a test names its parts; of its documents those that are expected.
fn event_value(event: &Event, expected: &Map<String, Value>) -> Result<Value> {
    let row = event.row();
    let document = |key: &str, document: Option<Jsonb>| {
        document.filter(|_| expected.contains_key(key)).map(|document| parse(key, document)).transpose()
    };
    Ok(json!({
        "category": row.text(field::CATEGORY)?,
        "event_id": to_uuid_text(&event.event_id()?),
        "metadata": document("metadata", event.metadata()?)?,
        "occurred_at": server::print_time_utc(event.occurred_at())?,
        "payload": document("payload", event.payload()?)?,
        "recorded_at": server::print_time_utc(event.recorded_at())?,
        "recorded_by": row.text(field::RECORDED_BY)?,
        "schema_version": event.schema_version(),
        "stream": event.stream()?,
        "subject": row.text_opt(field::SUBJECT)?,
        "tags": row.text_array_opt(field::TAGS)?.unwrap_or_default(),
        "type": event.event_type()?,
        "version": event.version(),
    }))
}

fn compare_state(name: &str, expected: &Value, differences: &mut Differences) -> Result<()> {
    let stream = StreamName::parse_own(name)?;
    let access = authorize(Privilege::Read, stream.category())?;
    let state = attempt(|| {
        let target = Target { id: access.tenant_id, name: &access.tenant };
        let fold = folds::of(access.tenant_id, stream.category(), None)?;
        let mut folding = Folding::new(target, &fold)?;
        let answer = answer::by_name(&mut folding, &stream, Moment::NOW, View::Latest)?;
        answer.map(|answer| parse("states", answer.state.view())).transpose()
    })?;
    match state {
        Ok(state) => differences.compare(&format!("states[{}]", json!(name)), expected, state.as_ref()),
        Err(caught) => {
            differences.add(format!(
                "states[{}]: cannot be folded: {} ({})",
                json!(name),
                caught.message,
                caught.sqlstate
            ));
        }
    }
    Ok(())
}
