//! What a new fold or upcaster means for the state tables that were filled by the old one: they are filled again, by workers, or,
//! where they are inline, in the transaction that registers it.
//!
//! Promise: it does not take an append for a table to learn of it. Whoever is paused or stopped learns when it goes on
//! (`rebuild::step`).
use super::inline;
use super::progress::{self, Lock};
use super::projections::{self, Kind};
use super::rebuild;
use super::state_table::StateTable;
use crate::log::acting::Rebuilding;
use crate::log::target::Target;
use crate::log::{gate, horizon};
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::board;
use crate::shared::session::as_owner;
use eventstream_core::word::{Mode, Status};
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, TEXTOID};

thread_local! {
    static TABLES: Plan = const { Plan::new(
        "select id from _eventstream.projections where tenant_id = $1 and kind = 'table' order by id",
        &[INT8OID],
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
        "select exists (select from _eventstream.projections where tenant_id = $1 and kind = 'table' and mode = 'inline' \
                        and ($2 is null or categories is null or $2 = any (categories)))",
        &[INT8OID, TEXTOID],
    ) };
}

/// To be called before a fold for `category`, or (None) an upcaster, is registered: where an inline table may have to be filled again the
/// tenant's gate is closed first. The definition's row, which an append may want, is locked behind it: never the other way round.
pub fn prepare(target: Target, category: Option<&str>) -> Result<()> {
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

/// Begins to fill those of the tenant's state tables again whose states are others now, and names them; one that is paused or stopped is filled
/// when it goes on.
pub fn refold(target: Target) -> Result<Vec<String>> {
    let ids = as_owner(Planning::ByIndex, |db, _| {
        TABLES.with(|plan| plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| row.int8(0)))
    })?;
    let mut changed = Vec::new();
    for id in ids {
        let Some(progress) = progress::lock(id, Lock::Wait)? else { continue };
        invalidation::take_in()?;
        let Some(projection) = projections::by_id(id)? else { continue };
        let Kind::Table(table) = &projection.kind else { continue };
        // Where its fold is gone it stops, or its appends fail, until that is back.
        let Ok(fingerprint) = attempt(|| Ok(StateTable::new(&projection, table)?.fold().fingerprint))? else {
            continue;
        };
        if progress.fingerprint == Some(fingerprint) {
            continue;
        }
        changed.push(projection.name.clone());
        if progress.status != Status::Running {
            continue;
        }
        if projection.mode == Mode::Inline {
            let _rebuilding = Rebuilding::begin(Some(i64::MAX));
            inline::attach(&projection, 0)?;
        } else {
            let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, target.id))?;
            rebuild::begin(&projection, table, settled)?;
            board::wake_at_commit();
        }
    }
    Ok(changed)
}
