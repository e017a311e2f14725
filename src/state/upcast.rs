//! Upcasters: how the payload of an event type becomes that of its next schema version when it is read or folded. Steps are
//! chained until no further one is registered; each raises schema_version by one, so a chain always ends. What is stored
//! never changes.
use super::event::{Event, field};
use super::handler::{self, Handler};
use crate::pg::call::{Function, Position, Registrant};
use crate::pg::datum::from_text;
use crate::pg::failure::Result;
use crate::pg::memory::Scratch;
use eventstream_core::error::Error;
use eventstream_core::hash::fingerprint;
use pgrx::pg_sys::Datum;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;

/// From one schema version to the next.
pub struct Step {
    pub to_event_type: String,
    /// The function's name as it was registered.
    pub name: String,
    /// The reason where it cannot be used any more.
    pub handler: std::result::Result<Handler, String>,
    pub registrant: Registrant,
}

/// The upcasters of a tenant, by event type and schema version.
#[derive(Default)]
pub struct Upcasters {
    steps: BTreeMap<String, BTreeMap<i32, Step>>,
}

impl Upcasters {
    pub fn add(&mut self, event_type: String, from_schema_version: i32, step: Step) {
        self.steps.entry(event_type).or_default().insert(from_schema_version, step);
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Everything that what they return depends on.
    pub fn definition(&self) -> String {
        let mut parts = Vec::new();
        for (event_type, steps) in &self.steps {
            for (version, step) in steps {
                let definition = step.handler.as_ref().map_or_else(String::as_str, |handler| &handler.definition);
                let path = step.registrant.search_path.to_string_lossy();
                let all = [event_type, &version.to_string(), &step.to_event_type, &step.name, definition, &path];
                parts.push(fingerprint(&all).map(|byte| format!("{byte:02x}")).concat());
            }
        }
        parts.concat()
    }
}

/// Upcasters at work, for the time of one call: its functions are looked up once, and live in memory of its own.
pub struct Upcasting<'a> {
    upcasters: &'a Upcasters,
    functions: HashMap<(&'a str, i32), Function>,
    memory: Scratch,
    /// How often each step was made.
    made: BTreeMap<(&'a str, i32), u64>,
}

impl<'a> Upcasting<'a> {
    pub fn new(upcasters: &'a Upcasters) -> Result<Self> {
        Ok(Self { upcasters, functions: HashMap::new(), memory: Scratch::new()?, made: BTreeMap::new() })
    }

    /// Brings the event to its newest schema version; new values are made in the current memory context. Errors: ES014, and
    /// whatever a user's function raises.
    pub fn apply(&mut self, stream: &str, event: &mut Event) -> Result<()> {
        let upcasters = self.upcasters;
        loop {
            let (event_type, from) = (event.event_type()?.to_owned(), event.schema_version());
            let Some((known_type, steps)) = upcasters.steps.get_key_value(event_type.as_str()) else { return Ok(()) };
            let Some(step) = steps.get(&from) else { return Ok(()) };
            let failed = |reason: String| Error::UpcastFailed {
                stream: stream.into(),
                version: event.version(),
                event_type: event_type.clone(),
                from_schema_version: from,
                reason,
            };
            let function = match self.functions.entry((known_type, from)) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let handler = step.handler.as_ref().map_err(|reason| failed(reason.clone()))?;
                    let found = self.memory.inside(|| handler::callable(handler, &step.registrant))?;
                    vacant.insert(found.map_err(&failed)?)
                }
            };
            let what = format!("upcaster of \"{event_type}\" from schema version {from} for stream \"{stream}\"");
            let what = CString::new(what).unwrap_or_default();
            let at = Position { what: &what, version: Cell::new(event.version()) };
            let metadata = (!event.nulls[field::METADATA]).then_some(event.values[field::METADATA]);
            let payload = (!event.nulls[field::PAYLOAD]).then_some(event.values[field::PAYLOAD]);
            if payload.is_none() {
                return Ok(()); // erased: there is nothing to bring up to date
            }
            let made = function.as_registrant(&at, |calls| calls.call(payload, metadata))?;
            let payload = made.ok_or_else(|| failed("its function returned NULL".into()))?;
            event.set(field::PAYLOAD, payload);
            event.set(field::SCHEMA_VERSION, Datum::from(from + 1));
            event.set(field::EVENT_TYPE, from_text(&step.to_event_type)?);
            *self.made.entry((known_type, from)).or_default() += 1;
        }
    }

    /// The steps that were made: the event type, the schema version it came from, the step, and how often.
    pub fn made(&self) -> impl Iterator<Item = (&'a str, i32, &'a Step, u64)> {
        let upcasters = self.upcasters;
        self.made.iter().filter_map(move |(&(event_type, from), &times)| {
            let step = upcasters.steps.get(event_type)?.get(&from)?;
            Some((event_type, from, step, times))
        })
    }
}
