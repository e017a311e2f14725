//! es_simulate_command: what a command would come to, as the caller sees the log. Locks and writes nothing, and a refusal is a part of the answer.
use super::bounds::{Bounds, object_of};
use super::commanded::Command;
use super::covered;
use super::decide::{Decision, decide};
use super::deciding::Deciding;
use super::{deciders, ended, ruling};
use crate::access::{authorize, authorize_all};
use crate::log::target::Target;
use crate::log::whole;
use crate::pg::error::failure::{Caught, Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::{attempt_told, undone};
use crate::pg::query::plan::View;
use crate::shared::session::as_owner;
use eventstream_core::command::boundary::{Dependency, Found, Role};
use eventstream_core::command::scheduled::REFUSED;
use eventstream_core::document;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use serde_json::json;

/// A JSON object: boundary, versions, states, events, result, schedule, unschedule, refusal. Errors: those of es_command, but for refusals; 42501 where the role may not read a stream of the boundary.
pub fn rehearse<'a>(target: Target, command: &Command) -> Result<Jsonb<'a>> {
    server::must_not_only_read(c"es_simulate_command")?;
    // A decider writes nothing, but what it calls may.
    undone(|| looked_ahead(target, command))
}

fn looked_ahead<'a>(target: Target, command: &Command) -> Result<Jsonb<'a>> {
    ended::must_be_open(target.id)?;
    let decider = deciders::of(target.id, command.stream.category(), command.decider)?;
    decider.must_take(command.command_type, command.payload.text)?;
    let deciding = Deciding { target, command, decider: &decider };
    let bounds = match unless_refused(|| Bounds::of(&deciding))? {
        Ok(bounds) => bounds,
        Err(refused) => return answer("null", "null", "null", None, Some(&told(target, command, refused)?)),
    };
    deciding.after_boundary(|| looked_beyond(&deciding, &bounds))
}

fn looked_beyond<'a>(deciding: &Deciding, bounds: &Bounds) -> Result<Jsonb<'a>> {
    let Deciding { target, command, .. } = *deciding;
    authorize_all(Privilege::Read, bounds.categories()?.as_deref())?;
    let streams = bounds.look(target)?;
    let version = streams.get(command.stream.as_str()).map_or(0, |held| held.version());
    let dependency = Dependency { stream: command.stream.as_str(), expected: command.expected, role: Role::Checked };
    dependency.judge(Found { version, is_closed: false })?;
    let states = bounds.states(deciding, &streams, View::Caller)?;
    let decided = unless_refused(|| deciding.after(|| decide(deciding, bounds, &streams, &states)))?;
    if let Ok(decision) = &decided {
        deciding.after(|| {
            stays_inside(deciding, bounds, decision)?;
            decision.later.authorize()
        })?;
    }
    let writes: Vec<_> = bounds.all.difference(&bounds.read).collect();
    let mut boundary = json!({"streams": bounds.read, "writes": writes});
    if let (Some(query), Some(members)) = (&bounds.query, boundary.as_object_mut()) {
        members.insert("items".into(), query.items());
    }
    let boundary = boundary.to_string();
    let versions: serde_json::Map<_, _> =
        streams.iter().map(|(name, held)| (name.clone(), json!(held.version()))).collect();
    let states = object_of(&states)?;
    let states = String::from_utf8_lossy(states.text()?);
    let (mut decision, refused) =
        decided.map_or_else(|refused| (None, Some(refused)), |decision| (Some(decision), None));
    if let Some(decision) = &mut decision {
        deciding.after(|| hide(target, command, decision))?;
    }
    let refused = refused.map(|refused| told(target, command, refused)).transpose()?;
    answer(&boundary, &serde_json::Value::Object(versions).to_string(), &states, decision.as_ref(), refused.as_ref())
}

/// What is protected of what would follow is not told: a decider may have it from elsewhere than the caller.
fn hide(target: Target, command: &Command, decision: &mut Decision) -> Result<()> {
    decision.result = covered::result(target.id, command.command_type, decision.result)?;
    decision.later.hide(target.id)?;
    let ruling = ruling::of(target.id)?;
    for decided in &mut decision.events {
        ruling.declared.complete(std::slice::from_mut(&mut decided.event))?;
        decided.document = covered::decided(target.id, &decided.event, decided.document)?;
    }
    Ok(())
}

/// A refusal may repeat whatever the decider was given.
fn told(target: Target, command: &Command, refused: Caught) -> Result<Caught> {
    if !covered::has_secrets(target.id, command.command_type)? {
        return Ok(refused);
    }
    Ok(Caught { message: covered::WITHHELD.into(), detail: None, ..refused })
}

/// What `work` makes, or the refusal that it raises; other errors pass.
fn unless_refused<T>(work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    let passes = |failure: &Failure| match failure {
        Failure::Postgres(error) => error.sqlstate() != REFUSED,
        Failure::Rule(error) => error.sqlstate() != REFUSED,
    };
    attempt_told(passes, work)
}

/// Errors: 42501, ES034.
fn stays_inside(deciding: &Deciding, bounds: &Bounds, decision: &Decision) -> Result<()> {
    for decided in &decision.events {
        let stream = StreamName::parse_own(&decided.stream)?;
        authorize(Privilege::Command, stream.category())?;
        if bounds.all.contains(&decided.stream) {
            continue;
        }
        let found = as_owner(Planning::ByIndex, |db, catalog| {
            whole::look_up(db, catalog, View::Caller, deciding.target.id, &stream)
        })?;
        if found.is_some() {
            let name = shown(&decided.stream);
            return Err(deciding.beyond(format!("it appends to stream {name}, which has events already")));
        }
    }
    Ok(())
}

fn answer<'a>(
    boundary: &str,
    versions: &str,
    states: &str,
    decision: Option<&Decision>,
    refused: Option<&Caught>,
) -> Result<Jsonb<'a>> {
    let mut events = Vec::new();
    for decided in decision.iter().flat_map(|decision| &decision.events) {
        let own = String::from_utf8_lossy(decided.document.text()?);
        // Of two members of one name jsonb keeps the later one.
        events.push(format!("{}, \"stream\": {}}}", own.strip_suffix('}').unwrap_or_default(), json!(decided.stream)));
    }
    let result = decision.and_then(|decision| decision.result).map(Jsonb::text).transpose()?.unwrap_or(b"null");
    let (mut schedule, mut unschedule) = (Vec::new(), Vec::new());
    if let Some(decision) = decision {
        for document in decision.later.documents() {
            schedule.push(String::from_utf8_lossy(document.text()?));
        }
        let keys = decision.later.unwanted();
        unschedule.extend(keys.map(|(key, category)| json!({"command_key": key, "category": category})));
    }
    let unschedule = serde_json::Value::from(unschedule);
    let refusal = refused.map_or("null".to_owned(), |refused| {
        let detail = refused.detail.as_deref().and_then(|detail| document::read(detail).ok());
        let code = detail.as_ref().and_then(|detail| detail.get("code")).cloned();
        json!({"code": code, "message": refused.message, "detail": detail}).to_string()
    });
    Jsonb::parse(&format!(
        "{{\"boundary\": {boundary}, \"versions\": {versions}, \"states\": {states}, \"events\": {}, \"result\": {}, \
          \"schedule\": [{}], \"unschedule\": {unschedule}, \"refusal\": {refusal}}}",
        if decision.is_some() { format!("[{}]", events.join(", ")) } else { "null".into() },
        String::from_utf8_lossy(result),
        schedule.join(", ")
    ))
}
