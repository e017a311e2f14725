//! Executing what is due, one command a transaction, for whoever calls it: a runner, a turn of one tenant's at a time.
//!
//! ```text
//! a page of those that are due ─▶ the first that no other runner has claimed ─▶ as who scheduled it, in a subtransaction: execute.rs ─▶ its row, without waiting ─▶ over
//!    │ somebody has the row in hand: all of it is undone, and done again later                                   └─ fails ─▶ undone, and noted (ends.rs)
//!    └─ the role is gone ─▶ dead
//! ```
use super::super::answers::Key;
use super::super::commanded::{Command, Given};
use super::super::execute::execute;
use super::ends::{self, Tried};
use super::unwanted::{self, AtWork};
use crate::access::{self, authorize, needs_token};
use crate::log::acting::{self, Acting};
use crate::log::activation;
use crate::log::gate;
use crate::log::noted;
use crate::log::target::Target;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::function::call::{self, Code, Position, Registrant};
use crate::pg::jsonb::{Stored, Value};
use crate::pg::process::lock::LockTag;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::{attempt_told, undone};
use crate::pg::process::test_point::test_point;
use crate::pg::process::{life, server};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::present::protected::Under;
use crate::shared::board::runner;
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Histogram};
use crate::shared::session::as_owner;
use crate::shared::within;
use crate::usercode::registrant_of;
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID, TIMESTAMPTZOID};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::rc::Rc;
use std::time::Duration;

/// How many of those that are due are looked up at once, and counted at most.
const PAGE: i64 = 64;
/// When one that somebody has in hand is tried again (µs).
const KEPT_PAUSE: i64 = 50_000;
/// What each of them adds to that where there are many (µs).
const KEPT_COST: i64 = 200;
/// What the commands of a role that is gone fail with: undefined_object.
const ROLE_GONE: &str = "42704";

columns! {
    mod of, selected;
    TENANT = "t.name",
    CATEGORY = "s.category",
    COMMAND_KEY = "s.command_key",
    STREAM = "s.stream",
    COMMAND_TYPE = "s.command_type",
    PAYLOAD = "s.payload",
    METADATA = "s.metadata",
    DECIDER = "s.decider",
    SUBJECT = "s.subject",
    RUN_AT = "s.run_at",
    ATTEMPTS = "s.attempts",
    REGISTRANT = "s.registrant",
    ROLE = "r.oid",
    RECORDED_BY = "s.recorded_by",
    TENANT_ID = "s.tenant_id",
}

thread_local! {
    /// Of the last attempt of this backend.
    static UNDER: Cell<Option<Under>> = const { Cell::new(None) };
    static PAGE_OF: Plan = const { Plan::new(
        "select due_at, id from _eventstream.scheduled_commands where tenant_id = $1 and finished_at is null and due_at <= $2 and (due_at, id) > ($4, $5) \
         order by due_at, id limit $3",
        &[INT8OID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID],
    ) };
    static NEXT: Plan = const { Plan::new(
        "select min(due_at) from _eventstream.scheduled_commands where tenant_id = $1 and finished_at is null and due_at > $2",
        &[INT8OID, TIMESTAMPTZOID],
    ) };
    static LOAD: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from _eventstream.scheduled_commands s join _eventstream.tenants t on t.id = s.tenant_id", registrant_of!("s"),
            "where s.id = $1 and s.finished_at is null and s.due_at <= $2"
        ),
        &[INT8OID, TIMESTAMPTZOID],
    ) };
    static DUE: Plan = const { Plan::new(
        "with recursive tenants (tenant_id) as ( \
             select (select min(s.tenant_id) from _eventstream.scheduled_commands s where s.finished_at is null) \
             union all \
             select (select min(s.tenant_id) from _eventstream.scheduled_commands s where s.finished_at is null and s.tenant_id > t.tenant_id) \
             from tenants t where t.tenant_id is not null) \
         select t.tenant_id, \
                (select min(s.due_at) from _eventstream.scheduled_commands s where s.tenant_id = t.tenant_id and s.finished_at is null and s.due_at > $1), \
                (select count(*) from (select from _eventstream.scheduled_commands s \
                                       where s.tenant_id = t.tenant_id and s.finished_at is null and s.due_at <= $1 limit $2) d) \
         from tenants t where t.tenant_id is not null",
        &[TIMESTAMPTZOID, INT8OID],
    ) };
}

/// What a tenant has to be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agenda {
    pub tenant_id: i64,
    /// How many are due, [`PAGE`] at most.
    pub due: usize,
    /// When the next one is (microseconds since 2000-01-01 UTC).
    pub next: Option<i64>,
}

/// Of all tenants that have some; none in a copy that was not activated.
pub fn agenda() -> Result<Vec<Agenda>> {
    if !activation::is_active()? {
        return Ok(Vec::new());
    }
    let row = [Some(Datum::from(server::clock())), Some(Datum::from(PAGE))];
    as_owner(Planning::ByIndex, |db, _| {
        DUE.with(|plan| {
            plan.rows(db, View::Latest, 0, &row, |row| {
                Ok(Agenda { tenant_id: row.int8(0)?, next: row.int8_opt(1), due: row.int8(2)?.unsigned_abs() as usize })
            })
        })
    })
}

/// A runner's turn with the commands of a tenant. It goes past those that somebody has in hand, and where that takes longer than a turn, the next one goes on there.
pub struct Turn {
    tenant_id: i64,
    /// By when they are due, and their ids.
    left: VecDeque<(i64, i64)>,
    /// One was executed since the page was looked up, or put aside.
    gets_on: bool,
    at: Place,
}

/// How far a pass through a tenant's commands has come.
#[derive(Clone, Copy)]
struct Place {
    tenant_id: i64,
    after: (i64, i64),
    /// Those that somebody has in hand, since it began.
    kept: i64,
}

impl Place {
    const fn beginning(tenant_id: i64) -> Self {
        // DT_NOBEGIN of datatype/timestamp.h.
        Self { tenant_id, after: (i64::MIN, 0), kept: 0 }
    }
}

thread_local! {
    static LEFT_AT: Cell<Place> = const { Cell::new(Place::beginning(0)) };
}

/// What a step of a turn came to.
pub enum Step {
    /// One was executed, or failed, or many were gone past.
    Ran,
    /// There is nothing for this runner before then (None: at all).
    Rest { until: Option<i64> },
}

/// A command that is due.
struct Due {
    id: i64,
    tenant_id: i64,
    tenant: String,
    category: String,
    key: String,
    stream: String,
    command_type: String,
    payload: Stored,
    metadata: Stored,
    decider: Option<String>,
    subject: Option<String>,
    run_at: i64,
    attempts: i32,
    registrant: Registrant,
    recorded_by: String,
}

fn due(id: i64, row: &Row) -> Result<Due> {
    let text = |column| row.text(column).map(ToOwned::to_owned);
    let text_opt = |column| row.text_opt(column).map(|text| text.map(ToOwned::to_owned));
    let lost = || Error::Internal { what: format!("scheduled command {id} has lost its payload") };
    let document = |column| -> Result<Stored> { Ok(row.jsonb_opt(column)?.map(Stored::keep).ok_or_else(lost)?) };
    Ok(Due {
        id,
        tenant_id: row.int8(of::TENANT_ID)?,
        tenant: text(of::TENANT)?,
        category: text(of::CATEGORY)?,
        key: text(of::COMMAND_KEY)?,
        stream: text(of::STREAM)?,
        command_type: text(of::COMMAND_TYPE)?,
        payload: document(of::PAYLOAD)?,
        metadata: document(of::METADATA)?,
        decider: text_opt(of::DECIDER)?,
        subject: text_opt(of::SUBJECT)?,
        run_at: row.int8(of::RUN_AT)?,
        attempts: row.int4(of::ATTEMPTS)?,
        registrant: Registrant {
            role: text(of::REGISTRANT)?,
            oid: row.oid_opt(of::ROLE),
            search_path: c"pg_catalog, pg_temp".into(),
        },
        recorded_by: text(of::RECORDED_BY)?,
    })
}

/// A command that no other runner has claimed, nor will until the end of this transaction; None: another one has, or it is not due any more.
fn claim(id: i64) -> Result<Option<(Due, LockTag)>> {
    let claimed = LockTag { table: Catalog::current()?.scheduled_commands, object: id, part: 0 };
    if !claimed.try_lock()? {
        return Ok(None);
    }
    // Behind the lock: whoever had it before has said what came of it.
    let row = [Some(Datum::from(id)), Some(Datum::from(server::clock()))];
    let found =
        as_owner(Planning::ByIndex, |db, _| LOAD.with(|plan| plan.first(db, View::Latest, &row, |row| due(id, row))))?;
    if found.is_none() {
        claimed.unlock()?;
    }
    Ok(found.map(|due| (due, claimed)))
}

impl Turn {
    pub fn new(tenant_id: i64) -> Self {
        let left_at = LEFT_AT.get();
        // Where none was gone past, those before are over, or were another runner's, which may not have come back from them.
        let goes_on = left_at.tenant_id == tenant_id && left_at.kept > 0;
        let at = if goes_on { left_at } else { Place::beginning(tenant_id) };
        Self { tenant_id, left: VecDeque::new(), gets_on: true, at }
    }

    /// Executes the next command that is due, in this transaction. An error is the end of the transaction: [`note_failure`] is told of it, of the command that
    /// [`runner::part`] says.
    pub fn step(&mut self) -> Result<Step> {
        if !activation::is_active()? {
            return Ok(Step::Rest { until: None });
        }
        let most = self.at.kept + PAGE;
        while self.at.kept < most {
            let Some((due_at, id)) = self.left.pop_front() else {
                // What others have claimed stands on each page: without anything of its own there is nothing for this runner.
                if !std::mem::take(&mut self.gets_on) || !self.turn_page()? {
                    return self.rest();
                }
                continue;
            };
            self.at.after = (due_at, id);
            LEFT_AT.set(self.at);
            if let Some((due, claimed)) = claim(id)? {
                runner::note_part(id);
                self.gets_on = true;
                if due.run()? {
                    return Ok(Step::Ran);
                }
                claimed.unlock()?;
                self.at.kept += 1;
                LEFT_AT.set(self.at);
            }
        }
        Ok(Step::Ran)
    }

    /// Whether there is any on it.
    fn turn_page(&mut self) -> Result<bool> {
        let row = [
            Some(Datum::from(self.tenant_id)),
            Some(Datum::from(server::clock())),
            Some(Datum::from(PAGE)),
            Some(Datum::from(self.at.after.0)),
            Some(Datum::from(self.at.after.1)),
        ];
        let ids = as_owner(Planning::ByIndex, |db, _| {
            PAGE_OF.with(|plan| plan.rows(db, View::Latest, 0, &row, |row| Ok((row.int8(0)?, row.int8(1)?))))
        })?;
        self.left = ids.into();
        Ok(!self.left.is_empty())
    }

    fn rest(&mut self) -> Result<Step> {
        let now = server::clock();
        let next = next(self.tenant_id, now)?;
        // The more there are, the more a pass costs.
        let pause = KEPT_PAUSE.max(self.at.kept.saturating_mul(KEPT_COST));
        let kept = (self.at.kept > 0).then_some(now + pause);
        LEFT_AT.set(Place::beginning(0));
        self.at = Place::beginning(self.tenant_id);
        Ok(Step::Rest { until: next.into_iter().chain(kept).min() })
    }
}

/// When the first one of the tenant is due that is not due yet.
fn next(tenant_id: i64, now: i64) -> Result<Option<i64>> {
    let row = [Some(Datum::from(tenant_id)), Some(Datum::from(now))];
    let next = as_owner(Planning::ByIndex, |db, _| {
        NEXT.with(|plan| plan.first(db, View::Latest, &row, |row| Ok(row.int8_opt(0))))
    })?;
    Ok(next.flatten())
}

impl Due {
    fn tried(&self) -> Tried<'_> {
        let Self { id, tenant_id, key, stream, command_type, attempts, .. } = self;
        Tried { id: *id, tenant_id: *tenant_id, key, stream, command_type, attempts: attempts.saturating_add(1) }
    }

    /// False where somebody has it in hand, and nothing was done.
    fn run(&self) -> Result<bool> {
        let tried = self.tried();
        // Until what came of it is noted: what is protected meanwhile takes back that, too.
        gate::enter(self.tenant_id)?;
        UNDER.set(Some(Under::now()));
        let Some(role) = self.registrant.existing()? else {
            let message =
                format!("the role {} that scheduled it does not exist any more", shown(&self.registrant.role));
            return self.fail(&tried, &raised(ROLE_GONE, message), true);
        };
        // Looked at first: what is executed in vain takes positions, and time; and a client that has sent the key may take its time.
        let key =
            Key { target: Target { id: self.tenant_id, name: &self.tenant }, category: &self.category, key: &self.key };
        if !undone(|| ends::take(self.id))? || key.is_in_hand()? {
            return Ok(false);
        }
        let is_kept = Cell::new(false);
        let work = || {
            // What invariants would refuse at the commit is this command's failure.
            noted::judged(|| self.execute(role))?;
            test_point("command executed");
            if !ends::take(self.id)? {
                is_kept.set(true);
                return Err(Error::Internal { what: "somebody has the scheduled command in hand".into() }.into());
            }
            ends::done(&tried)
        };
        match attempt_told(|_| false, work)? {
            Ok(()) => {
                let late = server::clock().saturating_sub(self.run_at).max(0);
                counters::observe(Histogram::ScheduledDelay, Duration::from_micros(late.unsigned_abs()));
                test_point("command done");
                Ok(true)
            }
            Err(_) if is_kept.get() => Ok(false),
            Err(caught) => self.fail(&tried, &caught, false),
        }
    }

    fn fail(&self, tried: &Tried, caught: &Caught, is_hopeless: bool) -> Result<bool> {
        if !ends::take(self.id)? {
            return Ok(false);
        }
        if let Some(ended) = access::ended(self.tenant_id)? {
            unwanted::withdraw(self.id, &ended.reason)?;
            return Ok(true);
        }
        ends::failed(tried, caught, is_hopeless)?;
        Ok(true)
    }

    /// Who is said to act by what it was scheduled with.
    fn actor(&self) -> Result<Option<String>> {
        let mut actor = None;
        self.metadata.view().each(|key, value| {
            if let ("actor", Value::Text(named)) = (key, value) {
                actor = Some(named.to_owned());
            }
            Ok(())
        })?;
        Ok(actor)
    }

    /// As es_command of the role that scheduled it, in the tenant.
    fn execute(&self, role: pgrx::pg_sys::Oid) -> Result<()> {
        let _at_work = AtWork::begin(self.id);
        let by_token = if needs_token(role)? { self.actor()? } else { None };
        let acting = Rc::new(Acting::scheduled(self.recorded_by.clone(), by_token));
        let what = CString::new(format!("scheduled command {}", shown(&self.key))).unwrap_or_default();
        let at = Position::counted(&what, c"attempt", self.attempts.saturating_add(1).into());
        call::as_registrant(role, &self.registrant.search_path, Code::Handler, &at, || {
            let work = || {
                let access = authorize(Privilege::Command, &self.category)?;
                let command = Command {
                    is_kept: true,
                    ..Command::check(Given {
                        stream: &self.stream,
                        command_type: &self.command_type,
                        payload: self.payload.view(),
                        expected_version: None,
                        metadata: self.metadata.view(),
                        key: Some(&self.key),
                        occurred_at: None,
                        decider: self.decider.as_deref(),
                        subject: self.subject.as_deref(),
                    })?
                };
                execute(Target { id: access.tenant_id, name: &access.tenant }, &command).map(drop)
            };
            within::during(self.tenant_id, &self.tenant, || acting::during(&acting, work))
        })
    }
}

/// What it fails with that no error was raised for.
fn raised(sqlstate: &str, message: String) -> Caught {
    let sqlstate = sqlstate.into();
    Caught { sqlstate, message, detail: None, constraint: None, column: None, is_of_event: false }
}

/// Notes what ended the transaction in which that command was executed, in another one.
pub fn note_failure(id: i64, caught: &Caught) -> Result<()> {
    // Another runner may have it by now: it meets what fails, or executes it.
    if let Some((due, _)) = claim(id)? {
        gate::enter(due.tenant_id)?;
        let told = UNDER.take().map(|under| under.told(due.tenant_id, caught)).transpose()?;
        due.fail(&due.tried(), told.as_ref().unwrap_or(caught), false)?;
    }
    Ok(())
}

/// The same of one whose runner did not come back from it.
pub fn note_death(id: i64, sqlstate: &str, message: &str) -> Result<()> {
    let message = format!("it was ended{}: {message}", life::in_database());
    note_failure(id, &raised(sqlstate, message))
}
