//! The judgement of events by what is declared of their event types.
//!
//! Promises: an event of a type that nobody has declared is not looked at, and where a tenant has declared none that costs one comparison a call; what is
//! appended was judged by the declaration that had been committed when the append entered the tenant's gate. A cancel or a timeout ends a judgement.
use super::schemas::{self, Versions};
use crate::access::{Scope, shown_categories};
use crate::log::event::NewEvent;
use crate::log::request::Request;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::EventType;
use eventstream_core::error::Error;
use eventstream_core::near::nearest_first;
use eventstream_core::schema::Schema;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID};
use std::collections::BTreeMap;

thread_local! {
    static IS_ANY: Plan = const { Plan::new(
        "select exists (select from _eventstream.event_types where tenant_id = $1)",
        &[INT8OID],
    ) };
    static LIST: Plan = const { Plan::new(
        "select event_type, schema_version from _eventstream.event_types where tenant_id = $1",
        &[INT8OID],
    ) };
}

/// What is declared of a tenant's event types.
pub struct Declared {
    tenant_id: i64,
    is_empty: bool,
}

pub fn load(tenant_id: i64) -> Result<Declared> {
    let key = [Some(Datum::from(tenant_id))];
    let is_any = as_owner(Planning::ByIndex, |db, _| {
        IS_ANY.with(|plan| plan.first(db, View::Latest, &key, |row| row.boolean(0)))
    })?;
    Ok(Declared { tenant_id, is_empty: is_any != Some(true) })
}

/// The names of a tenant's event types, and their declared versions.
pub type Listed = BTreeMap<String, Vec<i32>>;

/// All that a tenant has declared, each version in its order.
pub fn list(tenant_id: i64) -> Result<Listed> {
    let mut listed = Listed::new();
    as_owner(Planning::ByIndex, |db, _| {
        LIST.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
                let version = row.int4(1)?;
                match listed.get_mut(row.text(0)?) {
                    Some(versions) => versions.push(version),
                    None => drop(listed.insert(row.text(0)?.to_owned(), vec![version])),
                }
                Ok(())
            })
        })
    })?;
    listed.values_mut().for_each(|versions| versions.sort_unstable());
    Ok(listed)
}

impl Declared {
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether an event type is declared, in whatever version.
    pub fn has(&self, event_type: &str) -> Result<bool> {
        Ok(!self.is_empty && !schemas::versions(self.tenant_id, event_type)?.is_empty())
    }

    /// Gives events without a schema version the one that they would be appended with.
    pub fn complete(&self, events: &mut [NewEvent]) -> Result<()> {
        if self.is_empty {
            return Ok(());
        }
        for event in events.iter_mut().filter(|event| event.schema_version.is_none()) {
            event.schema_version = newest(&*schemas::versions(self.tenant_id, event.event_type)?);
        }
        Ok(())
    }

    /// Whether a payload, JSON as text, is one of that event type and version; what is not declared takes any. `what` it is, in the error. Errors: ES016.
    pub fn check_payload(
        &self,
        what: &dyn Fn() -> String,
        event_type: &str,
        version: i32,
        payload: &[u8],
    ) -> Result<()> {
        let schema = schemas::schema(self.tenant_id, event_type, version)?;
        schema.map_or(Ok(()), |schema| check(&schema, what, event_type, version, payload))
    }

    /// Judges the events of a request, and gives each the schema version that it is appended with where it names none. Errors: ES016.
    pub fn judge(&self, request: &mut Request) -> Result<()> {
        if self.is_empty {
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
        let event_type = event.event_type;
        let versions = schemas::versions(self.tenant_id, event_type)?;
        if versions.is_empty() {
            return Ok(());
        }
        let refused = |reason: String| Error::EventTypeRefused {
            event_type: event_type.into(),
            reason,
            hint: format!(
                "Which are: select schema_version, appendable from eventstream.event_types where event_type = {};",
                quote_literal(event_type)
            ),
        };
        let Some(version) = event.schema_version.or_else(|| newest(&versions)) else {
            return Err(refused("none of its schema versions is appendable".into()).into());
        };
        match versions.get(&version) {
            None => Err(refused(format!("schema version {version} is not declared")).into()),
            Some(declared) if !declared.is_appendable => {
                Err(refused(format!("schema version {version} is not appendable any more")).into())
            }
            Some(declared) => {
                event.schema_version = Some(version);
                if declared.has_schema {
                    self.check_payload(what, event_type, version, event.payload.text)?;
                }
                Ok(())
            }
        }
    }
}

/// What is declared instead, the likeliest first, is told of an event type that is not: to a role that may see it, which may read something. Asked by the caller, with
/// his rights.
pub fn suggest(tenant_id: i64, mut failure: Failure) -> Failure {
    let Failure::Rule(Error::RuleBroken(broken)) = &mut failure else { return failure };
    let Some(event_type) = broken.undeclared.clone() else { return failure };
    match like(tenant_id, &event_type) {
        Ok(names) => broken.suggest(&names),
        Err(other) => return other,
    }
    failure
}

fn like(tenant_id: i64, event_type: &str) -> Result<Vec<String>> {
    if matches!(shown_categories()?, Scope::Categories(categories) if categories.is_empty()) {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = list(tenant_id)?.into_keys().collect();
    nearest_first(event_type, &mut names);
    Ok(names)
}

/// The newest version that may be appended.
fn newest(versions: &Versions) -> Option<i32> {
    versions.iter().rev().find(|(_, version)| version.is_appendable).map(|(&version, _)| version)
}

/// Errors: ES016.
pub fn check(
    schema: &Schema,
    what: &dyn Fn() -> String,
    event_type: &str,
    schema_version: i32,
    payload: &[u8],
) -> Result<()> {
    match schemas::breach(schema, payload)? {
        Ok(None) => Ok(()),
        Ok(Some(breach)) => Err(Error::PayloadRefused {
            what: what(),
            event_type: event_type.into(),
            schema_version,
            breach: Box::new(breach),
            is_example: false,
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
