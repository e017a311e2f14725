//! Which keys are scheduled, for whoever is about to execute a command with one, or to schedule it: a read of one row. What is executed before its time is over then.
use super::super::covered;
use super::unwanted::{AtWork, at_work};
use crate::log::dead_letters;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::lock;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::undone;
use crate::pg::query::columns::{number, table};
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::probe::{Bound, Presence, Probe};
use crate::pg::relation;
use crate::pg::value::datum::from_text;
use crate::shared::catalog::Catalog;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::command::key::Repeated;
use eventstream_core::command::scheduled::Stage;
use eventstream_core::error::Error;
use eventstream_core::shown;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::{Datum, INT8OID, Oid, TransactionId};
use std::cell::RefCell;

table! {
    /// The table scheduled_commands.
    pub mod scheduled;
    ID,
    TENANT_ID,
    CATEGORY,
    COMMAND_KEY,
    STREAM,
    COMMAND_TYPE,
    SALT,
    REQUEST_DIGEST,
    PAYLOAD,
    METADATA,
    DECIDER,
    SUBJECT,
    RUN_AT,
    STAGE,
    DUE_AT,
    ATTEMPTS,
    ERROR_SQLSTATE,
    ERROR_MESSAGE,
    ERROR_DETAIL,
    REASON,
    REGISTRANT,
    REGISTRANT_OID,
    RECORDED_BY,
    SCHEDULED_AT,
    FINISHED_AT,
}

/// The columns of the index scheduled_commands_pkey, by their numbers.
const KEY: &[i16] = &[number(scheduled::TENANT_ID), number(scheduled::COMMAND_KEY), number(scheduled::CATEGORY)];

thread_local! {
    static PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
    static EXECUTED: Plan = const { Plan::new(
        "update _eventstream.scheduled_commands \
         set stage = 'done', finished_at = clock_timestamp(), due_at = null, payload = null, metadata = null, \
             error_sqlstate = null, error_message = null, error_detail = null \
         where id = (select id from _eventstream.scheduled_commands where id = $1 and stage in ('pending', 'dead', 'refused') for update skip locked) returning id",
        &[INT8OID],
    ) };
    static MAY_BE: Plan = const { Plan::new(
        "select from _eventstream.scheduled_commands where id = $1 and stage in ('pending', 'dead', 'refused')",
        &[INT8OID],
    ) };
    static WAIT: Plan = const { Plan::new("select from _eventstream.scheduled_commands where id = $1 for update", &[INT8OID]) };
}

/// A command that is scheduled under a key.
pub struct Kept {
    id: i64,
    /// Somebody took it back, or dropped it.
    is_given_up: bool,
}

/// How a key stands.
pub enum Standing {
    Free,
    /// For the same request.
    Scheduled(Kept),
    /// That transaction is scheduling it now, and how it ends decides.
    Coming(TransactionId),
}

/// A key is one request's, whenever it is executed. Errors: ES030 where it is scheduled for another one.
pub fn look(target: Target, category: &str, key: &str, repeated: &Repeated) -> Result<Standing> {
    if relation::is_without_page(Catalog::current()?.scheduled_commands)? {
        return Ok(Standing::Free);
    }
    let tenant = Datum::from(target.id);
    let (presence, found) = as_owner(Planning::ByIndex, |db, catalog| {
        let bounds = [Bound::equal_text(2, from_text(&trial::key(key))?), Bound::equal_text(3, from_text(category)?)];
        let table = catalog.scheduled_commands;
        let probe = PROBE.take().filter(|(of, _)| *of == table);
        let (_, probe) = probe.unwrap_or((table, Probe::by_int8(table, KEY)));
        let mut found = None;
        let presence = probe.presence(db, tenant, &bounds, |row| {
            let salt = row.bytes_opt(scheduled::SALT)?.unwrap_or_default();
            let id = row.int8(scheduled::ID)?;
            let is_same = repeated.has(salt, row.bytes_opt(scheduled::REQUEST_DIGEST)?, at_work() == id);
            let stage = row.text(scheduled::STAGE)?;
            let is_given_up = [Stage::Unscheduled, Stage::Dropped].iter().any(|given_up| given_up.as_str() == stage);
            let differs_in_digest = row.text(scheduled::STREAM)? == repeated.stream
                && row.text(scheduled::COMMAND_TYPE)? == repeated.command_type;
            let kept_at = differs_in_digest.then_some(row.int8(scheduled::SCHEDULED_AT)?);
            found = Some((is_same, kept_at, Kept { id, is_given_up }));
            Ok(())
        })?;
        PROBE.set(Some((table, probe)));
        Ok((presence, found))
    })?;
    match (presence, found) {
        (Presence::Coming(transaction), _) => Ok(Standing::Coming(transaction)),
        (_, None) => Ok(Standing::Free),
        (_, Some((true, _, kept))) => Ok(Standing::Scheduled(kept)),
        (_, Some((false, kept_at, _))) => {
            let of = format!("category {}", shown(category));
            Err(covered::reused(target.id, repeated.command_type, of, key, kept_at)?.into())
        }
    }
}

/// Who is in the way of a command's end: to be waited for when everything that it has locked is given back.
#[derive(Clone, Copy)]
pub enum InTheWay {
    /// It is scheduling the key.
    Transaction(TransactionId),
    /// Somebody has that scheduled command in hand.
    Row(i64),
}

impl InTheWay {
    pub fn wait(self) -> Result<()> {
        match self {
            Self::Transaction(transaction) => lock::wait_for_end_of(transaction),
            Self::Row(id) => undone(|| {
                as_owner(Planning::ByIndex, |db, _| {
                    WAIT.with(|plan| plan.first(db, View::Write, &[Some(Datum::from(id))], |_| Ok(()))).map(drop)
                })
            }),
        }
    }
}

/// It was executed, by whoever sent its key, with its answer kept: what is scheduled with it is over, with the commit of its events. `kept`: as it stood when this began. Somebody may have
/// scheduled it since, who waits for nobody: of two at once each writes first and then looks. Some: that one is waited for by nobody who holds streams. Errors: ES030.
pub fn executed(
    target: Target,
    category: &str,
    key: &str,
    repeated: &Repeated,
    kept: Option<&Kept>,
) -> Result<Option<InTheWay>> {
    if let Some(kept) = kept {
        return kept.executed(category, key);
    }
    match look(target, category, key, repeated)? {
        Standing::Free => Ok(None),
        Standing::Scheduled(kept) => kept.executed(category, key),
        Standing::Coming(transaction) => Ok(Some(InTheWay::Transaction(transaction))),
    }
}

impl Kept {
    /// What was said not to be executed is not. Errors: ES030.
    pub fn may_be_executed(&self, category: &str, key: &str) -> Result<()> {
        if self.is_given_up { Err(given_up(category, key)) } else { Ok(()) }
    }

    /// Until that is dropped, it is being executed.
    pub fn at_work(&self) -> AtWork {
        AtWork::begin(self.id)
    }

    /// Whether this session is its runner, which says by itself that it is over.
    pub fn is_at_work(&self) -> bool {
        at_work() == self.id
    }

    /// Errors: ES030 where it is given up.
    fn executed(&self, category: &str, key: &str) -> Result<Option<InTheWay>> {
        as_owner(Planning::ByIndex, |db, _| {
            let row = [Some(Datum::from(self.id))];
            if let Some(id) = EXECUTED.with(|plan| plan.first(db, View::Write, &row, |row| row.int8(0)))? {
                return dead_letters::forget_command(db, id).map(|()| None);
            }
            let may_be = MAY_BE.with(|plan| plan.first(db, View::Latest, &row, |_| Ok(())))?;
            if may_be.is_some() { Ok(Some(InTheWay::Row(self.id))) } else { Err(given_up(category, key)) }
        })
    }
}

fn given_up(category: &str, key: &str) -> Failure {
    Error::Undecided(Box::new(Undecided::GivenUp { key: key.into(), category: category.into() })).into()
}
