//! What a view over the log's tables reads. EXPLAIN (ANALYZE) and pg_stat_xact_all_tables count rows that were read and removed, so a plan that
//! filters the rows of all tenants tells each of them about the others; and it makes a small tenant pay for a large one. Here such a table is left
//! no way to be read but by an index that is asked for the tenant, or for what stands in a row of the tenant (the id of its stream). That holds
//! whatever a role sets: those for indexes (enable_indexscan) are on while these ways are weighed. Who reads the tables themselves, as our own
//! statements do, plans as ever.
use crate::pg::error::entry::raising;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, NodeTag, Path};
use std::ffi::CStr;

static mut PREVIOUS: pg_sys::set_rel_pathlist_hook_type = None;

/// Columns that no view shows, so that only conditions of ours can compare them: with the tenant, or with a row of the tenant's.
static mut WALLS: &[&CStr] = &[];

/// Sets the hook, once a process.
pub fn init(walls: &'static [&'static CStr]) {
    // SAFETY: _PG_init runs once a process, single-threaded; the hook is chained.
    unsafe {
        WALLS = walls;
        PREVIOUS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(choose);
    }
}

unsafe extern "C-unwind" fn choose(
    root: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    index: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the hook's own protocol. Nothing is alive here that needs dropping when it raises.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(root, table, index, entry);
        }
        // userid: whose rights the table is read with, where that is a view's owner.
        let is_in_view = (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            && (*entry).relkind as u8 == pg_sys::RELKIND_RELATION
            && (*table).userid != pg_sys::InvalidOid
            && !(*table).indexlist.is_null();
        if !is_in_view {
            return;
        }
        let is_ours = || {
            let schema = ffi::get_namespace_oid(c"_eventstream".as_ptr(), true);
            schema != pg_sys::InvalidOid && ffi::get_rel_namespace((*entry).relid) == schema
        };
        raising("the choice of paths", || {
            if catch(is_ours)? { keep_own_rows(root, table, (*entry).relid) } else { Ok(()) }
        });
    }
}

/// Index scans, with the table and without, are on until this is dropped, also when a panic passes.
struct IndexScans([bool; 2]);

impl IndexScans {
    fn on() -> Self {
        Self(Self::exchange([true, true]))
    }

    /// Puts these in force; those that were.
    fn exchange([with, without]: [bool; 2]) -> [bool; 2] {
        // SAFETY: plain variables of this backend, read by the planner.
        unsafe {
            [
                (&raw mut pg_sys::enable_indexscan).replace(with),
                (&raw mut pg_sys::enable_indexonlyscan).replace(without),
            ]
        }
    }
}

impl Drop for IndexScans {
    fn drop(&mut self) {
        Self::exchange(self.0);
    }
}

/// Leaves a table the paths that read a tenant's rows only, where it has one that serves by itself.
///
/// # Safety
/// A table that is being planned.
unsafe fn keep_own_rows(
    root: *mut pg_sys::PlannerInfo,
    table: *mut pg_sys::RelOptInfo,
    relation: pg_sys::Oid,
) -> Result<()> {
    // SAFETY: as the caller says; the lists are the planner's, in its memory. What is set meanwhile is put back, as a failure is a value here.
    unsafe {
        let (paths, partial, indexes) = ((*table).pathlist, (*table).partial_pathlist, (*table).indexlist);
        let switches = IndexScans::on();
        let found = catch(|| {
            let (mut own, mut own_partial) = (Vec::new(), Vec::new());
            // Each index by itself: a cheaper path that reads everything would else push out the one that is wanted.
            for each in ffi::members::<pg_sys::IndexOptInfo>(indexes) {
                (*table).indexlist = ffi::lappend(std::ptr::null_mut(), each.cast());
                ((*table).pathlist, (*table).partial_pathlist) = (std::ptr::null_mut(), std::ptr::null_mut());
                ffi::create_index_paths(root, table);
                own.extend(ffi::members::<Path>((*table).pathlist).filter(|&path| is_own(path, relation)));
                own_partial
                    .extend(ffi::members::<Path>((*table).partial_pathlist).filter(|&path| is_own(path, relation)));
            }
            (own, own_partial)
        });
        drop(switches);
        ((*table).pathlist, (*table).partial_pathlist, (*table).indexlist) = (paths, partial, indexes);
        let (own, own_partial) = found?;
        if !own.iter().any(|&path| (*path).param_info.is_null()) {
            return Ok(());
        }
        catch(|| {
            ((*table).pathlist, (*table).partial_pathlist) = (std::ptr::null_mut(), std::ptr::null_mut());
            for &path in &own {
                ffi::add_path(table, path);
            }
            for &path in &own_partial {
                ffi::add_partial_path(table, path);
            }
        })
    }
}

/// Whether a path reads by an index that is asked for a column that is a wall.
///
/// # Safety
/// A path that create_index_paths made. May raise.
unsafe fn is_own(path: *mut Path, relation: pg_sys::Oid) -> bool {
    // SAFETY: the tag says what each node is (nodes/pathnodes.h); an index has as many keys as it says.
    unsafe {
        match (*path).type_ {
            NodeTag::T_IndexPath => {
                let path = &*path.cast::<pg_sys::IndexPath>();
                let keys =
                    std::slice::from_raw_parts((*path.indexinfo).indexkeys, (*path.indexinfo).nkeycolumns as usize);
                ffi::members::<pg_sys::IndexClause>(path.indexclauses)
                    .any(|clause| is_wall(relation, keys[(*clause).indexcol as usize]))
            }
            NodeTag::T_BitmapHeapPath => is_own((*path.cast::<pg_sys::BitmapHeapPath>()).bitmapqual, relation),
            NodeTag::T_BitmapAndPath => ffi::members::<Path>((*path.cast::<pg_sys::BitmapAndPath>()).bitmapquals)
                .all(|each| is_own(each, relation)),
            NodeTag::T_BitmapOrPath => ffi::members::<Path>((*path.cast::<pg_sys::BitmapOrPath>()).bitmapquals)
                .all(|each| is_own(each, relation)),
            _ => false,
        }
    }
}

/// # Safety
/// A column of a table, 0 for an expression. May raise.
unsafe fn is_wall(relation: pg_sys::Oid, column: i32) -> bool {
    // SAFETY: the name is a copy in the planner's memory; the list was written once, before.
    unsafe {
        let walls = WALLS;
        if column <= 0 {
            return false;
        }
        let name = ffi::get_attname(relation, column as i16, true);
        !name.is_null() && walls.contains(&CStr::from_ptr(name))
    }
}
