//! The end of the log through its views. A view with security_barrier is planned by itself: that rows are wanted in the order of positions, and
//! how many, stays outside, so the whole view is computed and sorted. Here the order of `… from eventstream.events order by
//! global_position … limit …` is said inside the view as well, and that its events are a tenant's and of categories that the role may read, so that
//! an index has them in this order, reading ends with the limit, and what the role may not read is passed at once. An order and a condition that follows from the others change no result; who sees what is left to the view.
//! Such a statement is planned by that index alone, whatever statistics say: they know how many events a tenant has on average, and not how
//! many this one has.
use crate::pg::compat;
use crate::pg::error::entry::raising;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi::{self, members};
use crate::pg::process::session::by_index;
use pgrx::pg_sys::{self, NodeTag, Oid, Query};
use std::cell::Cell;
use std::ffi::{c_char, c_int};

/// Numbers of columns of events and streams.
#[derive(Clone, Copy)]
pub struct Columns {
    pub tenant_of_event: i16,
    pub position: i16,
    pub category_of_event: i16,
    /// Those of events, of which there are few for one value.
    pub rare: [i16; 2],
    pub tenant_of_stream: i16,
    pub category_of_stream: i16,
}

/// What the planner is to know of our relations.
#[derive(Clone, Copy)]
pub struct Tables {
    pub events: Oid,
    pub streams: Oid,
    /// The views of events.
    pub views: [Oid; 2],
}

static mut TABLES: fn() -> Result<Tables> =
    || Ok(Tables { events: pg_sys::InvalidOid, streams: pg_sys::InvalidOid, views: [pg_sys::InvalidOid; 2] });
static mut COLUMNS: Columns = Columns {
    tenant_of_event: 0,
    position: 0,
    category_of_event: 0,
    rare: [0; 2],
    tenant_of_stream: 0,
    category_of_stream: 0,
};
static mut PREVIOUS: pg_sys::planner_hook_type = None;
static mut PREVIOUS_INFO: pg_sys::get_relation_info_hook_type = None;

thread_local! {
    /// The schema of the log's tables, while a statement is planned that wants events in order.
    static IN_ORDER: Cell<Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

/// The operator family integer_ops of B-trees.
const BIGINT_ORDER: Oid = pg_sys::INTEGER_BTREE_FAM_OID;

/// pull_var_clause is to look into everything.
const PVC_RECURSE: c_int =
    (pg_sys::PVC_RECURSE_AGGREGATES | pg_sys::PVC_RECURSE_WINDOWFUNCS | pg_sys::PVC_RECURSE_PLACEHOLDERS) as c_int;

/// So deep plain subqueries are looked into.
const MOST_DEPTH: usize = 8;

/// Sets the hooks, once a process.
pub fn init(tables: fn() -> Result<Tables>, columns: Columns) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        (TABLES, COLUMNS) = (tables, columns);
        PREVIOUS = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
        PREVIOUS_INFO = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(keep_index_in_order);
    }
}

unsafe extern "C-unwind" fn plan(
    query: *mut Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the hook's own protocol: the query is the planner's to change. Nothing is alive here that needs dropping when it raises.
    unsafe {
        let go_on = || match PREVIOUS {
            Some(previous) => previous(query, text, options, params),
            None => ffi::standard_planner(query, text, options, params),
        };
        let is_ordered = raising("the planner", || {
            if !has_barrier(query, MOST_DEPTH) {
                return Ok(false);
            }
            match TABLES() {
                Ok(tables) => catch(|| order_views(query, &tables, MOST_DEPTH)),
                Err(failure @ Failure::Postgres(_)) => Err(failure),
                Err(_) => Ok(false), // no view of ours
            }
        });
        if is_ordered { raising("the planner of events in order", || in_order(go_on)) } else { go_on() }
    }
}

/// Plans without sorts, and by the indexes that are in order.
fn in_order(plan: impl FnOnce() -> *mut pg_sys::PlannedStmt) -> Result<*mut pg_sys::PlannedStmt> {
    /// Puts back what was in force, also when a panic passes.
    struct Before(bool, c_int, Oid);
    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: plain variables of this backend, read by the planner only.
            unsafe { (pg_sys::enable_sort, pg_sys::max_parallel_workers_per_gather) = (self.0, self.1) }
            IN_ORDER.set(self.2);
        }
    }
    // SAFETY: a look-up.
    let schema = catch(|| unsafe { ffi::get_namespace_oid(c"_eventstream".as_ptr(), true) })?;
    // SAFETY: as above.
    let _before = unsafe {
        let sort = (&raw mut pg_sys::enable_sort).replace(false);
        let workers = (&raw mut pg_sys::max_parallel_workers_per_gather).replace(0);
        Before(sort, workers, IN_ORDER.replace(schema))
    };
    by_index(|| catch(plan))
}

/// Leaves the log's tables the one index that has a tenant's events in order, where they have it.
unsafe extern "C-unwind" fn keep_index_in_order(
    root: *mut pg_sys::PlannerInfo,
    relation: Oid,
    is_parent: bool,
    known: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the hook's own protocol; an index has as many keys as it says.
    unsafe {
        if let Some(previous) = PREVIOUS_INFO {
            previous(root, relation, is_parent, known);
        }
        let schema = IN_ORDER.get();
        if schema == pg_sys::InvalidOid {
            return;
        }
        let is_it = |index: &*mut pg_sys::IndexOptInfo| {
            let keys = [i32::from(COLUMNS.tenant_of_event), i32::from(COLUMNS.position)];
            let index = &**index;
            index.relam == pg_sys::BTREE_AM_OID
                && index.nkeycolumns == 2
                && std::slice::from_raw_parts(index.indexkeys, 2) == keys
                && std::slice::from_raw_parts(index.opfamily, 2) == [BIGINT_ORDER; 2]
                && index.indpred.is_null()
                && !index.hypothetical
        };
        let choose = || {
            if ffi::get_rel_namespace(relation) == schema
                && let Some(index) = members::<pg_sys::IndexOptInfo>((*known).indexlist).find(is_it)
            {
                (*known).indexlist = ffi::lappend(std::ptr::null_mut(), index.cast());
            }
        };
        raising("the choice of an index", || catch(choose));
    }
}

/// The only thing in FROM, a subquery, of a query that selects rows as they are.
///
/// # Safety
/// A query after rewriting.
unsafe fn only_subquery(query: *mut Query) -> Option<*mut pg_sys::RangeTblEntry> {
    // SAFETY: the tag says what each node is (nodes/parsenodes.h).
    unsafe {
        let query = &*query;
        let from = query.jointree.as_ref()?.fromlist;
        let is_plain = query.commandType == pg_sys::CmdType::CMD_SELECT
            && !query.hasAggs
            && !query.hasWindowFuncs
            && query.groupClause.is_null()
            && query.groupingSets.is_null()
            && query.distinctClause.is_null()
            && query.setOperations.is_null()
            && !from.is_null()
            && (*from).length == 1;
        let only = members::<pg_sys::Node>(from).next().filter(|_| is_plain)?;
        if (*only).type_ != NodeTag::T_RangeTblRef {
            return None;
        }
        let place = (*only.cast::<pg_sys::RangeTblRef>()).rtindex as usize;
        let entry = members::<pg_sys::RangeTblEntry>(query.rtable).nth(place - 1)?;
        ((*entry).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !(*entry).subquery.is_null()).then_some(entry)
    }
}

/// Whether there is a query with an order and a limit over a view with security_barrier.
///
/// # Safety
/// A query after rewriting.
unsafe fn has_barrier(query: *mut Query, depth: usize) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        let Some(entry) = only_subquery(query) else { return false };
        (*entry).security_barrier || (depth > 0 && has_barrier((*entry).subquery, depth - 1))
    }
}

/// Whether a view was told the order.
///
/// # Safety
/// A query after rewriting, which is to be planned.
unsafe fn order_views(query: *mut Query, tables: &Tables, depth: usize) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        let Some(entry) = only_subquery(query) else { return false };
        if !(*query).limitCount.is_null()
            && let Some(order) = members::<pg_sys::SortGroupClause>((*query).sortClause).next()
            && let Some(column) = column_of(query, (*order).tleSortGroupRef)
        {
            order_by(entry, column, order, conditions_on(query, std::ptr::null_mut()), tables, depth)
        } else {
            depth > 0 && !(*entry).security_barrier && order_views((*entry).subquery, tables, depth - 1)
        }
    }
}

/// The column of the only thing in FROM by which a query is ordered.
///
/// # Safety
/// A query after rewriting, with one thing in FROM.
unsafe fn column_of(query: *mut Query, sort_reference: u32) -> Option<i16> {
    // SAFETY: the tag says what each node is.
    unsafe {
        let targets = members::<pg_sys::TargetEntry>((*query).targetList);
        let target = targets.into_iter().find(|&target| (*target).ressortgroupref == sort_reference)?;
        plain_column((*target).expr.cast())
    }
}

/// # Safety
/// An expression of a query with one thing in FROM.
unsafe fn plain_column(expression: *mut pg_sys::Node) -> Option<i16> {
    // SAFETY: the tag says what each node is (nodes/primnodes.h).
    unsafe {
        if expression.is_null() || (*expression).type_ != NodeTag::T_Var {
            return None;
        }
        let var = &*expression.cast::<pg_sys::Var>();
        (var.varlevelsup == 0 && var.varattno > 0).then_some(var.varattno)
    }
}

/// The columns (Var) of the only thing in FROM that conditions of a query ask for: its own, and those on its columns `asked`.
///
/// # Safety
/// A query after rewriting, with one thing in FROM. May raise.
unsafe fn conditions_on(query: *mut Query, asked: *mut pg_sys::List) -> *mut pg_sys::List {
    // SAFETY: such a query has no aggregates and nothing of another level.
    unsafe {
        let mut found = ffi::pull_var_clause((*(*query).jointree).quals, PVC_RECURSE);
        for target in members::<pg_sys::TargetEntry>((*query).targetList) {
            if is_among(asked, (*target).resno) {
                found = ffi::list_concat(found, ffi::pull_var_clause((*target).expr.cast(), PVC_RECURSE));
            }
        }
        found
    }
}

/// # Safety
/// A list of columns (Var), or NULL.
unsafe fn is_among(columns: *mut pg_sys::List, column: i16) -> bool {
    // SAFETY: as the caller says.
    unsafe { members::<pg_sys::Var>(columns).any(|var| (*var).varattno == column) }
}

/// Says the order by a column of a subquery inside it, where that is a view of events and the column their position: whether it is.
///
/// # Safety
/// A subquery in FROM of a query that is to be planned, a clause of that one's order, and the columns of the subquery that conditions ask for.
unsafe fn order_by(
    entry: *mut pg_sys::RangeTblEntry,
    column: i16,
    order: *mut pg_sys::SortGroupClause,
    asked: *mut pg_sys::List,
    tables: &Tables,
    depth: usize,
) -> bool {
    // SAFETY: as the caller says; the new nodes are made as makefuncs.c makes them, in the planner's memory.
    unsafe {
        let query = (*entry).subquery;
        let targets = members::<pg_sys::TargetEntry>((*query).targetList);
        let Some(target) = targets.into_iter().find(|&target| (*target).resno == column) else { return false };
        if !(*entry).security_barrier {
            // A plain subquery around the view.
            if let (Some(inner), Some(column)) = (only_subquery(query), plain_column((*target).expr.cast()))
                && depth > 0
                && (*query).limitCount.is_null()
                && (*query).limitOffset.is_null()
                && (*query).sortClause.is_null()
            {
                let asked = conditions_on(query, asked);
                return order_by(inner, column, order, asked, tables, depth - 1);
            }
            return false;
        }
        if !tables.views.contains(&compat::view_of(entry)) {
            return false;
        }
        let place_of = |relation: Oid| {
            let entries = members::<pg_sys::RangeTblEntry>((*query).rtable);
            let is_it = |entry: *mut pg_sys::RangeTblEntry| {
                (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (*entry).relid == relation
            };
            entries.into_iter().position(is_it).map(|place| place as i32 + 1)
        };
        let (Some(events), Some(streams)) = (place_of(tables.events), place_of(tables.streams)) else { return false };
        let is_plain = (*query).sortClause.is_null() && (*query).limitCount.is_null() && !(*query).hasAggs;
        let expression = (*target).expr.cast::<pg_sys::Node>();
        let is_position =
            plain_column(expression) == Some(COLUMNS.position) && (*expression.cast::<pg_sys::Var>()).varno == events;
        let rare = COLUMNS.rare;
        let asks_for_few = members::<pg_sys::TargetEntry>((*query).targetList).any(|target| {
            let var = (*target).expr.cast::<pg_sys::Var>();
            is_among(asked, (*target).resno)
                && plain_column(var.cast())
                    .is_some_and(|column| (*var).varno == streams || (*var).varno == events && rare.contains(&column))
        });
        if !is_plain || !is_position || asks_for_few {
            return false;
        }
        say_order(query, target, order, (events, streams));
        true
    }
}

/// Orders a view of events by their position inside it, and says of the events what is known of their streams: the tenant, and which categories may
/// be read.
///
/// # Safety
/// The view's query, its column that is the position, a clause of the outer query's order, and the places of events and streams in it.
unsafe fn say_order(
    query: *mut pg_sys::Query,
    target: *mut pg_sys::TargetEntry,
    order: *mut pg_sys::SortGroupClause,
    (events, streams): (i32, i32),
) {
    // SAFETY: as the caller says; the new nodes are made as makefuncs.c makes them, in the planner's memory.
    unsafe {
        if (*target).ressortgroupref == 0 {
            let targets = members::<pg_sys::TargetEntry>((*query).targetList);
            (*target).ressortgroupref = targets.map(|target| (*target).ressortgroupref).max().unwrap_or(0) + 1;
        }
        let clause = ffi::palloc(size_of::<pg_sys::SortGroupClause>()).cast::<pg_sys::SortGroupClause>();
        clause.write(*order);
        (*clause).tleSortGroupRef = (*target).ressortgroupref;
        (*query).sortClause = ffi::lappend(std::ptr::null_mut(), clause.cast());
        let columns = COLUMNS;
        let same_tenant = equal(bigint(events, columns.tenant_of_event), bigint(streams, columns.tenant_of_stream));
        let quals = (*(*query).jointree).quals;
        (*(*query).jointree).quals = ffi::make_and_qual(quals, same_tenant);
        for readable in members::<pg_sys::Node>(conditions_on_category(quals, streams)) {
            let of_event = ffi::copyObjectImpl(readable.cast()).cast::<pg_sys::Node>();
            for var in members::<pg_sys::Var>(ffi::pull_var_clause(of_event, PVC_RECURSE)) {
                ((*var).varno, (*var).varattno) = (events, columns.category_of_event);
                ((*var).varnosyn, (*var).varattnosyn) = (events as u32, columns.category_of_event);
            }
            (*(*query).jointree).quals = ffi::make_and_qual((*(*query).jointree).quals, of_event);
        }
    }
}

/// Those of the conditions that must all be true which are on nothing but the category of streams: which of them the role may read. An event has
/// the category of its stream, so they are true of events, too, and an event that the role may not read costs no look at its stream.
///
/// # Safety
/// Conditions of a view of ours. May raise.
unsafe fn conditions_on_category(quals: *mut pg_sys::Node, streams: i32) -> *mut pg_sys::List {
    // SAFETY: the tag says what each node is. What is found is a list of PostgreSQL's: nothing needs dropping when it raises.
    unsafe {
        let mut found = std::ptr::null_mut();
        if quals.is_null() {
            return found;
        }
        if (*quals).type_ == NodeTag::T_BoolExpr {
            let all = quals.cast::<pg_sys::BoolExpr>();
            if (*all).boolop == pg_sys::BoolExprType::AND_EXPR {
                for part in members((*all).args) {
                    found = ffi::list_concat(found, conditions_on_category(part, streams));
                }
                return found;
            }
        }
        let columns = ffi::pull_var_clause(quals, PVC_RECURSE);
        let category = COLUMNS.category_of_stream;
        let is_category = |var: *mut pg_sys::Var| (*var).varno == streams && (*var).varattno == category;
        if !columns.is_null() && members::<pg_sys::Var>(columns).all(is_category) {
            found = ffi::lappend(found, quals.cast());
        }
        found
    }
}

/// A bigint column of a relation of a query.
///
/// # Safety
/// May raise.
unsafe fn bigint(relation: i32, column: i16) -> *mut pg_sys::Node {
    // SAFETY: a column of that type.
    unsafe { ffi::makeVar(relation, column, pg_sys::INT8OID, -1, pg_sys::InvalidOid, 0).cast() }
}

/// # Safety
/// Two expressions of type bigint. May raise.
unsafe fn equal(one: *mut pg_sys::Node, other: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: as the caller says.
    unsafe {
        let none = pg_sys::InvalidOid;
        ffi::make_opclause(ffi::INT8_EQUAL_OPERATOR, pg_sys::BOOLOID, false, one.cast(), other.cast(), none, none)
            .cast()
    }
}
