//! The border between rules (pure, eventstream-core) and PostgreSQL's values: what a rule reads of an event, and a state's way into
//! memory and back.
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::process::server;
use crate::present::event::{Event, field};
use crate::shared::settings;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::json::Value;
use eventstream_core::rules::{EventField, EventSource, Failed, Latest, Limits, Pointer, Rank, Rules, State};

/// An event that rules read.
pub struct Source<'a> {
    event: &'a Event,
    event_type: &'a str,
    payload: Option<Jsonb<'a>>,
}

impl<'a> Source<'a> {
    pub fn new(event: &'a Event) -> Result<Self> {
        Ok(Self { event, event_type: event.event_type()?, payload: event.payload()? })
    }
}

impl EventSource for Source<'_> {
    type Failure = Failure;

    fn event_type(&self) -> &str {
        self.event_type
    }

    fn checkpoint(&self) -> Result<()> {
        server::check_for_interrupts()
    }

    fn payload(&self, pointer: &Pointer) -> Result<Option<Value>> {
        self.payload.map_or(Ok(None), |payload| payload.at(pointer))
    }

    fn field(&self, wanted: &EventField) -> Result<Option<Value>> {
        let row = self.event.row();
        let text = |place| row.text_opt(place).map(|text| text.map(|text| Value::Text(text.to_owned())));
        let number = |place| Ok(row.int8_opt(place).map(Value::from));
        let time =
            |place| row.int8_opt(place).map(|moment| server::print_time_utc(moment).map(Value::Text)).transpose();
        match wanted {
            EventField::GlobalPosition => number(field::GLOBAL_POSITION),
            EventField::Stream => text(field::STREAM),
            EventField::Version => number(field::VERSION),
            EventField::EventId => Ok(Some(Value::Text(to_uuid_text(&self.event.event_id()?)))),
            EventField::EventType => text(field::EVENT_TYPE),
            EventField::SchemaVersion => Ok(Some(Value::from(i64::from(self.event.schema_version())))),
            EventField::Subject => text(field::SUBJECT),
            EventField::OccurredAt => time(field::OCCURRED_AT),
            EventField::RecordedAt => time(field::RECORDED_AT),
            EventField::Category => text(field::CATEGORY),
            EventField::Tenant => text(field::TENANT),
            EventField::RecordedBy => text(field::RECORDED_BY),
            EventField::Metadata(pointer) => self.event.metadata()?.map_or(Ok(None), |metadata| metadata.at(pointer)),
        }
    }
}

/// Where the event of an unordered fold stands in the fold's order, and which event set each place of the state last.
pub type Placed<'a> = (Rank, &'a mut Latest);

/// What a state may not exceed.
pub fn limits() -> Limits {
    Limits {
        depth: settings::max_json_depth() as usize,
        number_digits: settings::max_number_digits() as usize,
        state_bytes: settings::max_state_bytes(),
    }
}

/// Applies the rules for an event to the state; in any order where `placed` is given. Errors: ES013, ES007.
pub fn apply(
    rules: &Rules,
    state: &mut State,
    placed: Option<Placed>,
    source: &Source,
    fold: &str,
    stream: &str,
    version: i64,
) -> Result<()> {
    let limits = limits();
    let applied = match placed {
        None => rules.apply(state, source, &limits),
        Some((at, latest)) => rules.apply_unordered(state, latest, at, source, &limits),
    };
    applied.map_err(|failed| match failed {
        Failed::Source(failure) => failure,
        Failed::Rule(failure) => failure.into_error(fold, stream, version).into(),
        Failed::Limit { limit, actual } => {
            let state = format!("the state of stream \"{stream}\" by fold \"{fold}\" at version {version}");
            let (setting, most, what) = match limit {
                "depth" => {
                    ("eventstream.max_json_depth", limits.depth, format!("{state} is nested {actual} levels deep"))
                }
                "number_digits" => {
                    let what = format!("{state} has a number of {actual} digits");
                    ("eventstream.max_number_digits", limits.number_digits, what)
                }
                _ => ("eventstream.max_state_bytes", limits.state_bytes, format!("{state} has about {actual} bytes")),
            };
            Error::LimitExceeded { setting, limit: most as i64, actual: Some(actual as i64), what }.into()
        }
    })
}

/// Refuses a state that is too large. Errors: ES007.
pub fn refuse_large(size: usize, most: usize, fold: &str, stream: &str, version: i64) -> Result<()> {
    if size > most { Err(too_large(size, most, fold, stream, version)) } else { Ok(()) }
}

/// What a state that is too large fails with: ES007.
pub fn too_large(size: usize, most: usize, fold: &str, stream: &str, version: i64) -> Failure {
    Error::LimitExceeded {
        setting: "eventstream.max_state_bytes",
        limit: most as i64,
        actual: Some(size as i64),
        what: format!("the state of stream \"{stream}\" by fold \"{fold}\" at version {version} has {size} bytes"),
    }
    .into()
}

/// A state as rules hold it.
pub fn state_of(document: Jsonb) -> Result<State> {
    document.value().map(State::new)
}

/// A state as it is stored and returned.
pub fn stored(state: &State) -> Result<Stored> {
    Ok(Stored::keep(Jsonb::parse(&state.value().to_text())?))
}
