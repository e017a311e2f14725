//! On whose behalf an append is made while a projection's handler or a scheduled command runs. An append of a handler's is recorded_by the handler's
//! registrant (the session may be a worker's), and its metadata say what caused it, where the handler does not. A command of a handler's has a key by what
//! caused it, and its place among the handler's: the same whenever the handler is given the event again.
use super::last_append;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::process::server;
use crate::shared::token;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use pgrx::pg_sys::Datum;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const ACTOR: &str = "actor";
const CORRELATION: &str = "correlation_id";

/// Who acts.
pub struct Acting {
    /// The registrant, or who scheduled a command.
    pub role: String,
    /// What the audit view shows as the actor: "projection balances".
    pub actor: String,
    /// The event it was called for, where it is one: its id, and its metadata.
    event: Cell<Option<([u8; 16], Option<Datum>)>>,
    /// None: it is a scheduled command.
    handler: Option<Handler>,
    /// Who is said to act whatever the code says: whom a token named when the command was scheduled.
    by_token: Option<String>,
}

/// A projection's handler.
struct Handler {
    projection: String,
    /// It is being rebuilt, up to that position.
    rebuilt_to: Option<i64>,
    /// Of the event, or of the first of several.
    position: Cell<Option<i64>>,
    /// How many keys it was given for the event.
    keys: Cell<u32>,
}

impl Acting {
    /// A projection's handler, whose registrant is `role`.
    pub fn handler(role: String, projection: &str) -> Self {
        let actor = format!("projection {projection}");
        let handler = Handler {
            projection: projection.to_owned(),
            rebuilt_to: REBUILT_TO.get(),
            position: Cell::new(None),
            keys: Cell::new(0),
        };
        Self { role, actor, event: Cell::new(None), handler: Some(handler), by_token: None }
    }

    /// A scheduled command that `role` is said to have asked for; `by_token`: as whom a token had it.
    pub fn scheduled(role: String, by_token: Option<String>) -> Self {
        Self { role, actor: "scheduled command".into(), event: Cell::new(None), handler: None, by_token }
    }

    /// The event that is handled from now on (None: there are several), and the position of the first.
    pub fn handles(&self, event: Option<([u8; 16], Option<Datum>)>, position: i64) {
        self.event.set(event);
        if let Some(handler) = &self.handler {
            handler.position.set(Some(position));
            handler.keys.set(0);
        }
    }
}

impl Handler {
    fn is_rebuilding(&self) -> bool {
        self.rebuilt_to.is_some_and(|to| self.position.get().is_none_or(|position| position <= to))
    }
}

/// Until this is dropped handlers are called for a rebuild, where it is one.
pub struct Rebuilding(Option<i64>);

impl Rebuilding {
    /// Up to that position; None: it is none.
    pub fn begin(to: Option<i64>) -> Self {
        Self(REBUILT_TO.replace(to))
    }
}

impl Drop for Rebuilding {
    fn drop(&mut self) {
        REBUILT_TO.set(self.0);
    }
}

thread_local! {
    static REBUILT_TO: Cell<Option<i64>> = const { Cell::new(None) };
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

/// The handler that runs, if one does, where commands may be given: what a rebuild is shown was acted upon when it was new. Errors: 0A000.
fn commanding(call: &str) -> Result<Option<Rc<Acting>>> {
    let Some(acting) = current() else { return Ok(None) };
    match &acting.handler {
        Some(handler) if handler.is_rebuilding() => Err(Error::FeatureNotSupported {
            what: format!("{call} is refused while projection \"{}\" is being rebuilt", handler.projection),
            hint: Some(
                "What its events led to was done when they were new. A handler that gives commands is not rebuilt: keep what is read apart, in a projection of its own."
                    .into(),
            ),
        }
        .into()),
        Some(_) => Ok(Some(acting)),
        None => Ok(None),
    }
}

/// Errors: 0A000 in the handler of a projection that is being rebuilt.
pub fn refuse_in_rebuild(call: &str) -> Result<()> {
    commanding(call).map(drop)
}

/// The key of a command that was `given` none: in a handler by the projection, the event and the place among the handler's commands, so that it is the same command
/// whenever the event is handled again; None outside of one. Errors: 0A000 as [`refuse_in_rebuild`]; ES005 where it is not known which event is handled.
pub fn command_key(call: &str, given: Option<&str>) -> Result<Option<String>> {
    let acting = commanding(call)?;
    if given.is_some() {
        return Ok(None);
    }
    let Some(handler) = acting.as_ref().and_then(|acting| acting.handler.as_ref()) else { return Ok(None) };
    let Some((event_id, _)) = acting.as_ref().and_then(|acting| acting.event.get()) else {
        return Err(Error::InvalidArgument {
            argument: "command_key".into(),
            reason: format!("must be given to {call} where a handler is not called for one event"),
            hint: Some(
                "It is what keeps the command from being executed again with the event: make it of the event's id."
                    .into(),
            ),
        }
        .into());
    };
    handler.keys.set(handler.keys.get() + 1);
    Ok(Some(format!("{}:{}:{}", handler.projection, to_uuid_text(&event_id), handler.keys.get())))
}

/// For what a projection's code cannot do while it is being applied. Errors: 0A000 inside of it.
pub fn refuse(call: &str) -> Result<()> {
    if current().is_none_or(|acting| acting.handler.is_none()) {
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

/// Who is said to act, where a token says that: whatever the call and the session claim.
fn of_token(metadata: Jsonb<'_>) -> Result<Jsonb<'_>> {
    match token::in_use() {
        Some(token) => with_actor(metadata, &token.claims.subject),
        None => Ok(metadata),
    }
}

fn with_actor<'a>(metadata: Jsonb<'a>, actor: &str) -> Result<Jsonb<'a>> {
    if metadata.member_text(ACTOR)? == Some(actor) { Ok(metadata) } else { metadata.with_text(ACTOR, actor) }
}

/// The metadata of an event that is to be appended, with what a handler left out: actor, causation_id and correlation_id; or with the actor that the session's token names.
pub fn complete(metadata: Jsonb<'_>) -> Result<Jsonb<'_>> {
    let Some(acting) = current() else { return of_token(metadata) };
    if let Some(actor) = &acting.by_token {
        return with_actor(metadata, actor);
    }
    let mut added = ObjectBuilder::begin()?;
    added.put(ACTOR, Part::text(&acting.actor))?;
    let caused_by = acting.event.get();
    let event_id = caused_by.map(|(event_id, _)| to_uuid_text(&event_id));
    if let Some(event_id) = &event_id {
        added.put("causation_id", Part::text(event_id))?;
    }
    if let Some((_, Some(of_event))) = caused_by
        && let Some(id) = Jsonb::of_datum(of_event)?.member_text(CORRELATION)?
    {
        added.put(CORRELATION, Part::text(id))?;
    }
    // The handler's own members count before these.
    added.put_all(metadata)?;
    added.finish()
}
