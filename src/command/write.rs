//! The door in: the one function through which every append passes, whoever makes it: es_append and its kin, es_close_stream, and what handlers
//! append by them. tests/tidy sees to it that nobody else calls `log::append`.
//!
//! ```text
//! log::append: the tenant's gate → names and rows of the streams → judge → entry → positions → rows
//!   → folded, where its category or an invariant asks for it → noted for invariants that judge at the commit → inline projections, brought up to what was written → counted
//! ```
//! Promises: what is written has been judged, and every inline projection of the tenant has it, or all of it is undone with the caller's
//! (sub)transaction; what was not written is not counted as an append. Locks are taken in one order, by every append: the gate, what a condition
//! locks, names and rows of streams in the order of their names, the entry, positions. What an inline projection's handler appends comes
//! through here again: its locks are behind the entry, as those of a second append of one transaction are.
use super::condition::{self, Given};
use super::{declared, foldable, required, ruling};
use crate::log::append;
use crate::log::gate;
use crate::log::last_append::LastAppend;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::server;
use crate::projection::inline;
use crate::shared::counters::{self, Counter, Histogram};
use eventstream_core::audit::is_of_acts;
use eventstream_core::error::Error;
use std::time::Instant;

/// Appends to all the streams or to none; what came of each stream, in the order given. Errors: ES001, ES002, ES003, ES006, ES016, ES017, ES018, ES019, and those
/// of folds and inline projections.
pub fn write(target: Target, requests: &mut [Request]) -> Result<Vec<LastAppend>> {
    write_under(None, target, requests)
}

/// The same where a condition holds. Errors: ES015 as well; 55P03 where it needs the tenant's gate, and others are appending all the time.
pub fn write_under(condition: Option<Given>, target: Target, requests: &mut [Request]) -> Result<Vec<LastAppend>> {
    let began = Instant::now();
    server::must_be_writable(c"an append")?;
    if condition.as_ref().is_some_and(Given::needs_the_gate) {
        gate::close(target)?;
    } else {
        gate::enter(target.id)?;
    }
    let condition = condition.map(|condition| condition.complete(target.id)).transpose()?;
    // Behind the gate: whatever was declared or closed before it was entered is known.
    let ruling = ruling::of(target.id)?;
    let appended =
        append::append(target, requests, &*ruling, condition.as_ref()).inspect_err(|failure| match failure {
            Failure::Rule(Error::VersionConflict { .. }) => counters::add(Counter::Conflicts, 1),
            Failure::Rule(Error::ConditionFailed { .. }) => counters::add(Counter::ConditionsFailed, 1),
            _ => (),
        });
    let appended = appended.map_err(condition::veiled).map_err(|failure| declared::suggest(target.id, failure))?;
    let written = appended.positions.len() as u64;
    foldable::judge(target, &ruling.categories, requests, &appended.written)?;
    if !ruling.invariants.is_empty() {
        required::judge(target, &ruling.invariants, requests, &appended.written)?;
        ruling.invariants.note(target, requests, &appended.streams)?;
    }
    inline::apply(target, appended.positions)?;
    if is_of_acts(target.id) {
        // Counted is what users append.
        return Ok(appended.streams);
    }
    if written > 0 {
        counters::add(Counter::Appends, 1);
        counters::add(Counter::EventsAppended, written);
    }
    counters::observe(Histogram::Append, began.elapsed());
    Ok(appended.streams)
}
