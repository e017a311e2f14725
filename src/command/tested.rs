//! es_test: given events, then a command or statements, then what is due at a commit; what came is compared with what was expected, and all of it is undone.
//!
//! ```text
//! given: appended one by one, each at its own time ─▶ command (execute.rs) or sql, as the role ─▶ SET CONSTRAINTS ALL IMMEDIATE, invariants ─▶ compared ─▶ undone
//!       └─ by the door in, with projections brought up, asynchronous ones too ─┘
//! ```
//! Promises: what a test does is what es_command and es_append do, and nothing of it is left, nor of its clock (src/shared/trial.rs); it sees no event that was there before; what is
//! wrong with a test is raised, and what is wrong with what it tests is told.
use super::commanded::{Command, Given};
use super::compared::{self, Outcome};
use super::execute::execute;
use super::write::write;
use crate::access::{Access, authorize, authorize_tenant};
use crate::log::event::{NewEvent, Parts, moment_of};
use crate::log::fresh_id::new_event_id;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::log::{acting, last_append, noted};
use crate::log::{gate, stream};
use crate::pg::error::failure::{Caught, Result, invalid};
use crate::pg::function::call;
use crate::pg::jsonb::{Jsonb, Shape, Value};
use crate::pg::process::session::{Planning, on_behalf_of, with_settings_put_back};
use crate::pg::process::subtransaction::{attempt, attempt_told, undone};
use crate::pg::process::{sequence, server};
use crate::pg::query::plan::View;
use crate::pg::query::spoken;
use crate::present::protected;
use crate::shared::session::as_owner;
use crate::shared::{settings, trial};
use eventstream_core::command::trial::{CommandElement, Differences, GivenElement};
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use pgrx::pg_sys::Oid;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::rc::Rc;

/// 1970-01-01 and 10000-01-01, in microseconds since 2000-01-01 UTC: times that events can have.
const FIRST: i64 = -946_684_800_000_000;
const END: i64 = 252_455_616_000_000_000;

/// What es_test is given.
pub struct Test<'a> {
    pub given: Jsonb<'a>,
    pub command: Option<Jsonb<'a>>,
    pub sql: Option<&'a str>,
    pub expected: compared::Expected,
    /// Its clock; None: the server's.
    pub at: Option<i64>,
    /// Whose rights the command or the statements have; None: the caller's.
    pub role: Option<Oid>,
}

/// An event that is given.
struct History<'a> {
    stream: StreamName<'a>,
    recorded_at: Option<i64>,
    parts: Parts<'a>,
}

/// What is wrong with what was tested. Errors: ES005 and others for what is wrong with the test; 42501; classes 40 and 57.
pub fn run(test: &Test) -> Result<Differences> {
    call::refuse_in_user_code()?;
    acting::refuse("es_test")?;
    server::must_not_only_read(c"es_test")?;
    server::must_be_writable(c"es_test")?;
    if trial::is_on() {
        let hint = Some("A test has one act: give the events that another test would leave.".into());
        return Err(Error::FeatureNotSupported { what: "es_test cannot be called within a test".into(), hint }.into());
    }
    if let Some(at) = test.at {
        check_time("at", at)?;
    }
    let history = read_given(test.given)?;
    let command = test.command.map(read_command).transpose()?;
    must_not_be_there(&history)?;
    let (after, _) = as_owner(Planning::ByIndex, |_, catalog| sequence::last(catalog.positions))?;
    last_append::apart(|| {
        trial::run(after, || {
            undone(|| {
                trial::set_clock(test.at);
                test.tried(history, command)
            })
        })
    })
}

fn check_time(argument: &str, moment: i64) -> Result<()> {
    if (FIRST..END).contains(&moment) {
        return Ok(());
    }
    Err(invalid(argument, "must lie between 1970-01-01 and 9999-12-31"))
}

/// Errors: ES004, ES005, ES007.
fn read_given(given: Jsonb<'_>) -> Result<Vec<History<'_>>> {
    if given.shape() != Shape::Array {
        return Err(invalid("given", "must be a JSON array"));
    }
    let (limit, count) = (settings::max_batch_events(), given.len() as i64);
    if count > limit {
        let what = format!("given has {count} elements");
        return Err(
            Error::LimitExceeded { setting: "eventstream.max_batch_events", limit, actual: Some(count), what }.into()
        );
    }
    let mut history = Vec::with_capacity(given.len());
    given.each(|_, element| {
        let place = history.len();
        history.push(read_event(element).map_err(|failure| failure.within(|| format!("given[{place}]")))?);
        Ok(())
    })?;
    Ok(history)
}

fn read_event(element: Value<'_>) -> Result<History<'_>> {
    let given: GivenElement<Jsonb> = element.read()?;
    let (stream, recorded_at, event) = given.split();
    let recorded_at = recorded_at.map(|text| moment_of("recorded_at", text)).transpose()?;
    if let Some(recorded_at) = recorded_at {
        check_time("recorded_at", recorded_at)?;
    }
    Ok(History { stream: StreamName::parse_own(stream)?, recorded_at, parts: Parts::of(event)? })
}

fn read_command(command: Jsonb<'_>) -> Result<Given<'_>> {
    let read = || -> Result<Given> {
        let given: CommandElement<Jsonb> = Value::Object(command).read()?;
        Ok(Given {
            stream: given.stream,
            command_type: given.command_type,
            payload: given.payload,
            expected_version: given.expected_version,
            metadata: given.metadata.map_or_else(|| Jsonb::parse("{}"), Ok)?,
            key: given.command_key,
            occurred_at: given.occurred_at.map(|text| moment_of("occurred_at", text)).transpose()?,
            decider: given.decider,
            subject: given.subject,
        })
    };
    if !command.is_object() {
        return Err(invalid("command", "must be a JSON object"));
    }
    read().map_err(|failure| failure.within(|| "command".into()))
}

/// Errors: ES005; 42501.
fn must_not_be_there(history: &[History]) -> Result<()> {
    for (place, event) in history.iter().enumerate() {
        let access = authorize(Privilege::Append, event.stream.category())?;
        let found = as_owner(Planning::ByIndex, |db, catalog| {
            stream::probe_name(db, catalog, View::Latest, access.tenant_id, &event.stream)
        })?;
        if found.is_some() {
            return Err(Error::InvalidArgument {
                argument: format!("given[{place}].stream"),
                reason: format!("must be new, and {} has events already", shown(event.stream.as_str())),
                hint: Some("A test has streams of its own: choose a name that nothing else has.".into()),
            }
            .into());
        }
    }
    Ok(())
}

impl Test<'_> {
    fn tried(&self, history: Vec<History>, command: Option<Given>) -> Result<Differences> {
        let mut differences = Differences::default();
        if let Err(caught) = self.give(history)? {
            let Caught { sqlstate, message, .. } = caught;
            differences.add(format!("given: could not be recorded: {message} ({sqlstate})"));
            return Ok(differences);
        }
        trial::set_clock(self.at);
        let begun = trial::positions(0).len();
        let (access, _) = authorize_tenant(None, Privilege::Append)?;
        let protected = protected::of(access.tenant_id)?;
        let is_protected =
            command.as_ref().is_some_and(|given| protected.told_of_command(given.command_type).is_some());
        let acted = attempt_told(
            |_| false,
            || {
                // What the statements set (a tenant, a role, strings) is theirs: what comes of them is compared as it would be without.
                with_settings_put_back(|| {
                    noted::judged(|| match self.role {
                        Some(role) => on_behalf_of(role, || self.act(command)),
                        None => self.act(command),
                    })
                })
            },
        )?;
        compared::compare(&self.expected, &Outcome { acted, begun, is_protected }, &mut differences)?;
        Ok(differences)
    }

    /// What happened before; what is wrong with it by the rules of the log is the test's difference.
    fn give(&self, history: Vec<History>) -> Result<std::result::Result<(), Caught>> {
        let mut events = Vec::with_capacity(history.len());
        let mut last = BTreeMap::new();
        for (place, History { stream, recorded_at, parts }) in history.into_iter().enumerate() {
            let now = self.at.unwrap_or_else(server::clock);
            let recorded_at = recorded_at.or(self.at);
            let moment = recorded_at.unwrap_or(now);
            let (count, before) = last.get(stream.as_str()).copied().unwrap_or((0, i64::MIN));
            if moment > now || moment < before {
                let reason = if moment > now {
                    "must not be after the time of the test"
                } else {
                    "must not be before that of the stream's event before"
                };
                return Err(invalid(format!("given[{place}].recorded_at"), reason));
            }
            last.insert(stream.as_str().to_owned(), (count + 1, moment));
            trial::set_clock(recorded_at);
            let mut event =
                NewEvent::check(parts, "type").map_err(|failure| failure.within(|| format!("given[{place}]")))?;
            if event.event_id.is_none() {
                event.event_id = Some(new_event_id()?);
            }
            events.push((stream, count, recorded_at, event));
        }
        attempt(|| {
            make_streams(last.keys())?;
            for (stream, count, recorded_at, event) in events {
                let access = authorize(Privilege::Append, stream.category())?;
                trial::set_clock(recorded_at);
                let expected = ExpectedVersion::parse(Some(count))?;
                write(
                    target(&access),
                    &mut [Request { stream, expected, events: vec![event], must_exist: false, held: None }],
                )?;
            }
            Ok(())
        })
    }

    /// The command or the statements, and what is due at their commit; what came of it.
    fn act(&self, command: Option<Given>) -> Result<Option<Json>> {
        let made = match (command, self.sql) {
            (Some(given), _) => self.result_of(given)?,
            (None, Some(sql)) => spoken::run(sql, |made| {
                let made = made.filter(|_| self.expected.has_result());
                made.map(|made| compared::parse("result", made)).transpose()
            })?,
            (None, None) => None,
        };
        spoken::run("set constraints all immediate", |_| Ok(()))?;
        Ok(made)
    }

    /// As es_command does it.
    fn result_of(&self, given: Given) -> Result<Option<Json>> {
        let access: Rc<Access> = authorize(Privilege::Command, StreamName::parse_own(given.stream)?.category())?;
        let command = Command::check(given)?;
        let answer = execute(target(&access), &command)?;
        if !self.expected.has_result() {
            return Ok(None);
        }
        let answer = compared::parse("result", answer)?;
        Ok(answer.get("result").cloned())
    }
}

/// Makes the rows of these streams, in the order of their names, as an append of several does: the events come in the order in which they are given.
fn make_streams<'a>(names: impl Iterator<Item = &'a String>) -> Result<()> {
    for name in names {
        let name = StreamName::parse_own(name)?;
        let access = authorize(Privilege::Append, name.category())?;
        gate::enter(access.tenant_id)?;
        as_owner(Planning::ByIndex, |db, catalog| stream::reserve(db, catalog, access.tenant_id, &name))?;
    }
    Ok(())
}

fn target(access: &Access) -> Target<'_> {
    Target { id: access.tenant_id, name: &access.tenant }
}
