//! The rule `foldable`: what the default fold of its category cannot take is not recorded, so that one wrong event never makes a state unreadable. It is judged
//! in the append, behind its locks, of what was just written: by the fold, the upcasters and the order of events by which es_state will read it, from the
//! state that the backend keeps. A category that does not ask for it pays nothing.
//!
//! Promises: what es_state cannot fold after the append is refused, and undone with the caller's (sub)transaction; what is no fault of the events (a lock, a right,
//! a cancel) is raised as it is; who may not read the category is not told what a handler says.
use super::category::{Categories, register_hint};
use crate::access::authorize;
use crate::log::behind_lock::Known;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::error::report;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::projection::progress::HIDDEN;
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::folds::{self, Fold};
use eventstream_core::broken::{Broken, Failed};
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use eventstream_core::word::CategoryRule;
use eventstream_core::{quote_literal, shown};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A stream, and where it stands behind what was written to it.
type Written<'a> = (StreamName<'a>, &'a Known);

/// Errors: ES017, ES013 of a fold that cannot be used any more, and whatever a fold raises that is no fault of an event.
pub fn judge(target: Target, categories: &Categories, requests: &[Request], written: &[Option<Known>]) -> Result<()> {
    let mut asked: BTreeMap<&str, Vec<Written>> = BTreeMap::new();
    for (request, written) in requests.iter().zip(written) {
        let category = request.stream.category();
        if let Some(written) = written.as_ref().filter(|_| categories.asks(category, CategoryRule::Foldable)) {
            asked.entry(category).or_default().push((request.stream, written));
        }
    }
    for (category, streams) in asked {
        let fold = default_fold(target, category, &streams)?;
        let is_shown = may_read(category)?;
        let judged = || all_fold(target, &fold, &streams, is_shown);
        if is_shown { judged() } else { report::silently(judged) }?;
    }
    Ok(())
}

/// Whether the caller may.
pub fn may_read(category: &str) -> Result<bool> {
    match authorize(Privilege::Read, category) {
        Ok(_) => Ok(true),
        Err(Failure::Rule(error)) if error.sqlstate() == "42501" => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn default_fold(target: Target, category: &str, streams: &[Written]) -> Result<Rc<Fold>> {
    folds::of(target.id, category, None).map_err(|failure| match (failure, streams.first()) {
        (Failure::Rule(Error::FoldNotFound { .. }), Some(&(stream, _))) => {
            let hint = format!(
                "{} Or take the rule back: select es_alter_category({}, '{{\"foldable\": null}}');",
                register_hint(category),
                quote_literal(category)
            );
            refusal(stream, "the category has no default fold".into(), hint, None)
        }
        (other, _) => other,
    })
}

fn all_fold(target: Target, fold: &Fold, streams: &[Written], is_shown: bool) -> Result<()> {
    let mut folding = Folding::new(target, fold)?;
    // Nothing of it is there yet for anybody: whoever looks after the database hears of no failure that is undone.
    folding.imagine();
    let scratch = Scratch::new()?;
    for &(stream, written) in streams {
        server::check_for_interrupts()?;
        let folded = scratch.step(|| answer::of_locked(&mut folding, stream.as_str(), written).map(drop));
        folded.map_err(|failure| refused(fold, stream, failure, is_shown)).map_or_else(|failure| Err(failure?), Ok)?;
    }
    Ok(())
}

fn refused(fold: &Fold, stream: StreamName, failure: Failure, is_shown: bool) -> Result<Failure> {
    if !failure.is_of_event() {
        return if is_shown { Ok(failure) } else { failure.in_other_words(&format!("users' code failed: {HIDDEN}")) };
    }
    let caught = failure.into_caught();
    let (sqlstate, message) = (caught.sqlstate, Some(caught.message).filter(|_| is_shown));
    let why = message.as_deref().map_or_else(|| sqlstate.clone(), |message| format!("{message} ({sqlstate})"));
    let reason = format!("its default fold cannot take it: {why}");
    let failed = Failed { fold: fold.name.clone(), sqlstate, message };
    Ok(refusal(stream, reason, hint(stream), Some(failed)))
}

fn hint(stream: StreamName) -> String {
    format!(
        "Nothing was recorded: append another event, or register a fold that takes such events (rules with a default, or a handler). Streams that cannot be \
         folded since before: select stream, problem from es_category_state({}, on_error => 'report') where problem is not null;",
        quote_literal(stream.category())
    )
}

fn refusal(stream: StreamName, reason: String, hint: String, failed: Option<Failed>) -> Failure {
    Error::RuleBroken(Box::new(Broken {
        what: format!("the append to stream {}", shown(stream.as_str())),
        rule: CategoryRule::Foldable,
        category: stream.category().into(),
        stream: Some(stream.as_str().into()),
        reason,
        hint,
        failed,
        undeclared: None,
    }))
    .into()
}
