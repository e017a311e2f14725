//! Upcasters: how the payload of an event type becomes that of its next schema version when it is read or folded. Steps are
//! chained until no further one is registered; each raises schema_version by one, so a chain always ends. What is stored
//! never changes.
use super::event::{StoredEvent, field};
use super::protected::Protected;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call::{Code, Function, Position, Registrant};
use crate::pg::process::memory::Scratch;
use crate::pg::value::datum::{self, from_text};
use crate::pg::{error::report, process::subtransaction};
use crate::shared::failing::{self, Failing, Kind};
use crate::shared::settings;
use crate::usercode::handler::{self, Handler};
use eventstream_core::error::Error;
use eventstream_core::hash::fingerprint;
use eventstream_core::hint::upcast_hint;
use pgrx::pg_sys::Datum;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::rc::Rc;

/// From one schema version to the next.
pub struct Step {
    pub to_event_type: String,
    /// The function's name as it was registered.
    pub name: String,
    /// The reason where it cannot be used any more.
    pub handler: std::result::Result<Handler, String>,
    pub registrant: Registrant,
}

/// The upcasters of a tenant, by event type and schema version; and what is protected of what they are given.
pub struct Upcasters {
    tenant_id: i64,
    pub protected: Rc<Protected>,
    steps: BTreeMap<String, BTreeMap<i32, Step>>,
}

impl Upcasters {
    /// None yet.
    pub fn of(tenant_id: i64, protected: Rc<Protected>) -> Self {
        Self { tenant_id, protected, steps: BTreeMap::new() }
    }

    pub fn add(&mut self, event_type: String, from_schema_version: i32, step: Step) {
        self.steps.entry(event_type).or_default().insert(from_schema_version, step);
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The event types and schema versions that steps turn into one of `wanted`, at once or on the way to the newest.
    pub fn older(&self, wanted: &[String]) -> Vec<(String, i32)> {
        let becomes_wanted = |event_type: &String, version: i32| {
            let mut at = (event_type, version);
            while let Some(step) = self.steps.get(at.0).and_then(|steps| steps.get(&at.1)) {
                at = (&step.to_event_type, at.1 + 1);
                if wanted.contains(at.0) {
                    return true;
                }
            }
            false
        };
        let all = self.steps.iter().flat_map(|(event_type, steps)| steps.keys().map(move |&from| (event_type, from)));
        all.filter(|(event_type, from)| !wanted.contains(event_type) && becomes_wanted(event_type, *from))
            .map(|(event_type, from)| (event_type.clone(), from))
            .collect()
    }

    /// Whether there is a step from that schema version of the event type.
    pub fn has(&self, event_type: &str, from_schema_version: i32) -> bool {
        self.steps.get(event_type).is_some_and(|steps| steps.contains_key(&from_schema_version))
    }

    /// The event types and schema versions that steps turn into events of another type, and which.
    pub fn renaming(&self) -> impl Iterator<Item = (&str, i32, &str)> {
        let all = self.all().filter(|(event_type, _, step)| step.to_event_type != *event_type);
        all.map(|(event_type, from, step)| (event_type, from, step.to_event_type.as_str()))
    }

    /// The event type that the step from that schema version makes.
    pub fn step(&self, event_type: &str, from_schema_version: i32) -> Option<&str> {
        self.steps.get(event_type)?.get(&from_schema_version).map(|step| step.to_event_type.as_str())
    }

    /// Everything that what they return depends on; of what is protected only that of events that are, or become, of these types (None: of all).
    pub fn definition(&self, of: Option<&[String]>) -> String {
        let steps = self.all().map(|(event_type, from, step)| step.definition(event_type, from));
        let older = of.map(|names| self.older(names));
        let named = of.map(|names| {
            let older = older.iter().flatten().map(|(name, _)| name.as_str());
            names.iter().map(String::as_str).chain(older).collect::<BTreeSet<_>>()
        });
        steps.chain([self.protected.definition(named.as_ref())]).collect::<Vec<_>>().concat()
    }

    /// Where the step stands whose failures are noted under that key, if it is still as it was.
    pub fn noted(&self, key: i64) -> Option<(&str, i32)> {
        let mut all = self.all();
        all.find(|(event_type, from, step)| self.key(event_type, *from, step) == key)
            .map(|(event, from, _)| (event, from))
    }

    fn all(&self) -> impl Iterator<Item = (&str, i32, &Step)> {
        self.steps
            .iter()
            .flat_map(|(event_type, steps)| steps.iter().map(move |(&from, step)| (event_type.as_str(), from, step)))
    }

    /// What notes of a step's failures are found by (src/shared/failing.rs).
    fn key(&self, event_type: &str, from: i32, step: &Step) -> i64 {
        failing::key(&["failing", &self.tenant_id.to_string(), &step.definition(event_type, from)])
    }
}

impl Step {
    fn definition(&self, event_type: &str, from_schema_version: i32) -> String {
        let definition = self.handler.as_ref().map_or_else(String::as_str, |handler| &handler.definition);
        let path = self.registrant.search_path.to_string_lossy();
        let all = [event_type, &from_schema_version.to_string(), &self.to_event_type, &self.name, definition, &path];
        fingerprint(&all).map(|byte| format!("{byte:02x}")).concat()
    }
}

/// Upcasters at work, for the time of one call: its functions are looked up once, and live in memory of its own.
pub struct Upcasting<'a> {
    upcasters: &'a Upcasters,
    functions: HashMap<(&'a str, i32), Function>,
    memory: Scratch,
    /// How often each step was made.
    made: BTreeMap<(&'a str, i32), u64>,
    /// Whether a step failed and was left out since [`Upcasting::take_skipped`].
    has_skipped: bool,
    /// The positions of events that are noted as ones that fail.
    noted: Vec<i64>,
}

impl<'a> Upcasting<'a> {
    pub fn new(upcasters: &'a Upcasters) -> Result<Self> {
        Ok(Self {
            upcasters,
            functions: HashMap::new(),
            memory: Scratch::new()?,
            made: BTreeMap::new(),
            has_skipped: false,
            noted: failing::noted(Kind::Upcaster).iter().map(|noted| noted.position).collect(),
        })
    }

    /// Whether a step was left out since this was last asked: a state that was folded so is no function of the chain.
    pub fn take_skipped(&mut self) -> bool {
        std::mem::take(&mut self.has_skipped)
    }

    /// Whether [`Upcasting::take_skipped`] would say so.
    pub fn has_skipped(&self) -> bool {
        self.has_skipped
    }

    /// Brings the event to its next schema version, where there is a step to it; whether one was made; new values are made in the current memory context. Errors: ES014, and whatever a
    /// user's function raises; where it `may_skip`, a WARNING instead, and the event stays as the last step that succeeded left it.
    pub fn step(&mut self, event: &mut StoredEvent, may_skip: bool) -> Result<bool> {
        let Some((key, step)) = self.next_step(event)? else { return Ok(false) };
        if event.get(field::PAYLOAD).is_none() {
            return Ok(false); // erased: there is nothing to bring up to date
        }
        let made = if may_skip && subtransaction::is_possible() {
            subtransaction::attempt(|| self.call(event, key, step))?
        } else {
            Ok(self.call(event, key, step).inspect_err(|failure| {
                let is_own = failure.is_of_event() || matches!(failure, Failure::Rule(Error::UpcastFailed { .. }));
                self.note(is_own, event, key, step);
            })?)
        };
        let payload = match made {
            Ok(payload) => payload,
            Err(caught) => {
                self.note(caught.is_of_event || caught.sqlstate == "ES014", event, key, step);
                self.has_skipped = true;
                let warning = format!(
                    "upcaster of \"{}\" from schema version {} is skipped for stream \"{}\" at version {}: {} ({})",
                    key.0,
                    key.1,
                    event.stream()?,
                    event.version(),
                    caught.message,
                    caught.sqlstate
                );
                return report::warning(&warning).map(|()| false);
            }
        };
        if self.noted.contains(&event.global_position()) {
            failing::upcast(event.global_position(), || self.upcasters.key(key.0, key.1, step));
        }
        event.set(field::PAYLOAD, payload);
        event.set(field::SCHEMA_VERSION, Datum::from(key.1 + 1));
        event.set(field::EVENT_TYPE, from_text(&step.to_event_type)?);
        *self.made.entry(key).or_default() += 1;
        Ok(true)
    }

    /// Leaves a note of an event that a step cannot take, for whoever looks after the database, where it `is_own`: the event's fault, or the step's.
    fn note(&self, is_own: bool, event: &StoredEvent, key: (&str, i32), step: &Step) {
        let (position, version) = (event.global_position(), event.version());
        // What is imagined has none.
        if is_own && position > 0 {
            let key = self.upcasters.key(key.0, key.1, step);
            failing::note(Kind::Upcaster, Failing { key, stream_id: 0, version, position, counted: 0 });
        }
    }

    /// The step for the event as it is, if one is registered.
    fn next_step(&self, event: &StoredEvent) -> Result<Option<((&'a str, i32), &'a Step)>> {
        let from = event.schema_version();
        let Some((event_type, steps)) = self.upcasters.steps.get_key_value(event.event_type()?) else {
            return Ok(None);
        };
        Ok(steps.get(&from).map(|step| ((event_type.as_str(), from), step)))
    }

    /// The payload that a step makes.
    fn call(&mut self, event: &StoredEvent, key: (&'a str, i32), step: &Step) -> Result<Datum> {
        let stream = event.stream()?;
        let failed = |reason: String| Error::UpcastFailed {
            stream: stream.into(),
            version: event.version(),
            event_type: key.0.into(),
            from_schema_version: key.1,
            reason,
            is_unusable: false,
        };
        let unusable = |reason: String| match failed(reason) {
            Error::UpcastFailed { stream, version, event_type, from_schema_version, reason, .. } => {
                Error::UpcastFailed { stream, version, event_type, from_schema_version, reason, is_unusable: true }
            }
            other => other,
        };
        let function = match self.functions.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let handler = step.handler.as_ref().map_err(|reason| unusable(reason.clone()))?;
                let found = self.memory.inside(|| handler::callable(handler, &step.registrant))?;
                vacant.insert(found.map_err(unusable)?)
            }
        };
        let what = format!("upcaster of \"{}\" from schema version {} for stream \"{stream}\"", key.0, key.1);
        let what = CString::new(what).unwrap_or_default();
        let at = Position::version(&what, event.version());
        let arguments = [event.get(field::PAYLOAD), event.get(field::METADATA)];
        let made = function.as_registrant(Code::Pure, &at, |calls| calls.call(&arguments));
        let made = made.map_err(|failure| failure.hinting_event(|| upcast_hint(stream, event.version())))?;
        let made = made.ok_or_else(|| failed("its function returned NULL".into()))?;
        // Rules copy parts of it; a state could not hold more of it either.
        let (size, most) = (datum::unpacked_size(made), settings::max_state_bytes());
        if size > most {
            let reason =
                format!("its function returned {size} bytes, more than eventstream.max_state_bytes, which is {most}");
            return Err(failed(reason).into());
        }
        Ok(made)
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
