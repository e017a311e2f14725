//! What is declared of a tenant's event types, as this backend knows it, and the judgement of events by it.
//!
//! Promises: an event of a type that nobody has declared is not looked at, and where a tenant has declared none that costs one comparison a call; what is
//! appended was judged by the declaration that had been committed when the append entered the tenant's gate. A schema is made ready once a backend.
use crate::log::event::NewEvent;
use crate::log::request::Request;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::EventType;
use eventstream_core::error::Error;
use eventstream_core::schema::Schema;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID};
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

columns! {
    mod of, selected;
    EVENT_TYPE = "event_type",
    SCHEMA_VERSION = "schema_version",
    JSON_SCHEMA = "json_schema::text",
    APPENDABLE = "appendable",
}

thread_local! {
    static LOAD: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.event_types where tenant_id = $1"),
        &[INT8OID],
    ) };
}

/// A declared schema version.
struct Version {
    is_appendable: bool,
    /// JSON as text.
    schema: Option<String>,
    ready: OnceCell<std::result::Result<Schema, Error>>,
}

/// The declared schema versions of a tenant's event types.
#[derive(Default)]
pub struct Declared(HashMap<String, BTreeMap<i32, Version>>);

pub fn load(tenant_id: i64) -> Result<Declared> {
    let mut declared = Declared::default();
    as_owner(Planning::ByIndex, |db, _| {
        LOAD.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
                let version = Version {
                    is_appendable: row.boolean(of::APPENDABLE)?,
                    schema: row.text_opt(of::JSON_SCHEMA)?.map(ToOwned::to_owned),
                    ready: OnceCell::new(),
                };
                let versions = declared.0.entry(row.text(of::EVENT_TYPE)?.to_owned()).or_default();
                versions.insert(row.int4(of::SCHEMA_VERSION)?, version);
                Ok(())
            })
        })
    })?;
    Ok(declared)
}

impl Declared {
    /// Gives events without a schema version the one that they would be appended with.
    pub fn complete(&self, events: &mut [NewEvent]) {
        for event in events.iter_mut().filter(|event| event.schema_version.is_none()) {
            event.schema_version = self.0.get(event.event_type).and_then(newest);
        }
    }

    /// Whether a payload, JSON as text, is one of that event type and version; what is not declared takes any. `what` it is, in the error. Errors: ES016.
    pub fn check_payload(
        &self,
        what: &dyn Fn() -> String,
        event_type: &str,
        version: i32,
        payload: &[u8],
    ) -> Result<()> {
        match self.0.get(event_type).and_then(|versions| versions.get(&version)) {
            None => Ok(()),
            Some(declared) => declared.check(what, event_type, version, payload),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest declared version of an event type, appendable or not.
    pub fn newest(&self, event_type: &str) -> Option<i32> {
        self.0.get(event_type)?.keys().next_back().copied()
    }

    pub fn has(&self, event_type: &str, version: i32) -> bool {
        self.0.get(event_type).is_some_and(|versions| versions.contains_key(&version))
    }

    /// The schema of a version that has one.
    pub fn schema(&self, event_type: &str, version: i32) -> Result<Option<&Schema>> {
        self.0.get(event_type).and_then(|versions| versions.get(&version)).map_or(Ok(None), Version::schema)
    }

    /// Judges the events of a request, and gives each the schema version that it is appended with where it names none. Errors: ES016.
    pub fn judge(&self, request: &mut Request) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let stream = request.stream.as_str();
        for (place, event) in request.events.iter_mut().enumerate() {
            if event.event_type != EventType::STREAM_CLOSED {
                self.judge_event(event, &|| {
                    format!("the payload of event {} for stream {}", place + 1, shown(stream))
                })?;
            }
        }
        Ok(())
    }

    fn judge_event(&self, event: &mut NewEvent, what: &dyn Fn() -> String) -> Result<()> {
        let Some(versions) = self.0.get(event.event_type) else { return Ok(()) };
        let event_type = event.event_type;
        let refused = |reason: String| Error::EventTypeRefused {
            event_type: event_type.into(),
            reason,
            hint: format!(
                "Which are: select schema_version, appendable from eventstream.event_types where event_type = {};",
                quote_literal(event_type)
            ),
        };
        let Some(version) = event.schema_version.or_else(|| newest(versions)) else {
            return Err(refused("none of its schema versions is appendable".into()).into());
        };
        match versions.get(&version) {
            None => Err(refused(format!("schema version {version} is not declared")).into()),
            Some(declared) if !declared.is_appendable => {
                Err(refused(format!("schema version {version} is not appendable any more")).into())
            }
            Some(declared) => {
                event.schema_version = Some(version);
                declared.check(what, event_type, version, event.payload.text)
            }
        }
    }
}

/// The newest version that may be appended.
fn newest(versions: &BTreeMap<i32, Version>) -> Option<i32> {
    versions.iter().rev().find(|(_, version)| version.is_appendable).map(|(&version, _)| version)
}

impl Version {
    fn schema(&self) -> Result<Option<&Schema>> {
        let Some(schema) = &self.schema else { return Ok(None) };
        Ok(Some(self.ready.get_or_init(|| Schema::parse(schema)).as_ref().map_err(Clone::clone)?))
    }

    fn check(&self, what: &dyn Fn() -> String, event_type: &str, schema_version: i32, payload: &[u8]) -> Result<()> {
        self.schema()?.map_or(Ok(()), |schema| check(schema, what, event_type, schema_version, payload))
    }
}

/// Errors: ES016.
pub fn check(
    schema: &Schema,
    what: &dyn Fn() -> String,
    event_type: &str,
    schema_version: i32,
    payload: &[u8],
) -> Result<()> {
    // What PostgreSQL prints is UTF-8, as its database is.
    match schema.breach(&String::from_utf8_lossy(payload)) {
        Ok(None) => Ok(()),
        Ok(Some(breach)) => Err(Error::PayloadRefused {
            what: what(),
            event_type: event_type.into(),
            schema_version,
            breach: Box::new(breach),
        }
        .into()),
        Err(reason) => Err(Error::EventTypeRefused {
            event_type: event_type.into(),
            reason: format!("{} cannot be judged by the schema of version {schema_version}: {reason}", what()),
            hint:
                "Make the payload flatter, or the schema simpler: what takes so long or goes so deep is left undecided."
                    .into(),
        }
        .into()),
    }
}
