//! The states of a whole category at a moment, stream by stream: memory is bounded by one stream's fold.
use super::answer::{self, Answer};
use super::moment::Moment;
use super::replay::Folding;
use crate::log::{stream, whole};
use crate::pg::failure::Result;
use crate::pg::memory::Scratch;
use crate::pg::plan::View;
use crate::pg::session::{Planning, as_owner};

/// Streams looked up at once.
const PAGE: i64 = 500;

/// Gives the name and state of each stream of the category to `each`, in the order in which the streams began; those of which no
/// event counts are left out.
pub fn states(
    folding: &mut Folding,
    category: &str,
    moment: Moment,
    mut each: impl FnMut(&str, Answer) -> Result<()>,
) -> Result<()> {
    let target = folding.target;
    // The snapshot may hide streams that this transaction has appended to.
    let is_in_question = whole::is_in_question(View::Caller);
    let view = if is_in_question { View::Latest } else { View::Caller };
    let scratch = Scratch::new()?;
    let mut after = 0;
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
            scratch.step(|| {
                let answer = answer::of_stream(folding, &name, found, moment, View::Caller)?;
                if answer.version > 0 { each(&name, answer) } else { Ok(()) }
            })?;
        }
        if is_last {
            return Ok(());
        }
    }
}
