//! How many streams a category has, for the planner. Statistics know nothing of streams that were made a minute ago: a category counts as one
//! row then, and two of them are joined by comparing each stream with each. Here a condition on the category in the view of streams' names, which
//! temporal views are made of, is always said to leave a thousand of them, whatever statistics are there: few enough that an index finds them, and
//! many enough that a join hashes them. An estimate changes how an answer is found, never the answer.
//!
//! But EXPLAIN, and what a session may have logged to itself, tell estimates, and statistics of our tables have everybody's values. For whom these are not, a column has as many different ones as it has,
//! and no values.
use crate::pg::compat;
use crate::pg::error::entry::raising;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi::{self, compared, members};
use crate::pg::guard;
use crate::pg::process::session;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use std::ffi::CStr;
use std::sync::OnceLock;

static mut PREVIOUS: pg_sys::get_relation_stats_hook_type = None;
/// What is known of streams.
static mut STREAMS: Streams = Streams { oid: || None, table: c"", tenant: 0, name: 0, category: 0 };

compared! {
    fn SearchSysCache3(cache: i32, a: Datum, b: Datum, c: Datum) -> pg_sys::HeapTuple;
    fn SysCacheGetAttr(cache: i32, row: pg_sys::HeapTuple, column: pg_sys::AttrNumber, is_null: *mut bool) -> Datum;
}

/// Whether values are hidden from who plans.
static HIDES: OnceLock<fn() -> Result<bool>> = OnceLock::new();

/// The operator = of two texts.
const TEXT_EQUAL: Oid = Oid::from_u32(pg_sys::TextEqualOperator);

/// So many streams a category is taken to have.
const OF_A_CATEGORY: f64 = 1_000.0;

/// The columns of pg_statistic, and places of theirs, from 0: the number of distinct values, and the first of those that may be NULL (numbers and values).
const COLUMNS: usize = pg_sys::Natts_pg_statistic as usize;
const RELATION: usize = pg_sys::Anum_pg_statistic_starelid as usize - 1;
const COLUMN: usize = pg_sys::Anum_pg_statistic_staattnum as usize - 1;
const DISTINCT: usize = pg_sys::Anum_pg_statistic_stadistinct as usize - 1;
const NUMBERS: usize = pg_sys::Anum_pg_statistic_stanumbers1 as usize - 1;

/// The table of streams, and numbers of its columns.
#[derive(Clone, Copy)]
pub struct Streams {
    /// Where it is known.
    pub oid: fn() -> Option<Oid>,
    /// Its name, in the schema of our tables.
    pub table: &'static CStr,
    pub tenant: i16,
    pub name: i16,
    pub category: i16,
}

/// Sets the hook, once a process.
pub fn init(streams: Streams) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        STREAMS = streams;
        PREVIOUS = pg_sys::get_relation_stats_hook;
        pg_sys::get_relation_stats_hook = Some(know);
    }
}

/// Once a process, from _PG_init.
pub fn hide_values(from: fn() -> Result<bool>) {
    let _ = HIDES.set(from);
}

/// Whether statistics of a column are given.
unsafe extern "C-unwind" fn know(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: the hook's own protocol: a tuple of pg_statistic and what frees it. Nothing is alive here that needs dropping when it raises.
    unsafe {
        if let Some(previous) = PREVIOUS
            && previous(root, entry, column, found)
        {
            return true;
        }
        raising("an estimate", || Ok(know_streams(root, entry, column, found)? || hide(root, entry, column, found)?))
    }
}

/// The same of a table of ours, where its values are hidden.
///
/// # Safety
/// As the hook is called.
unsafe fn hide(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> Result<bool> {
    let Some(hides) = HIDES.get().filter(|_| !session::is_at_work()) else { return Ok(false) };
    // SAFETY: an entry of the query; look-ups; a tuple and what frees it, as the hook gives them.
    unsafe {
        if planned(root, entry).is_none() || (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
            return Ok(false);
        }
        let is_ours = catch(|| {
            let ours = ffi::get_namespace_oid(c"_eventstream".as_ptr(), true);
            ours != pg_sys::InvalidOid && ffi::get_rel_namespace((*entry).relid) == ours
        })?;
        if !is_ours || !hides()? {
            return Ok(false);
        }
        catch(|| {
            let distinct = distinct((*entry).relid, column, (*entry).inh);
            let row = distinct.map(|distinct| statistics((*entry).relid, column, distinct));
            (*found).statsTuple = row.unwrap_or(std::ptr::null_mut());
            (*found).freefunc = Some(free);
            true
        })
    }
}

/// How many different values a column has, as pg_statistic says it.
///
/// # Safety
/// May raise.
unsafe fn distinct(relation: Oid, column: i16, with_children: bool) -> Option<f32> {
    let cache = pg_sys::SysCacheIdentifier::STATRELATTINH as i32;
    // SAFETY: a look-up by the key of pg_statistic, whose row is released; that column is never NULL.
    unsafe {
        let key = (Datum::from(relation), Datum::from(column), Datum::from(with_children));
        let row = SearchSysCache3(cache, key.0, key.1, key.2);
        if row.is_null() {
            return None;
        }
        let mut is_null = false;
        let value = SysCacheGetAttr(cache, row, pg_sys::Anum_pg_statistic_stadistinct as i16, &mut is_null);
        ffi::ReleaseSysCache(row);
        Some(f32::from_bits(value.value() as u32))
    }
}

/// The same of the table of streams, where a category is asked for.
///
/// # Safety
/// As the hook is called.
unsafe fn know_streams(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> Result<bool> {
    // SAFETY: as the caller says. Nothing is alive here that needs dropping when it raises.
    unsafe {
        let streams = STREAMS;
        if !(column == streams.tenant || column == streams.name || column == streams.category) {
            return Ok(false);
        }
        let Some(relation) = planned(root, entry).filter(|&relation| relation == (*found).rel) else {
            return Ok(false);
        };
        let distinct = if column == streams.tenant {
            1.0 // other tenants have no part in it
        } else if column == streams.name {
            -1.0 // unique, as far as there is one tenant
        } else {
            ((*relation).tuples / OF_A_CATEGORY).max(1.0)
        };
        let make = || {
            let is_known =
                is_of_streams((*entry).relid) && is_only_table((*root).parse) && asks_for(relation, streams.category);
            if is_known {
                (*found).statsTuple = statistics((*entry).relid, column, distinct as f32);
                (*found).freefunc = Some(free);
            }
            is_known
        };
        catch(make)
    }
}

/// The relation that is planned for an entry of the query. What the hook is given may say another, or, where a BRIN index is costed, be memory that
/// nobody has written (brincostestimate of PostgreSQL's selfuncs.c): that is compared with this one, and never followed.
///
/// # Safety
/// A query that is being planned.
unsafe fn planned(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
) -> Option<*mut pg_sys::RelOptInfo> {
    // SAFETY: both arrays have as many members; the first is none.
    unsafe {
        let size = usize::try_from((*root).simple_rel_array_size).unwrap_or(0);
        let place = (1..size).find(|&place| *(*root).simple_rte_array.add(place) == entry)?;
        Some(*(*root).simple_rel_array.add(place)).filter(|relation| !relation.is_null())
    }
}

/// Whether a relation is the table of streams.
///
/// # Safety
/// May raise.
unsafe fn is_of_streams(relation: Oid) -> bool {
    // SAFETY: written once, before.
    let streams = unsafe { STREAMS };
    if let Some(known) = (streams.oid)() {
        return known == relation;
    }
    // Nothing of ours has run yet in this session, or there is nothing.
    // SAFETY: look-ups by name.
    unsafe {
        let schema = ffi::get_rel_namespace(relation);
        schema == ffi::get_namespace_oid(c"_eventstream".as_ptr(), true)
            && guard::own_schema(c"_eventstream") == Some(schema)
            && ffi::get_relname_relid(streams.table.as_ptr(), schema) == relation
    }
}

/// Whether a query reads one table and no other, as the view of streams' names does. Where events are joined to streams, statistics of both are what
/// keeps a rare category from being looked for in the whole log.
///
/// # Safety
/// A query that is being planned.
unsafe fn is_only_table(query: *mut pg_sys::Query) -> bool {
    // SAFETY: as the caller says. Entries of views are what PostgreSQL leaves of those that it has expanded.
    unsafe {
        let is_read = |entry: &*mut pg_sys::RangeTblEntry| match (**entry).rtekind {
            pg_sys::RTEKind::RTE_RELATION => (**entry).relkind != pg_sys::RELKIND_VIEW as i8,
            _ => true,
        };
        members::<pg_sys::RangeTblEntry>((*query).rtable).filter(is_read).count() == 1
    }
}

/// Whether one value of a text column is asked for.
///
/// # Safety
/// A base relation whose conditions are known.
unsafe fn asks_for(relation: *mut pg_sys::RelOptInfo, column: i16) -> bool {
    // SAFETY: the tag says what each node is.
    unsafe {
        members::<pg_sys::RestrictInfo>((*relation).baserestrictinfo).any(|condition| {
            let clause = (*condition).clause.cast::<pg_sys::OpExpr>();
            (*clause).xpr.type_ == NodeTag::T_OpExpr
                && (*clause).opno == TEXT_EQUAL
                && members::<pg_sys::Var>((*clause).args)
                    .any(|side| (*side).xpr.type_ == NodeTag::T_Var && (*side).varattno == column)
        })
    }
}

/// A row of pg_statistic that knows one thing.
///
/// # Safety
/// May raise.
unsafe fn statistics(relation: Oid, column: i16, distinct: f32) -> pg_sys::HeapTuple {
    // SAFETY: as many values as pg_statistic has columns, of its columns' types; those that may be NULL, the last ones, are.
    unsafe {
        let mut values = [Datum::from(0_i64); COLUMNS];
        let mut nulls = [false; COLUMNS];
        nulls[NUMBERS..].fill(true);
        (values[RELATION], values[COLUMN]) = (Datum::from(relation), Datum::from(column));
        values[DISTINCT] = Datum::from(distinct.to_bits());
        let catalog = ffi::table_open(pg_sys::StatisticRelationId, pg_sys::AccessShareLock as i32);
        let row = compat::form_row((*catalog).rd_att, values.as_ptr(), nulls.as_ptr());
        ffi::relation_close(catalog, pg_sys::AccessShareLock as i32);
        row
    }
}

unsafe extern "C-unwind" fn free(row: pg_sys::HeapTuple) {
    // SAFETY: made by [`statistics`].
    raising("the end of an estimate", || catch(|| unsafe { ffi::heap_freetuple(row) }));
}
