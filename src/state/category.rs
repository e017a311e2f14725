//! The states of a whole category at a moment, stream by stream: memory is bounded by one stream's fold. A stream that cannot be folded
//! keeps back no other: it is reported in its place, or counted before the call fails.
use super::answer::{self, Answer};
use super::moment::Moment;
use super::replay::Folding;
use crate::log::event::invalid;
use crate::log::stream::Stream;
use crate::log::{stream, whole};
use crate::pg::failure::{Caught, Result};
use crate::pg::memory::Scratch;
use crate::pg::plan::View;
use crate::pg::session::{Planning, as_owner};
use crate::pg::subtransaction::attempt;
use eventstream_core::error::Error;

/// Streams looked up at once.
const PAGE: i64 = 500;

/// What becomes of a stream that cannot be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Fail,
    Report,
}

impl OnError {
    /// Errors: ES005.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "fail" => Ok(Self::Fail),
            "report" => Ok(Self::Report),
            other => {
                Err(invalid("on_error", format!("must be fail or report, not {}", eventstream_core::shown(other))))
            }
        }
    }
}

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
    on_error: OnError,
    each: &mut dyn FnMut(&str, Outcome) -> Result<()>,
) -> Result<()> {
    if on_error == OnError::Report {
        return walk(folding, category, 0, |folding, found, name| {
            let counted = attempt(|| counted(folding, found, name, moment))?;
            counted.transpose().map_or(Ok(()), |outcome| each(name, outcome))
        });
    }
    // All of them in one subtransaction: what that costs a stream is paid only where one fails.
    let mut last: Option<(i64, String)> = None;
    let done = attempt(|| {
        walk(folding, category, 0, |folding, found, name| {
            last = Some((found.id, name.to_owned()));
            counted(folding, found, name, moment)?.map_or(Ok(()), |answer| each(name, Ok(answer)))
        })
    })?;
    let (Err(caught), Some((after, stream))) = (done, last) else { return Ok(()) };
    let mut failed = 1;
    walk(folding, category, after, |folding, found, name| {
        failed += i64::from(attempt(|| counted(folding, found, name, moment).map(drop))?.is_err());
        Ok(())
    })?;
    let (category, state, message) = (category.to_owned(), caught.sqlstate, caught.message);
    Err(Error::StatesFailed { category, failed, stream, state, message }.into())
}

/// None where no event counts.
fn counted(folding: &mut Folding, found: Stream, name: &str, moment: Moment) -> Result<Option<Answer>> {
    let answer = answer::of_stream(folding, name, found, moment, View::Caller)?;
    Ok(Some(answer).filter(|answer| answer.version > 0))
}

/// The streams that the snapshot shows, from those with ids after `after` on.
fn walk<'a>(
    folding: &mut Folding<'a>,
    category: &str,
    mut after: i64,
    mut each: impl FnMut(&mut Folding<'a>, Stream, &str) -> Result<()>,
) -> Result<()> {
    let target = folding.target;
    // The snapshot may hide streams that this transaction has appended to.
    let is_in_question = whole::is_in_question(View::Caller);
    let view = if is_in_question { View::Latest } else { View::Caller };
    let scratch = Scratch::new()?;
    loop {
        let page =
            as_owner(Planning::ByIndex, |db, _| stream::page_of_category(db, view, target.id, category, after, PAGE))?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.id;
        let is_last = page.len() < PAGE as usize;
        for (found, name) in page {
            if is_in_question
                && !as_owner(Planning::ByIndex, |db, catalog| whole::is_shown(db, catalog, &found, &name))?
            {
                continue;
            }
            scratch.step(|| each(folding, found, &name))?;
        }
        if is_last {
            return Ok(());
        }
    }
}
