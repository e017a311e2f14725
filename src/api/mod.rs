//! What SQL can call, one file for what belongs together for a caller. A function here reads its arguments, asks `access`, calls one
//! function and returns. Nobody uses this module.
mod announce;
mod append;
mod audit;
mod category;
mod command;
mod condition;
mod day;
mod decider;
mod event_type;
mod fold;
pub mod guard;
mod history;
mod invariant;
mod made;
mod maintain;
mod operate;
mod operation;
mod period;
mod projection;
mod protect;
mod query;
mod read;
mod reveal;
mod snapshot;
mod state;
mod stats;
mod subscription;
mod temporal;
mod tenant;
mod testing;
mod token;
mod trigger;
mod verify;
mod view;

use crate::access::{Access, Scope, everything_or};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result, invalid, invalid_with};
use crate::pg::function::{Args, Returned};
use crate::pg::process::server;
use crate::pg::value::datum::text_array_of;
use crate::projection::progress::veiled;
use crate::shared::alone;
use eventstream_core::audit::{REFERENCE, checked_reference};
use eventstream_core::error::Error;
use eventstream_core::privilege::Privilege;
use std::borrow::Cow;

/// Binds a function as `sql_function!` does. Whoever lacks the privilege in every category is told so, and not what is wrong with the arguments.
/// That costs nothing where nothing is wrong: what is too large is refused before it is copied, so that the order is one of words only.
macro_rules! asks {
    ($privilege:ident, $symbol:literal, $types:literal, $target:expr) => {
        crate::pg::function::sql_function!($symbol, $types, |args: &crate::pg::function::Args| {
            crate::api::rights_first(eventstream_core::privilege::Privilege::$privilege, $target(args))
        });
    };
}
use asks;

/// As `asks!`, for a function that looks at, or works on, what is there for everybody: within a test (es_test), which has a log of its own, it is refused.
macro_rules! asks_outside_of_tests {
    ($name:literal, $privilege:ident, $symbol:literal, $types:literal, $target:path) => {
        crate::api::asks!($privilege, $symbol, $types, |args: &crate::pg::function::Args| {
            crate::shared::trial::refuse($name)?;
            $target(args)
        });
    };
}
use asks_outside_of_tests;

/// As views take it: NULL = all.
fn listed(scope: Scope) -> Returned {
    match scope {
        Scope::All => Ok(None),
        Scope::Categories(categories) => text_array_of(&categories).map(Some),
    }
}

fn rights_first(privilege: Privilege, returned: Returned) -> Returned {
    if let Err(Failure::Rule(error)) = &returned {
        match error {
            Error::InsufficientPrivilege { .. }
            | Error::TenantRequired { .. }
            | Error::TenantNotFound { .. }
            | Error::Token(_) => {}
            _ => must_have(privilege)?,
        }
    }
    returned
}

/// In the current tenant, or, for those that may everything, at all. Errors: 42501, ES040, ES041.
fn must_have(privilege: Privilege) -> Result<()> {
    everything_or(privilege).map(drop)
}

/// The tenant as `log` knows it.
fn target(access: &Access) -> Target<'_> {
    Target { id: access.tenant_id, name: &access.tenant }
}

/// Why it is done. Errors: ES005, with what it is for.
fn reason<'a>(args: &Args<'a>, place: usize, hint: &str) -> Result<&'a str> {
    args.text_opt(place)?.ok_or_else(|| invalid_with("reason", "must not be NULL", Some(hint.into())))
}

/// The same where it becomes an event of acts, or of accesses.
fn reference<'a>(args: &Args<'a>, place: usize) -> Result<&'a str> {
    Ok(checked_reference(reason(args, place, REFERENCE)?)?)
}

/// An interval in microseconds, which must lie in that range.
fn microseconds(args: &Args, place: usize, argument: &str, least: i64, most: i64, rule: &str) -> Result<i64> {
    let interval = args.interval_opt(place).ok_or_else(|| invalid(argument, "must not be NULL"))?;
    let now = server::clock();
    // What leads beyond all times is longer than anything.
    let length = server::before(now, interval).map_or(i64::MIN, |before| now.saturating_sub(before));
    if (least..=most).contains(&length) { Ok(length) } else { Err(invalid(argument, format!("must be {rule}"))) }
}

/// A WARNING where what `function` sets until the end of the transaction is over as soon as it is set.
fn warn_if_alone(args: &Args, function: &'static str, hint: impl Into<Cow<'static, str>>) -> Result<()> {
    if server::may_end_with_statement(args.info())? {
        alone::note(function, hint.into());
    }
    Ok(())
}
