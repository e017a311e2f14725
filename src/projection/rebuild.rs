//! Filling a state table, at first and again: stream by stream, as of one position, beside the rows that readers see; then the
//! differences are written in one transaction.
//!
//! ```text
//! rebuilding ─▶ as many streams as fit 200 ms, each state as of rebuild_to, into rebuilt_states; rebuild_stream noted ─▶ (the caller commits) ─▶ …
//!    │ no stream is left
//!    ▼
//! rows that differ are written, those of no stream are removed; checkpoint = rebuild_to ─▶ running
//! the fold's fingerprint is no longer the one the table was filled by ─▶ rebuilding, from the first stream on
//! ```
//!
//! Promises: readers see the rows of before or those of after; a rebuild that died goes on where it was; nothing but rows of the table is
//! touched.
use super::applier;
use super::dead_letter;
use super::outcome::Outcome;
use super::passed::{Fault, Passed};
use super::progress::{self, Progress};
use super::projections::{Projection, Table};
use super::state_table::{MOST_BYTES, StateRow, StateTable};
use crate::log::dead_letters::{self, Source};
use crate::log::scan::Opened;
use crate::log::{horizon, known, stream, streams};
use crate::pg::error::failure::{Caught, Result};
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::Scratch;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::subtransaction::attempt;
use crate::pg::process::test_point::test_point;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{from_text, text_array_of, unpacked_size, varlena};
use crate::projection::outcome;
use crate::shared::board;
use crate::shared::board::runner;
use crate::shared::catalog::{self, Catalog};
use crate::shared::session::as_owner;
use crate::state::answer;
use crate::state::folding::Folding;
use crate::state::moment::{Moment, Selection};
use eventstream_core::error::Error;
use eventstream_core::word::Status;
use pgrx::pg_sys::{BYTEAOID, Datum, INT8ARRAYOID, INT8OID, JSONBARRAYOID, TEXTARRAYOID, TEXTOID};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Streams looked up, and rows written, at once.
const PAGE: i64 = 500;
/// The step ends with the stream that passes this time, so that what it did is committed: the fold of a page may take longer than
/// handler_timeout.
const ENOUGH: Duration = Duration::from_millis(200);

thread_local! {
    static BEGIN: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set status = 'rebuilding', rebuild_to = $2, rebuild_stream = 0, rebuild_done = 0, rebuild_began = clock_timestamp(), \
             rebuild_total = (select count(*) from _eventstream.streams s where s.tenant_id = $3 and s.category = $4), \
             fingerprint = $5, attempts = 0, next_batch = null, failed_position = null, retry_at = null \
         where projection_id = $1",
        &[INT8OID, INT8OID, INT8OID, TEXTOID, BYTEAOID],
    ) };
    static FORGET_PAGE: Plan = const { Plan::new(
        "delete from _eventstream.rebuilt_states where projection_id = $1 and stream > $2 and stream <= $3",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static FORGET_STREAMS: Plan = const { Plan::new(
        "delete from _eventstream.rebuilt_states where projection_id = $1 and stream = any ($2)",
        &[INT8OID, TEXTARRAYOID],
    ) };
    static FORGET: Plan = const { Plan::new("delete from _eventstream.rebuilt_states where projection_id = $1", &[INT8OID]) };
    static KEEP: Plan = const { Plan::new(
        "insert into _eventstream.rebuilt_states (projection_id, stream, version, state) \
         select $1, r.stream, r.version, r.state from unnest($2, $3, $4) as r (stream, version, state) \
         on conflict (projection_id, stream) do update set version = excluded.version, state = excluded.state",
        &[INT8OID, TEXTARRAYOID, INT8ARRAYOID, JSONBARRAYOID],
    ) };
    static NOTE: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set rebuild_stream = $2, rebuild_done = rebuild_done + $3, attempts = 0, retry_at = null where projection_id = $1",
        &[INT8OID, INT8OID, INT8OID],
    ) };
    static READ: Plan = const { Plan::new(
        "select stream, version, state from _eventstream.rebuilt_states \
         where projection_id = $1 and stream > $2 order by stream limit $3",
        &[INT8OID, TEXTOID, INT8OID],
    ) };
    static FINISH: Plan = const { Plan::new(
        "update _eventstream.projection_progress \
         set status = 'running', global_position = $2, moved_at = clock_timestamp(), rebuild_to = null, rebuild_stream = null, \
             rebuild_done = null, rebuild_total = null, rebuild_began = null, attempts = 0, retry_at = null where projection_id = $1",
        &[INT8OID, INT8OID],
    ) };
}

/// Begins from the first stream on.
pub fn begin(projection: &Projection, table: &Table, to: i64) -> Result<()> {
    let state_table = StateTable::new(projection, table)?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let row = [
            Some(Datum::from(projection.id)),
            Some(Datum::from(to)),
            Some(Datum::from(projection.tenant_id)),
            Some(from_text(&table.category)?),
            Some(varlena(&state_table.fold().fingerprint)?),
        ];
        FORGET.with(|plan| plan.write(db, &row[..1]))?;
        // What could not be folded before is folded anew.
        dead_letters::forget_all(db, Source::Projection(projection.id))?;
        BEGIN.with(|plan| plan.write(db, &row))?;
        catalog::announce_projection_change(catalog)
    })
}

/// What a state table needs before its next batch, one bounded step of it; None where nothing is to be done. The reason where its
/// registrant is gone. Errors: 42501 where that may not read the category any more.
///
/// `is_careful`: a stream that cannot be folded, or whose row cannot be written, gets no row, its newest event goes to the dead letters, and the others go on.
pub fn step(
    projection: &Projection,
    table: &Table,
    progress: &Progress,
    is_careful: bool,
) -> Result<Result<Option<Outcome>, String>> {
    let state_table = StateTable::new(projection, table)?;
    let fingerprint = state_table.fold().fingerprint;
    let is_other = progress.fingerprint != Some(fingerprint);
    if !is_other && progress.status != Status::Rebuilding {
        return Ok(Ok(None));
    }
    if let Err(reason) = applier::filter(projection)? {
        return Ok(Err(reason));
    }
    let outcome = match (progress.status, progress.rebuild_to, progress.rebuild_stream) {
        (Status::Rebuilding, Some(to), Some(after)) if !is_other => {
            fill(projection, &state_table, table, (to, after), progress, is_careful)?
        }
        _ => {
            let to = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, projection.tenant_id))?;
            begin(projection, table, to)?;
            Outcome::Advanced { position: progress.position, events: 0, is_behind: true }
        }
    };
    Ok(Ok(Some(outcome)))
}

/// All of it at once, as of everything that is committed or this transaction's own; the caller keeps others from appending.
pub fn at_once(projection: &Projection, table: &Table, to: i64) -> Result<()> {
    begin(projection, table, to)?;
    loop {
        let progress = progress::look(projection.id)?;
        let Some(progress) = progress.filter(|progress| progress.status == Status::Rebuilding) else { return Ok(()) };
        step(projection, table, &progress, false)?.map_err(|reason| outcome::unusable(projection, reason))?;
    }
}

fn fill(
    projection: &Projection,
    state_table: &StateTable,
    table: &Table,
    (to, mut after): (i64, i64),
    progress: &Progress,
    is_careful: bool,
) -> Result<Outcome> {
    let target = projection.target();
    let begun = Instant::now();
    let fold = state_table.fold();
    let mut folding = Folding::new(target, fold)?;
    let scratch = Scratch::new()?;
    let mut done = 0;
    loop {
        let page = as_owner(Planning::ByIndex, |db, _| {
            streams::page_of_category(db, View::Latest, target.id, &table.category, after, PAGE)
        })?;
        let mut left = page.len();
        let is_last = left < PAGE as usize;
        let (mut rows, mut bytes) = (Vec::with_capacity(left), 0);
        for (found, name) in page {
            (after, done, left) = (found.id, done + 1, left - 1);
            let row = scratch.step(|| {
                if is_careful
                    && let Err(caught) = attempt(|| as_of(&mut folding, &name, found, to).map(drop))?
                    && caught.is_of_event
                {
                    return pass_over(projection, found, to, caught, Fault::Fold).map(|()| None);
                }
                let answer = as_of(&mut folding, &name, found, to)?;
                Ok(answer.map(|(version, state)| StateRow { stream: name, version, state }))
            })?;
            bytes += row.as_ref().map_or(0, |row| row.state.size());
            rows.extend(row);
            if begun.elapsed() > ENOUGH || bytes > MOST_BYTES {
                break;
            }
        }
        scratch.step(|| as_owner(Planning::ByIndex, |db, _| keep(db, projection, &rows)))?;
        test_point("page kept");
        if is_last && left == 0 {
            if is_careful {
                publish_around(projection, state_table, to, progress.attempts)?;
            } else {
                publish(projection, state_table, progress.attempts)?;
            }
            finish(projection, to)?;
            return Ok(Outcome::Advanced { position: to, events: 0, is_behind: true });
        }
        if begun.elapsed() > ENOUGH {
            as_owner(Planning::ByIndex, |db, _| {
                let row = [projection.id, after, done].map(|value| Some(Datum::from(value)));
                NOTE.with(|plan| plan.write(db, &row))
            })?;
            return Ok(Outcome::Advanced { position: progress.position, events: 0, is_behind: true });
        }
    }
}

fn pass_over(projection: &Projection, found: stream::Stream, to: i64, caught: Caught, fault: Fault) -> Result<()> {
    let newest = as_owner(Planning::ByIndex, |db, catalog| stream::head_up_to(db, catalog, &found, to, View::Latest))?;
    let Some(newest) = newest else { return Ok(()) };
    let memory = Scratch::new()?;
    memory.inside(|| {
        let event = dead_letter::event_at(projection, newest.global_position, &memory)?;
        dead_letter::pass_over(projection, &[Passed { event, caught, fault }])
    })
}

/// The stream's newest version at or below the position, and its state there; None where it begins later.
fn as_of(folding: &mut Folding, name: &str, found: stream::Stream, to: i64) -> Result<Option<(i64, Rc<Stored>)>> {
    let opened = as_owner(Planning::ByIndex, |db, catalog: &Catalog| {
        let opened = Opened::open(db, catalog, found, View::Latest)?;
        let version = opened.at_position(db, to)?;
        Ok((opened, version))
    })?;
    let (opened, version) = opened;
    if version == 0 {
        return Ok(None);
    }
    let moment = Moment { version: Some(version), ..Moment::NOW };
    let selection = as_owner(Planning::ByIndex, |db, _| Selection::of(db, &opened, moment))?;
    let answer = answer::of_selection(folding, name, &opened, selection, View::Latest)?;
    Ok(Some((version, answer.state)))
}

fn keep(db: &Db, projection: &Projection, rows: &[StateRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let [streams, versions, states] = StateRow::columns(rows)?;
    let args = [Some(Datum::from(projection.id)), streams, versions, states];
    KEEP.with(|plan| plan.write(db, &args)).map(drop)
}

/// Writes what was folded into the table, in this transaction, however many rows there are: a page of them has as much time as a batch,
/// and is half as large after each attempt that failed.
fn publish(projection: &Projection, state_table: &StateTable, attempts: i32) -> Result<()> {
    let scratch = Scratch::new()?;
    let mut after = Some(String::new());
    while let Some(from) = after {
        runner::get_on();
        after = scratch.step(|| {
            let page = Page::read(projection, &from, attempts)?;
            state_table.prune(&from, page.to(), &page.streams)?;
            state_table.write(&page.rows)?;
            if let Some(last) = page.streams.last() {
                let range = [Some(Datum::from(projection.id)), Some(from_text(&from)?), Some(from_text(last)?)];
                as_owner(Planning::ByIndex, |db, _| FORGET_PAGE.with(|plan| plan.write(db, &range)))?;
            }
            Ok(page.to().map(str::to_owned))
        })?;
    }
    Ok(())
}

/// States that were folded, in the order of their streams.
struct Page {
    rows: Vec<StateRow>,
    streams: Vec<String>,
    is_last: bool,
}

impl Page {
    fn read(projection: &Projection, after: &str, attempts: i32) -> Result<Self> {
        let most = (PAGE >> attempts.clamp(0, 8)).max(1);
        let args = [Some(Datum::from(projection.id)), Some(from_text(after)?), Some(Datum::from(most))];
        let (mut bytes, mut is_cut) = (0, false);
        let rows = as_owner(Planning::ByIndex, |db, _| {
            READ.with(|plan| {
                plan.rows(db, View::Latest, 0, &args, |row| {
                    let size = row.get(2).map_or(0, unpacked_size);
                    is_cut |= bytes > 0 && bytes + size > MOST_BYTES;
                    if is_cut {
                        return Ok(None);
                    }
                    bytes += size;
                    let missing = || Error::Internal { what: "a rebuilt state is NULL".into() };
                    let state = Stored::keep(row.jsonb_opt(2)?.ok_or_else(missing)?);
                    let stream = row.text(0)?.to_owned();
                    Ok(Some(StateRow { stream, version: row.int8(1)?, state: Rc::new(state) }))
                })
            })
        })?;
        let rows: Vec<StateRow> = rows.into_iter().flatten().collect();
        let streams = rows.iter().map(|row| row.stream.clone()).collect();
        let is_last = !is_cut && rows.len() < most as usize;
        Ok(Self { rows, streams, is_last })
    }

    /// Its last stream; None: there is no page after it.
    fn to(&self) -> Option<&str> {
        self.streams.last().map(String::as_str).filter(|_| !self.is_last)
    }
}

/// As [`publish`], around the rows that cannot be written: their streams have no row, and go to the dead letters. Where not one could be
/// written, and rows would be lost, it is no stream's fault.
fn publish_around(projection: &Projection, state_table: &StateTable, to: i64, attempts: i32) -> Result<()> {
    let scratch = Scratch::new()?;
    let (mut written, mut removed, mut collisions, mut first) = (0, 0, 0, None);
    let mut after = Some(String::new());
    while let Some(from) = after {
        runner::get_on();
        after = scratch.step(|| {
            let page = Page::read(projection, &from, attempts)?;
            prune_around(projection, state_table, &from, &page)?;
            let left = state_table.write_around(&page.rows, &runner::get_on)?;
            written += page.rows.len() - left.len();
            let refused: Vec<String> = left.iter().map(|&(place, _)| page.streams[place].clone()).collect();
            removed += state_table.remove(&refused)?;
            if let (None, Some(&(place, _))) = (&first, left.first()) {
                let StateRow { stream, version, state } = &page.rows[place];
                first = Some(StateRow { stream: stream.clone(), version: *version, state: Rc::clone(state) });
            }
            let mut waiting = HashSet::new();
            for (place, caught) in left {
                let row = &page.rows[place];
                if StateTable::is_collision(&caught) {
                    waiting.insert(row.stream.clone());
                }
                let fault = Fault::Row(state_table.outline(row, &caught)?);
                let found = as_owner(Planning::ByIndex, |db, catalog| {
                    known::settled(db, catalog, projection.tenant_id, &row.stream)
                })?;
                let found = found.ok_or_else(|| Error::StreamNotFound { stream: row.stream.clone() })?;
                pass_over(projection, found, to, caught, fault)?;
            }
            collisions += waiting.len();
            let done: Vec<String> = page.streams.iter().filter(|&stream| !waiting.contains(stream)).cloned().collect();
            forget(projection, &done)?;
            Ok(page.to().map(str::to_owned))
        })?;
    }
    // What collided with a row that a later page has written, or removed.
    while collisions > 0 {
        let was = collisions;
        let mut after = Some(String::new());
        while let Some(from) = after {
            after = scratch.step(|| {
                let page = Page::read(projection, &from, attempts)?;
                let left = state_table.write_around(&page.rows, &runner::get_on)?;
                let left: HashSet<usize> = left.into_iter().map(|(place, _)| place).collect();
                let places = page.streams.iter().enumerate().filter(|(place, _)| !left.contains(place));
                let done: Vec<String> = places.map(|(_, stream)| stream.clone()).collect();
                (collisions, written) = (collisions - done.len(), written + done.len());
                forget(projection, &done)?;
                dead_letters::forget_streams(projection.id, &done, to)?;
                Ok(page.to().map(str::to_owned))
            })?;
        }
        if collisions == was {
            break;
        }
    }
    if let (0, true, Some(first)) = (written, removed > 0, first) {
        // Raised as it was.
        state_table.write(&[first])?;
    }
    as_owner(Planning::ByIndex, |db, _| FORGET.with(|plan| plan.write(db, &[Some(Datum::from(projection.id))])))
        .map(drop)
}

/// Where a row of a stream that is passed over cannot be removed (another table refers to it), such rows stay as they are.
fn prune_around(projection: &Projection, state_table: &StateTable, after: &str, page: &Page) -> Result<()> {
    match attempt(|| state_table.prune(after, page.to(), &page.streams))? {
        Ok(()) => return Ok(()),
        Err(caught) if caught.is_of_event => {}
        Err(_) => return state_table.prune(after, page.to(), &page.streams),
    }
    let dead = dead_letters::streams(projection.id, after, page.to())?;
    let kept: Vec<String> = page.streams.iter().cloned().chain(dead).collect();
    state_table.prune(after, page.to(), &kept)
}

fn forget(projection: &Projection, streams: &[String]) -> Result<()> {
    let args = [Some(Datum::from(projection.id)), Some(text_array_of(streams)?)];
    as_owner(Planning::ByIndex, |db, _| FORGET_STREAMS.with(|plan| plan.write(db, &args))).map(drop)
}

fn finish(projection: &Projection, to: i64) -> Result<()> {
    test_point("published");
    as_owner(Planning::ByIndex, |db, catalog| {
        let row = [Some(Datum::from(projection.id)), Some(Datum::from(to))];
        FINISH.with(|plan| plan.write(db, &row))?;
        board::note_passed_at_commit(projection.id, to);
        catalog::announce_projection_change(catalog)
    })
}
