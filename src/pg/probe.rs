//! The newest rows with one key, straight from an index of ours: what every append asks (the head of its stream, an event id)
//! skips starting and ending a planned statement so.
use super::compat;
use super::failure::{Result, catch};
use super::ffi;
use super::plan::{Row, View, latest_snapshot};
use super::session::Db;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ptr;

/// An index, by its table and its columns (numbers from 1), the first of which is compared.
pub struct Probe {
    table: Oid,
    columns: &'static [i16],
    /// The equality function of the first column's type.
    equality: u32,
    /// Found at the first use; checked at each, because REINDEX CONCURRENTLY makes another.
    index: Cell<Oid>,
}

/// What a probe has open.
struct Scan {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    columns: usize,
}

impl Probe {
    /// For an index whose first column is a bigint.
    pub const fn by_int8(table: Oid, columns: &'static [i16]) -> Self {
        Self { table, columns, equality: pg_sys::F_INT8EQ, index: Cell::new(pg_sys::InvalidOid) }
    }

    /// For an index whose first column is a uuid.
    pub const fn by_uuid(table: Oid, columns: &'static [i16]) -> Self {
        Self { table, columns, equality: pg_sys::F_UUID_EQ, index: Cell::new(pg_sys::InvalidOid) }
    }

    /// Gives the rows with `key` to `each`, last ones of the index first, until it wants no more (false).
    pub fn newest_first(&self, db: &Db, view: View, key: Datum, each: impl FnMut(&Row) -> Result<bool>) -> Result<()> {
        self.rows(db, view, key, None, each)
    }

    /// The same for those whose second column, a bigint, is less than `below`.
    pub fn newest_below(
        &self,
        db: &Db,
        view: View,
        key: Datum,
        below: i64,
        each: impl FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        self.rows(db, view, key, Some(below), each)
    }

    fn rows(
        &self,
        _: &Db,
        view: View,
        key: Datum,
        below: Option<i64>,
        mut each: impl FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let Some(open) = catch(|| self.open(view, key, below))? else {
            let what = format!("table {} has no valid index on its columns {:?}", self.table.to_u32(), self.columns);
            return Err(Error::Internal { what }.into());
        };
        let outcome = loop {
            // SAFETY: the scan is open; a row is read before the next one is fetched.
            let row = catch(|| unsafe {
                let direction = pg_sys::ScanDirection::BackwardScanDirection;
                let found = ffi::index_getnext_slot(open.scan, direction, open.slot);
                if found {
                    ffi::slot_getsomeattrs_int(open.slot, open.columns as i32);
                }
                found
            })?;
            if !row {
                break Ok(());
            }
            // SAFETY: all columns of the slot are there.
            let row = unsafe { Row::of_slot(open.slot, open.columns) };
            match each(&row) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        if !matches!(outcome, Err(super::failure::Failure::Postgres(_))) {
            catch(|| close(&open))?;
        }
        outcome
    }

    /// Runs inside `catch`.
    fn open(&self, view: View, key: Datum, below: Option<i64>) -> Option<Scan> {
        // SAFETY: as systable_beginscan of access/index/genam.c, under a snapshot that stays pushed until `close`. The locks are
        // kept until the end of the transaction, as a statement's are.
        unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let relation = ffi::relation_open(self.table, lock);
            let index = self.open_index(relation)?;
            let slot = ffi::MakeSingleTupleTableSlot((*relation).rd_att, ffi::table_slot_callbacks(relation));
            let of_caller = view == View::Caller;
            ffi::PushActiveSnapshot(if of_caller { pg_sys::GetActiveSnapshot() } else { latest_snapshot() });
            let count = 1 + i32::from(below.is_some());
            let scan = compat::index_beginscan(relation, index, pg_sys::GetActiveSnapshot(), count);
            let mut conditions = [pg_sys::ScanKeyData::default(); 2];
            let (equal, less) = (pg_sys::BTEqualStrategyNumber as u16, pg_sys::BTLessStrategyNumber as u16);
            ffi::ScanKeyInit(&mut conditions[0], 1, equal, Oid::from(self.equality), key);
            if let Some(below) = below {
                ffi::ScanKeyInit(&mut conditions[1], 2, less, Oid::from(pg_sys::F_INT8LT), Datum::from(below));
            }
            ffi::index_rescan(scan, conditions.as_mut_ptr(), count, ptr::null_mut(), 0);
            Some(Scan { relation, index, scan, slot, columns: (*(*relation).rd_att).natts as usize })
        }
    }

    /// # Safety
    /// `relation` is open and locked. Runs inside `catch`.
    unsafe fn open_index(&self, relation: pg_sys::Relation) -> Option<pg_sys::Relation> {
        // SAFETY: the list is ours; the relation's lock keeps its indexes from being dropped.
        unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let list = ffi::RelationGetIndexList(relation);
            let count = if list.is_null() { 0 } else { (*list).length as usize };
            let mut known = None;
            for place in 0..count {
                let oid = (*(*list).elements.add(place)).oid_value;
                if oid == self.index.get() {
                    known = Some(ffi::index_open(oid, lock));
                }
            }
            for place in 0..count {
                if known.is_some() {
                    break;
                }
                let oid = (*(*list).elements.add(place)).oid_value;
                let index = ffi::index_open(oid, lock);
                if self.is_it(index) {
                    self.index.set(oid);
                    known = Some(index);
                } else {
                    ffi::index_close(index, lock);
                }
            }
            ffi::list_free(list);
            known
        }
    }

    /// # Safety
    /// `index` is an open index.
    unsafe fn is_it(&self, index: pg_sys::Relation) -> bool {
        // SAFETY: rd_index and rd_indextuple belong to the open index; indkey has indnkeyatts numbers.
        unsafe {
            let form = &*(*index).rd_index;
            let keys = form.indkey.values.as_slice(form.indnkeyatts as usize);
            let is_partial =
                !pg_sys::heap_attisnull((*index).rd_indextuple, pg_sys::Anum_pg_index_indpred as i32, ptr::null_mut());
            form.indisvalid && !is_partial && keys == self.columns
        }
    }
}

/// Runs inside `catch`.
fn close(open: &Scan) {
    // SAFETY: closes what `open` opened, in reverse order.
    unsafe {
        ffi::index_endscan(open.scan);
        ffi::PopActiveSnapshot();
        ffi::ExecDropSingleTupleTableSlot(open.slot);
        ffi::index_close(open.index, pg_sys::NoLock as i32);
        ffi::relation_close(open.relation, pg_sys::NoLock as i32);
    }
}
