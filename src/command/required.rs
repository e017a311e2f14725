//! The judgement of states in the append, behind its locks: what an invariant requires of a stream's state must hold after what was just written, by the fold, the upcasters and
//! the order of events by which es_state will read it, from the state that the backend keeps.
//!
//! Promises: a state that does not meet what is required, or cannot be folded, is undone with the caller's (sub)transaction; what is no fault of the events (a lock, a cancel) is
//! raised as it is; who may not read the category is told what was asked, and no value.
use super::foldable::may_read;
use super::invariants::{Invariants, Required};
use crate::log::behind_lock::Known;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::error::report;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::projection::progress::HIDDEN;
use crate::shared::counters::{self, Counter};
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::folds;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::violation::{Fault, Violation};
use std::rc::Rc;

/// Errors: ES019, and whatever a fold raises that is no fault of an event.
pub fn judge(target: Target, invariants: &Invariants, requests: &[Request], written: &[Option<Known>]) -> Result<()> {
    for (request, written) in requests.iter().zip(written) {
        let Some(written) = written else { continue };
        let required = invariants.required(target, request)?;
        if required.is_empty() {
            continue;
        }
        let is_shown = may_read(request.stream.category())?;
        let judged = || stream(target, (request.stream, written), &required, is_shown);
        if is_shown { judged() } else { report::silently(judged) }?;
    }
    Ok(())
}

fn stream(
    target: Target,
    (stream, written): (StreamName, &Known),
    required: &[&Required],
    is_shown: bool,
) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut states: Vec<(Option<&str>, Rc<Stored>)> = Vec::new();
    for each in required {
        server::check_for_interrupts()?;
        let fold = each.fold.as_deref();
        let known = states.iter().find(|(of, _)| *of == fold).map(|(_, state)| Rc::clone(state));
        let state = match known {
            Some(known) => known,
            None => {
                let folded = scratch.step(|| state(target, (stream, written), fold));
                let folded = folded.map_err(|failure| unfolded(each, stream, failure, is_shown));
                let folded = folded.map_or_else(|failure| Err(failure?), Ok)?;
                states.push((fold, Rc::clone(&folded)));
                folded
            }
        };
        if let Some(unmet) = each.requirement.unmet(|pointer| state.view().at(pointer))? {
            return Err(broken(each, stream, unmet.said(is_shown), Fault::Broken));
        }
    }
    Ok(())
}

fn state(target: Target, (stream, written): (StreamName, &Known), fold: Option<&str>) -> Result<Rc<Stored>> {
    let fold = folds::of(target.id, stream.category(), fold)?;
    let mut folding = Folding::new(target, &fold)?;
    // Nothing of it is there yet for anybody: whoever looks after the database hears of no failure that is undone.
    folding.imagine();
    answer::of_locked(&mut folding, stream.as_str(), written).map(|answer| answer.state)
}

/// Why there is no state.
fn unfolded(required: &Required, stream: StreamName, failure: Failure, is_shown: bool) -> Result<Failure> {
    let is_unusable = matches!(failure, Failure::Rule(Error::FoldNotFound { .. } | Error::FoldUnusable { .. }));
    if !is_unusable && !failure.is_of_event() {
        return if is_shown { Ok(failure) } else { failure.in_other_words(&format!("users' code failed: {HIDDEN}")) };
    }
    let fault = if is_unusable { Fault::Unusable } else { Fault::Broken };
    let caught = failure.into_caught();
    let why =
        if is_shown || is_unusable { format!("{} ({})", caught.message, caught.sqlstate) } else { caught.sqlstate };
    Ok(broken(required, stream, format!("the state of stream \"{stream}\" cannot be folded: {why}"), fault))
}

fn broken(required: &Required, stream: StreamName, reason: String, fault: Fault) -> Failure {
    if fault == Fault::Broken {
        counters::add(Counter::InvariantsBroken, 1);
    }
    let streams = vec![stream.as_str().into()];
    Error::InvariantBroken(Box::new(Violation { invariant: required.name.clone(), streams, reason, fault })).into()
}
