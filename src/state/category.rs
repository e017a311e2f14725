//! The states of a whole category at a moment, stream by stream: memory is bounded by one stream's fold. A stream that cannot be folded
//! keeps back no other: it is reported in its place, or counted before the call fails. What is no event's own fault is no stream's: it is raised
//! as it is.
use super::answer;
use super::fit::{Columns, Misfit};
use super::folding::Folding;
use super::folds::Fold;
use super::kept::Answer;
use super::moment::Moment;
use crate::log::stream::Stream;
use crate::log::{streams, whole};
use crate::pg::error::failure::{Caught, Failure, Result};
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::{attempt, attempt_event};
use crate::pg::query::plan::View;
use crate::shared::failing;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use eventstream_core::word::Unfoldable;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Streams looked up at once.
const PAGE: i64 = 500;
/// So long the streams that fail are counted for a question that was not about all of them.
const ENOUGH: Duration = Duration::from_secs(1);

/// A stream's state, or why it has none.
pub type Outcome = std::result::Result<Answer, Caught>;

/// What to say of a stream that cannot be folded.
pub fn problem(caught: &Caught) -> String {
    format!("{} ({})", caught.message, caught.sqlstate)
}

/// Gives the name and state of each stream of the category to `each`, in the order in which the streams began; those of which no
/// event counts are left out. Errors: ES013 where some cannot be folded and `on_error` says so, with their number.
pub fn states(
    folding: &mut Folding,
    category: &str,
    moment: Moment,
    on_error: Unfoldable,
    each: &mut dyn FnMut(&str, Outcome) -> Result<()>,
) -> Result<()> {
    if on_error == Unfoldable::Report {
        let mut failed = 0;
        walk(folding, category, 0, |folding, found, name| {
            let counted = attempt_event(|| counted(folding, found, name, moment))?;
            failed += i64::from(counted.is_err());
            counted.transpose().map_or(Ok(()), |outcome| each(name, outcome)).map(ControlFlow::Continue)
        })?;
        note(folding, moment, failed);
        return Ok(());
    }
    // All of them in one subtransaction: what that costs a stream is paid only where one fails.
    let mut last: Option<(i64, String)> = None;
    let done = attempt_event(|| {
        walk(folding, category, 0, |folding, found, name| {
            last = Some((found.id, name.to_owned()));
            counted(folding, found, name, moment)?
                .map_or(Ok(()), |answer| each(name, Ok(answer)))
                .map(ControlFlow::Continue)
        })
    })?;
    let (Err(caught), Some((after, stream))) = (done, last) else {
        note(folding, moment, 0);
        return Ok(());
    };
    let (later, _) = failures(folding, category, moment, after, None)?;
    note(folding, moment, 1 + later);
    Err(refusal(folding.fold, stream, caught, 1 + later, true))
}

/// What to say where a question about some streams of the category met one, `stream`, that cannot be folded. The whole category is counted, so that who
/// mends it knows how much there is to mend, but not for longer than [`ENOUGH`].
pub fn refused(folding: &mut Folding, category: &str, moment: Moment, stream: &str, caught: Caught) -> Result<Failure> {
    let (failed, is_all) = failures(folding, category, moment, 0, Some(ENOUGH))?;
    if is_all {
        note(folding, moment, failed);
    }
    Ok(refusal(folding.fold, stream.to_owned(), caught, failed.max(1), is_all))
}

/// As [`refused`], where the stream has a state, which does not fit the columns that are asked for: those of the category are counted.
pub fn misfit(
    folding: &mut Folding,
    (category, stream): (&str, &str),
    moment: Moment,
    misfit: Misfit,
    columns: &Columns,
) -> Result<Failure> {
    let begun = Instant::now();
    let (mut failed, mut is_all) = (0, true);
    walk(folding, category, 0, |folding, found, name| {
        if begun.elapsed() > ENOUGH {
            is_all = false;
            return Ok(ControlFlow::Break(()));
        }
        let Ok(Some(answer)) = attempt_event(|| counted(folding, found, name, moment))? else {
            return Ok(ControlFlow::Continue(()));
        };
        failed += i64::from(attempt(|| columns.take(&answer.state))?.is_err());
        Ok(ControlFlow::Continue(()))
    })?;
    let (category, fold, stream) = (category.to_owned(), folding.fold.name.clone(), stream.to_owned());
    let (failed, state, message) =
        (failed.max(1), misfit.sqlstate.into(), format!("{}: {}", misfit.what, misfit.message).into());
    Ok(Error::StatesFailed { category, fold, failed, is_all, is_misfit: true, stream, state, message }.into())
}

fn refusal(fold: &Fold, stream: String, caught: Caught, failed: i64, is_all: bool) -> Failure {
    let (state, message) = (caught.sqlstate.into(), caught.message.into());
    let (category, fold) = (fold.category.clone(), fold.name.clone());
    Error::StatesFailed { category, fold, failed, is_all, is_misfit: false, stream, state, message }.into()
}

/// How many streams with ids after `after` cannot be folded, and whether all were looked at.
fn failures(
    folding: &mut Folding,
    category: &str,
    moment: Moment,
    after: i64,
    limit: Option<Duration>,
) -> Result<(i64, bool)> {
    let begun = Instant::now();
    let (mut failed, mut is_all) = (0, true);
    walk(folding, category, after, |folding, found, name| {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            is_all = false;
            return Ok(ControlFlow::Break(()));
        }
        failed += i64::from(attempt_event(|| counted(folding, found, name, moment).map(drop))?.is_err());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((failed, is_all))
}

/// All streams were looked at: what health says of the fold is right again.
fn note(folding: &Folding, moment: Moment, failed: i64) {
    if moment == Moment::NOW {
        failing::count(folding.fold.key(folding.target.id), failed);
    }
}

/// None where no event counts.
fn counted(folding: &mut Folding, found: Stream, name: &str, moment: Moment) -> Result<Option<Answer>> {
    let answer = answer::of_stream(folding, name, found, moment, View::Caller)?;
    Ok(Some(answer).filter(|answer| answer.version > 0))
}

/// The streams that the snapshot shows, from those with ids after `after` on, until `each` breaks.
fn walk<'a>(
    folding: &mut Folding<'a>,
    category: &str,
    mut after: i64,
    mut each: impl FnMut(&mut Folding<'a>, Stream, &str) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let target = folding.target;
    // The snapshot may hide streams that this transaction has appended to.
    let is_in_question = whole::is_in_question(View::Caller);
    let view = if is_in_question { View::Latest } else { View::Caller };
    let scratch = Scratch::new()?;
    loop {
        let page =
            as_owner(Planning::ByIndex, |db, _| streams::page_of_category(db, view, target.id, category, after, PAGE))?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.id;
        let is_last = page.len() < PAGE as usize;
        for (found, name) in page {
            if is_in_question
                && !as_owner(Planning::ByIndex, |db, catalog| whole::is_shown(db, catalog, &found, &name))?
            {
                continue;
            }
            if scratch.step(|| each(folding, found, &name))?.is_break() {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}
