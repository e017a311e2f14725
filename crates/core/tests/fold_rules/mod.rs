//! Events and folds in memory, for the tests of rules.
#![allow(dead_code)] // each test program uses a part

use eventstream_core::Error;
use eventstream_core::json::Value;
use eventstream_core::rules::{EventField, EventSource, Failed, Limits, Pointer, Rules, State};

/// The settings' defaults, and a state that is small enough to reach its limit.
pub const LIMITS: Limits = Limits { depth: 64, number_digits: 1_000, state_bytes: 1 << 20 };

/// An event, as an object with `type`, `payload` and perhaps fields.
#[derive(Debug)]
pub struct Event(pub Value);

impl Event {
    pub fn new(event_type: &str, payload: &str) -> Self {
        Self(value(&format!("{{\"type\": {}, \"payload\": {payload}}}", serde_json::Value::from(event_type))))
    }

    fn member(&self, name: &str) -> Option<&Value> {
        match &self.0 {
            Value::Object(members) => members.get(name),
            other => panic!("an event must be an object, not {other:?}"),
        }
    }
}

impl EventSource for Event {
    type Failure = std::convert::Infallible;

    fn event_type(&self) -> &str {
        match self.member("type") {
            Some(Value::Text(text)) => text,
            other => panic!("an event must have a type, not {other:?}"),
        }
    }

    fn payload(&self, pointer: &Pointer) -> Result<Option<Value>, Self::Failure> {
        Ok(self.member("payload").and_then(|payload| pointer.find(payload)).cloned())
    }

    fn field(&self, field: &EventField) -> Result<Option<Value>, Self::Failure> {
        Ok(match field {
            EventField::Metadata(pointer) => {
                self.member("metadata").and_then(|metadata| pointer.find(metadata)).cloned()
            }
            other => self.member(other.to_string().strip_prefix("event:/").unwrap()).cloned(),
        })
    }
}

pub fn value(text: &str) -> Value {
    Value::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The message of a failure, without the fold, the stream and the version.
pub fn message(failed: Failed<std::convert::Infallible>) -> String {
    match failed {
        Failed::Rule(failure) => match failure.into_error("f", "a-1", 1) {
            Error::FoldFailed { reason, .. } => reason,
            other => panic!("{other}"),
        },
        Failed::Limit { limit, actual } => format!("limit {limit}: {actual}"),
        Failed::Source(never) => match never {},
    }
}

/// The state after the events, as text, or why there is none. The state's count of bytes must be right after each.
pub fn folded_within(rules: &Rules, initial: &str, events: &[Event], limits: &Limits) -> Result<String, String> {
    let mut state = State::new(value(initial));
    for event in events {
        rules.apply(&mut state, event, limits).map_err(message)?;
        assert_eq!(state.bytes(), state.value().size(), "the count of bytes has drifted");
    }
    Ok(state.value().to_text())
}

/// The same, of events of type `E` with these payloads, from rules on `E`.
pub fn fold(on_e: &str, initial: &str, payloads: &[&str]) -> Result<String, String> {
    let events: Vec<_> = payloads.iter().map(|payload| Event::new("E", payload)).collect();
    folded_within(&rules(&format!("{{\"on\": {{\"E\": {on_e}}}}}")), initial, &events, &LIMITS)
}
