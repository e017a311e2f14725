//! Verification of stored snapshots, in bounded memory: each by itself and against its event, and, where it is asked for, against
//! the state that the events give when they are folded again from the first one. One of an earlier definition of its fold is
//! no problem: it is never used, and es_maintain removes it.
use super::answer;
use super::folding::Folding;
use super::folds::{self, Fold};
use super::moment::{Moment, Selection};
use super::snapshot::{self, Judged, Of};
use crate::log::scan::Opened;
use crate::log::stream::{self, Stream};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
use std::rc::Rc;

/// Something that does not fit.
pub struct Problem<'a> {
    pub stream: &'a str,
    pub fold: &'a str,
    pub version: i64,
    pub problem: String,
}

/// Takes problems as they are found.
pub type Report<'a> = &'a mut dyn FnMut(Problem) -> Result<()>;

/// Snapshots listed at once.
const PAGE: usize = 500;

thread_local! {
    static KEYS: Plan = const { Plan::new(
        "select n.stream_id, n.fold, n.version, s.name, s.category from _eventstream.snapshots n \
         join _eventstream.streams s on s.id = n.stream_id \
         where s.tenant_id = $1 and (n.stream_id, n.fold, n.version) > ($2, $3, $4) and ($5 is null or n.fold = $5) \
         order by n.stream_id, n.fold, n.version limit $6",
        &[INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID, INT8OID],
    ) };
}

/// A stored snapshot's place.
struct Key {
    stream_id: i64,
    fold: String,
    version: i64,
    stream: String,
    category: String,
}

/// The state of a stream by a fold as it was folded here, at the version of the snapshot before.
type Refolded = Option<(i64, String, i64, Rc<Stored>)>;

/// Whether the role may see what stands in the events of a category.
pub type IsShown<'a> = &'a dyn Fn(&str) -> Result<bool>;

/// Verifies the tenant's snapshots, or those of one fold.
pub fn verify(target: Target, fold: Option<&str>, thorough: bool, is_shown: IsShown, report: Report) -> Result<()> {
    let mut after =
        Key { stream_id: 0, fold: String::new(), version: 0, stream: String::new(), category: String::new() };
    let mut refolded: Refolded = None;
    let scratch = Scratch::new()?;
    loop {
        let page = scratch.step(|| page(target, fold, &after))?;
        let is_last = page.len() < PAGE;
        for key in page {
            let problem = scratch.step(|| {
                let Some(fold) = folds::named(target.id, &key.fold)?.filter(|fold| fold.category == key.category)
                else {
                    return Ok(Some("its fold is not registered for the stream's category".to_owned()));
                };
                check(target, &fold, &key, thorough, is_shown, &mut refolded)
            })?;
            if let Some(problem) = problem {
                report(Problem { stream: &key.stream, fold: &key.fold, version: key.version, problem })?;
            }
            after = key;
        }
        if is_last {
            return Ok(());
        }
    }
}

fn page(target: Target, fold: Option<&str>, after: &Key) -> Result<Vec<Key>> {
    as_owner(Planning::ByIndex, |db, _| {
        let args = [
            Some(Datum::from(target.id)),
            Some(Datum::from(after.stream_id)),
            Some(from_text(&after.fold)?),
            Some(Datum::from(after.version)),
            fold.map(from_text).transpose()?,
            Some(Datum::from(PAGE as i64)),
        ];
        KEYS.with(|keys| {
            keys.rows(db, View::Latest, 0, &args, |row| {
                Ok(Key {
                    stream_id: row.int8(0)?,
                    fold: row.text(1)?.to_owned(),
                    version: row.int8(2)?,
                    stream: row.text(3)?.to_owned(),
                    category: row.text(4)?.to_owned(),
                })
            })
        })
    })
}

/// What is wrong with one, if anything is.
fn check(
    target: Target,
    fold: &Fold,
    key: &Key,
    thorough: bool,
    is_shown: IsShown,
    refolded: &mut Refolded,
) -> Result<Option<String>> {
    let found: Option<(Stream, Opened, Judged)> = as_owner(Planning::ByIndex, |db, catalog| {
        let Some((found, ..)) = stream::page(db, View::Latest, key.stream_id - 1, None, 1)?.pop() else {
            return Ok(None);
        };
        let opened = Opened::open(db, catalog, found, View::Latest)?;
        let of = Of { target, stream: &key.stream, fold };
        let judged = snapshot::at(db, catalog, of, &opened, View::Latest, key.version)?;
        Ok(judged.map(|judged| (found, opened, judged)))
    })?;
    let stored = match found {
        None | Some((_, _, Judged::OfEarlierDefinition)) => return Ok(None),
        Some((_, _, Judged::Broken(problem))) => return Ok(Some(problem.to_owned())),
        Some((_, opened, Judged::Serves(stored))) if thorough => (opened, stored),
        Some((_, _, Judged::Serves(_))) => return Ok(None),
    };
    let (opened, stored) = stored;
    let before = refolded.take().filter(|(stream_id, name, ..)| *stream_id == key.stream_id && *name == key.fold);
    let again = attempt(|| {
        let mut folding = Folding::new(target, fold)?;
        let moment = Moment { version: Some(key.version), ..Moment::NOW };
        let selection = as_owner(Planning::ByIndex, |db, _| Selection::of(db, &opened, moment))?;
        let before = before.map(|(_, _, version, state)| (version, state));
        let answer = answer::refold(&mut folding, &key.stream, &opened, selection, before)?;
        snapshot::must_be_kept(Of { target, stream: &key.stream, fold }, &answer).map(|()| answer)
    })?;
    let state = match again {
        Ok(answer) => answer.state,
        // Users' code says payloads in its errors.
        Err(caught) => {
            let words = if is_shown(&key.category)? {
                caught.message
            } else {
                format!("{}, whose message is shown to roles that may read its events", caught.sqlstate)
            };
            return Ok(Some(format!("its state cannot be folded again: {words}")));
        }
    };
    let is_same = state.view().text()? == stored.view().text()?;
    *refolded = Some((key.stream_id, key.fold.clone(), key.version, state));
    Ok((!is_same).then(|| "the events give another state".to_owned()))
}
