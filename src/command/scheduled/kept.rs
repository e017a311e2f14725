//! Which keys are scheduled, for whoever is about to execute a command with one, or to schedule it. A read of one row.
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::{number, table};
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Bound, Presence, Probe};
use crate::pg::value::datum::from_text;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use eventstream_core::command::key::Repeated;
use eventstream_core::error::Error;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, Oid, TransactionId};
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
}

/// A key is one request's, whenever it is executed. Some: that transaction is scheduling the key now, and how it ends decides. Errors: ES030 where it is scheduled for another request.
pub fn refuse_other(target: Target, category: &str, key: &str, repeated: &Repeated) -> Result<Option<TransactionId>> {
    let tenant = Datum::from(target.id);
    let found = as_owner(Planning::ByIndex, |db, catalog| {
        let bounds = [Bound::equal_text(2, from_text(key)?), Bound::equal_text(3, from_text(category)?)];
        let table = catalog.scheduled_commands;
        let probe = PROBE.take().filter(|(of, _)| *of == table);
        let (_, probe) = probe.unwrap_or((table, Probe::by_int8(table, KEY)));
        let presence = probe.presence(db, tenant, &bounds)?;
        let mut is_same = true;
        if presence == Presence::There {
            probe.in_order(db, View::Now, tenant, &bounds, |row| {
                let salt = row.bytes_opt(scheduled::SALT)?.unwrap_or_default();
                is_same = row.bytes_opt(scheduled::REQUEST_DIGEST)? == Some(&repeated.digest(salt)[..]);
                Ok(false)
            })?;
        }
        PROBE.set(Some((table, probe)));
        Ok((presence, is_same))
    })?;
    match found {
        (Presence::Coming(transaction), _) => Ok(Some(transaction)),
        (_, true) => Ok(None),
        (_, false) => {
            counters::add(Counter::CommandMismatches, 1);
            Err(Error::CommandKeyReused { of: format!("category {}", shown(category)), key: key.into() }.into())
        }
    }
}
