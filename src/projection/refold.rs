//! What a new fold or upcaster means for the state tables that were filled by the old one: they are filled again, by workers, or,
//! where they are inline, in the transaction that registers it.
//!
//! Promise: it does not take an append for a table to learn of it. Whoever is paused or stopped learns when it goes on
//! (`rebuild::step`).
use super::inline;
use super::progress::{self, Lock};
use super::projections::{self, Kind, Projection, Table};
use super::rebuild;
use super::state_table::{self, StateTable};
use crate::log::acting::Rebuilding;
use crate::log::target::Target;
use crate::log::{acts, gate, horizon};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::lock;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::{attempt, attempt_event};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::board;
use crate::shared::session::as_owner;
use crate::state::folds::{Fold, How};
use eventstream_core::error::Error;
use eventstream_core::word::{Mode, Status};
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, OIDOID, TEXTOID};

thread_local! {
    static TABLES: Plan = const { Plan::new(
        "select id from _eventstream.projections where tenant_id = $1 and kind = 'table' order by id",
        &[INT8OID],
    ) };
    static REST: Plan = const { Plan::new(
        "select g.projection_id from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id \
         where p.tenant_id = $1 and ($2 or p.kind = 'table') order by p.id for update of g",
        &[INT8OID, BOOLOID],
    ) };
    static FIND: Plan = const { Plan::new("select to_regclass($1)::oid", &[TEXTOID]) };
    static FORGET_STATISTICS: Plan = const { Plan::new(
        "delete from pg_catalog.pg_statistic s where s.starelid = $1 or s.starelid = any (array(select i.indexrelid from pg_catalog.pg_index i where i.indrelid = $1))",
        &[OIDOID],
    ) };
    static FORGET_EXTENDED: Plan = const { Plan::new(
        "delete from pg_catalog.pg_statistic_ext_data d using pg_catalog.pg_statistic_ext e where d.stxoid = e.oid and e.stxrelid = $1",
        &[OIDOID],
    ) };
    static OF_FOLD: Plan = const { Plan::new(
        "select p.name from _eventstream.projections p \
         where p.tenant_id = $1 and p.kind = 'table' \
           and (p.fold = $2 and $3 \
                or p.fold is null and exists (select from _eventstream.folds f where f.tenant_id = $1 and f.name = $2 and f.is_default \
                                              and f.category = any (p.categories))) \
         order by p.name",
        &[INT8OID, TEXTOID, BOOLOID],
    ) };
    static INLINE: Plan = const { Plan::new(
        "select exists (select from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id \
                        where p.tenant_id = $1 and p.kind = 'table' and p.mode = 'inline' \
                          and ($2 is null or p.categories is null or $2 = any (p.categories) or g.fingerprint is null))",
        &[INT8OID, TEXTOID],
    ) };
}

/// To be called before a fold for `category`, or (None) an upcaster, is registered. That none is made meanwhile comes first, as for whoever protects fields: its row would be wanted by others who hold what is waited
/// for next. Then state tables are locked, as by whoever steers one; where an inline one may have to be filled
/// again, the tenant's gate next. The definition's row, which an append may want, is locked behind it: never the other way round.
pub fn prepare(target: Target, category: Option<&str>) -> Result<()> {
    hold(target, false)?;
    let is_inline = as_owner(Planning::ByIndex, |db, _| {
        let args = [Some(Datum::from(target.id)), category.map(from_text).transpose()?];
        INLINE.with(|plan| plan.first(db, View::Latest, &args, |row| row.boolean(0)))
    })?;
    if is_inline == Some(true) { gate::close(target) } else { Ok(()) }
}

/// The tenant's state tables that a fold fills, by its name or (`by_default`) as the category's default one.
pub fn tables_of(tenant_id: i64, fold: &str, by_default: bool) -> Result<Vec<String>> {
    let args = [Some(Datum::from(tenant_id)), Some(from_text(fold)?), Some(Datum::from(!by_default))];
    as_owner(Planning::ByIndex, |db, _| {
        OF_FOLD.with(|plan| plan.rows(db, View::Latest, 0, &args, |row| Ok(row.text(0)?.to_owned())))
    })
}

/// Waits until nobody advances a projection of the tenant, and lets nobody begin to, until the end of the transaction; nor make one.
pub fn rest(target: Target) -> Result<()> {
    hold(target, true)
}

/// Waits until nobody makes a projection of the tenant, nor advances, or steers, a state table, or one of `all`, and lets nobody begin to, until the end of the transaction. Errors: 55P03.
fn hold(target: Target, all: bool) -> Result<()> {
    acts::lock(target, projections::making(target.id)?)?;
    invalidation::take_in()?;
    let which = [Some(Datum::from(target.id)), Some(Datum::from(all))];
    acts::wait_for_progress(target, all, || {
        as_owner(Planning::ByIndex, |db, _| {
            REST.with(|plan| plan.rows(db, View::Write, 0, &which, |_| Ok(()))).map(drop)
        })
    })
}

/// Begins to fill those of the tenant's state tables again whose states are others now, and names them; one that is paused or stopped is filled
/// when it goes on.
pub fn refold(target: Target) -> Result<Vec<String>> {
    Ok(fill_again(target, Change::Fold)?.filled)
}

/// What became of state tables whose states are others now.
#[derive(Default)]
pub struct Refolded {
    pub filled: Vec<String>,
    /// They have no rows until they go on.
    pub emptied: Vec<String>,
    /// Their rows are those of before.
    pub left: Vec<String>,
}

/// What has changed states.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// How they are folded.
    Fold,
    /// A rule hides more of events of these types.
    Hides(&'a [String]),
    /// A rule hides less.
    Shows,
}

/// The same under a new rule of protected fields of events of these types: what may repeat such a value is gone from the tables at once, and from their statistics. One that cannot be filled
/// by its fold as it is is left empty and paused.
pub fn refold_hiding(target: Target, event_types: &[String]) -> Result<Refolded> {
    fill_again(target, Change::Hides(event_types))
}

/// The same where a rule is about to hide less, which nobody is shown before the commit: no code of users' is called. So inline tables keep their rows, each until its stream's next event, or a rebuild,
/// and it is noted that they are filled by no fold as it is.
pub fn refold_showing(target: Target) -> Result<Refolded> {
    fill_again(target, Change::Shows)
}

fn fill_again(target: Target, change: Change) -> Result<Refolded> {
    let ids = as_owner(Planning::ByIndex, |db, _| {
        TABLES.with(|plan| plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| row.int8(0)))
    })?;
    let mut all = Refolded::default();
    for id in ids {
        let Some(progress) = progress::lock(id, Lock::Latest)? else { continue };
        invalidation::take_in()?;
        let Some(projection) = projections::by_id(id)? else { continue };
        let Kind::Table(table) = &projection.kind else { continue };
        let found = attempt(|| StateTable::new(&projection, table))?;
        let fold = found.as_ref().ok().map(StateTable::fold);
        if fold.is_some_and(|fold| progress.fingerprint == Some(fold.fingerprint)) {
            continue;
        }
        if matches!(change, Change::Shows) && (projection.mode, progress.status) == (Mode::Inline, Status::Running) {
            progress::forget_fingerprint(id)?;
            all.left.push(projection.name.clone());
            continue;
        }
        let is_hidden = matches!(change, Change::Hides(event_types) if may_repeat(fold, event_types));
        if is_hidden {
            empty(&projection, table)?;
        }
        // Where its fold is gone it stops, or its appends fail, until that is back.
        if fold.is_some() && fill_one(target, &projection, table, progress.status, is_hidden)? {
            all.filled.push(projection.name.clone());
        } else if is_hidden {
            all.emptied.push(projection.name.clone());
        } else if fold.is_some() {
            all.filled.push(projection.name.clone());
        }
    }
    Ok(all)
}

/// Whether it is filled again, or is about to be.
fn fill_one(target: Target, projection: &Projection, table: &Table, status: Status, is_hidden: bool) -> Result<bool> {
    if status != Status::Running {
        return Ok(false);
    }
    if projection.mode == Mode::Async {
        let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, target.id))?;
        rebuild::begin(projection, table, settled)?;
        board::wake_at_commit();
        return Ok(true);
    }
    let _rebuilding = Rebuilding::begin(Some(i64::MAX));
    let attach = || inline::attach(projection, 0);
    if !is_hidden {
        return attach().map(|()| true);
    }
    // Whoever registers a fold that cannot live with a rule does not forbid it.
    if attempt(attach)?.is_ok() {
        return Ok(true);
    }
    inline::detach(projection).map(|()| false)
}

/// Whether states of that fold may repeat what an event of these types says; None: nobody can tell.
fn may_repeat(fold: Option<&Fold>, event_types: &[String]) -> bool {
    match fold.map(|fold| &fold.how) {
        Some(How::Rules(rules)) => {
            rules.first_read(|read_of, _| event_types.iter().any(|one| one == read_of)).is_some()
        }
        _ => true,
    }
}

/// Removes the rows, and what statistics say of them.
fn empty(projection: &Projection, table: &Table) -> Result<()> {
    let name = [Some(from_text(&table.name)?)];
    let found = as_owner(Planning::ByIndex, |db, _| {
        FIND.with(|plan| plan.first(db, View::Latest, &name, |row| Ok(row.oid_opt(0))))
    })?;
    let Some(relation) = found.flatten() else { return Ok(()) };
    // Not while somebody gathers them.
    lock::against_analyze(relation)?;
    if let Err(caught) = attempt_event(|| state_table::empty(projection, table))? {
        let reason = format!(
            "it cannot be emptied of what is to be protected, which fails with {}; drop the projection, or have that mended",
            caught.sqlstate
        );
        let (projection, table) = (projection.name.clone(), table.name.clone());
        return Err(Error::TableUnusable { projection, table, reason }.into());
    }
    as_owner(Planning::ByIndex, |db, _| {
        let key = [Some(Datum::from(relation))];
        [&FORGET_STATISTICS, &FORGET_EXTENDED]
            .into_iter()
            .try_for_each(|forget| forget.with(|plan| plan.write(db, &key)).map(drop))
    })
}
