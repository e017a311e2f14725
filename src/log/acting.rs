//! On whose behalf an append is made while a projection's handler runs. An append of a handler's is recorded_by the handler's
//! registrant (the session may be a worker's), and its metadata say what caused it, where the handler does not.
use super::last_append;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::process::server;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A handler that runs.
pub struct Acting {
    /// The registrant.
    pub role: String,
    /// What the audit view shows as the actor: "projection balances".
    pub actor: String,
    /// The event it was called for, where it is one: its id, and its metadata.
    pub event: Cell<Option<([u8; 16], Option<Datum>)>>,
}

thread_local! {
    static ACTING: RefCell<Option<Rc<Acting>>> = const { RefCell::new(None) };
}

/// Who acts, if a handler runs.
pub fn current() -> Option<Rc<Acting>> {
    ACTING.with_borrow(Clone::clone)
}

/// Who is said to have recorded what is done now: the registrant of the handler that runs, else the session's user.
pub fn recorded_by() -> Result<String> {
    match current() {
        Some(acting) => Ok(acting.role.clone()),
        None => server::role_name(server::session_role()),
    }
}

/// For what a projection's code cannot do while it is being applied. Errors: 0A000 inside of it.
pub fn refuse(call: &str) -> Result<()> {
    if current().is_none() {
        return Ok(());
    }
    Err(Error::FeatureNotSupported {
        what: format!("{call} cannot be called by a projection's handler"),
        hint: Some("A projection is advanced by workers and by sessions, never from within.".into()),
    }
    .into())
}

/// Runs `work` on behalf of a handler.
pub fn during<T>(acting: &Rc<Acting>, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Rc<Acting>>);
    impl Drop for Before {
        fn drop(&mut self) {
            ACTING.set(self.0.take());
        }
    }
    let _before = Before(ACTING.replace(Some(Rc::clone(acting))));
    last_append::apart(work)
}

/// The metadata of an event that is to be appended, with what a handler left out: actor, causation_id and correlation_id.
pub fn complete(metadata: Jsonb<'_>) -> Result<Jsonb<'_>> {
    let Some(acting) = current() else { return Ok(metadata) };
    let mut added = serde_json::Map::new();
    added.insert("actor".into(), acting.actor.clone().into());
    if let Some((event_id, of_event)) = acting.event.get() {
        added.insert("causation_id".into(), to_uuid_text(&event_id).into());
        if let Some(of_event) = of_event {
            Jsonb::of_datum(of_event)?.each(|key, value| {
                if let ("correlation_id", Value::Text(id)) = (key, value) {
                    added.insert(key.into(), id.into());
                }
                Ok(())
            })?;
        }
    }
    metadata.each(|key, _| {
        added.remove(key);
        Ok(())
    })?;
    if added.is_empty() {
        return Ok(metadata);
    }
    // The handler's own members go through as text: a number keeps its value and scale.
    let added = serde_json::Value::Object(added).to_string();
    let own = String::from_utf8_lossy(metadata.text()?);
    let own = own.strip_prefix('{').unwrap_or_default();
    let comma = if own == "}" { "" } else { ", " };
    Jsonb::parse(&format!("{}{comma}{own}", added.strip_suffix('}').unwrap_or_default()))
}
