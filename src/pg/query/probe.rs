//! Rows with one key, straight from an index of ours and in its order: what every append asks (the head of its stream, an event
//! id) and what every fold reads skips starting and ending a planned statement so.
use super::plan::{View, latest_snapshot};
use super::row::Row;
use crate::pg::compat;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use crate::pg::jsonb::check_for_interrupts;
use crate::pg::process::session::Db;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, NodeTag, Oid};
use std::cell::Cell;
use std::ptr;

/// An index, by its table and its columns (numbers from 1), the first of which is compared.
pub struct Probe {
    table: Oid,
    columns: &'static [i16],
    /// The equality function of the first column's type.
    equality: u32,
    /// Which rows the index covers; None: all.
    condition: Option<Covered>,
    /// Found at the first use; checked at each, because REINDEX CONCURRENTLY makes another.
    index: Cell<Oid>,
}

/// The condition of a partial index.
#[derive(Clone, Copy)]
pub enum Covered {
    /// The timestamptz in one column of the table is before the one in another.
    Smaller(i16, i16),
    /// The column is not NULL.
    Present(i16),
}

/// A condition on a column of the index after the first.
#[derive(Clone, Copy)]
pub struct Bound {
    /// The column's place in the index, from 1.
    column: i16,
    strategy: u32,
    function: u32,
    value: Datum,
}

impl Bound {
    /// A bigint column, at least.
    pub fn at_least(column: i16, value: i64) -> Self {
        Self { column, strategy: pg_sys::BTGreaterEqualStrategyNumber, function: pg_sys::F_INT8GE, value: value.into() }
    }

    /// A text column, equal.
    pub fn equal_text(column: i16, value: Datum) -> Self {
        Self { column, strategy: pg_sys::BTEqualStrategyNumber, function: pg_sys::F_TEXTEQ, value }
    }

    /// A text column, at least.
    pub fn text_at_least(column: i16, value: Datum) -> Self {
        Self { column, strategy: pg_sys::BTGreaterEqualStrategyNumber, function: pg_sys::F_TEXT_GE, value }
    }

    /// A text column, before.
    pub fn text_before(column: i16, value: Datum) -> Self {
        Self { column, strategy: pg_sys::BTLessStrategyNumber, function: pg_sys::F_TEXT_LT, value }
    }

    /// A bigint column, at most.
    pub fn at_most(column: i16, value: i64) -> Self {
        Self { column, strategy: pg_sys::BTLessEqualStrategyNumber, function: pg_sys::F_INT8LE, value: value.into() }
    }

    /// The same bound at another value.
    pub fn with(self, value: i64) -> Self {
        Self { value: value.into(), ..self }
    }

    /// A timestamptz column, at most.
    pub fn until(column: i16, moment: i64) -> Self {
        let function = pg_sys::F_TIMESTAMPTZ_LE;
        Self { column, strategy: pg_sys::BTLessEqualStrategyNumber, function, value: moment.into() }
    }
}

/// What is known of a row, others' open transactions included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Nowhere,
    /// Committed, or this transaction's own.
    There,
    /// That transaction is inserting it.
    Coming(pg_sys::TransactionId),
}

/// How strongly a row is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStrength {
    /// As FOR NO KEY UPDATE does: alone, but for who only refers to it.
    Append,
    /// As FOR SHARE does: together with others who want it unchanged.
    Check,
}

/// What came of locking a row.
pub enum RowLock<T> {
    Nowhere,
    Locked(T),
    /// Somebody has it, and the caller does not wait.
    Busy,
    /// It was changed since the look: what that means for whom, the statement knows.
    Changed,
}

/// The order in which rows come: that of the index, or last ones first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// The collation "C", which every text of ours has.
const C_COLLATION: Oid = pg_sys::C_COLLATION_OID;

/// The most conditions that a probe has.
const MOST_CONDITIONS: usize = 4;

/// What a probe has open.
pub struct Scan {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    columns: usize,
}

impl Scan {
    /// Fetches the next row; whether there is one.
    pub fn fetch(&self, direction: Direction) -> Result<bool> {
        let direction = match direction {
            Direction::Forward => pg_sys::ScanDirection::ForwardScanDirection,
            Direction::Backward => pg_sys::ScanDirection::BackwardScanDirection,
        };
        // SAFETY: the scan is open; a row is read before the next one is fetched.
        catch(|| unsafe {
            check_for_interrupts();
            let found = ffi::index_getnext_slot(self.scan, direction, self.slot);
            if found {
                ffi::slot_getsomeattrs_int(self.slot, self.columns as i32);
            }
            found
        })
    }

    /// The row that was fetched last.
    pub fn row(&self) -> Row<'_> {
        // SAFETY: all columns of the slot are there.
        unsafe { Row::of_slot(self.slot, self.columns) }
    }
}

impl Probe {
    /// For an index whose first column is a bigint.
    pub const fn by_int8(table: Oid, columns: &'static [i16]) -> Self {
        Self { table, columns, equality: pg_sys::F_INT8EQ, condition: None, index: Cell::new(pg_sys::InvalidOid) }
    }

    /// For a partial index whose first column is a bigint.
    pub const fn partial_by_int8(table: Oid, columns: &'static [i16], condition: Covered) -> Self {
        Self { condition: Some(condition), ..Self::by_int8(table, columns) }
    }

    /// For an index whose first column is a uuid.
    pub const fn by_uuid(table: Oid, columns: &'static [i16]) -> Self {
        Self { table, columns, equality: pg_sys::F_UUID_EQ, condition: None, index: Cell::new(pg_sys::InvalidOid) }
    }

    /// Gives the rows with `key` and within `bounds` to `each`, last ones of the index first, until it wants no more (false).
    pub fn newest_first(
        &self,
        db: &Db,
        view: View,
        key: Datum,
        bounds: &[Bound],
        each: impl FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        self.within(db, view, key, bounds, Direction::Backward, each)
    }

    /// Gives the rows with `key` and within `bounds` to `each`, in the order of the index, until it wants no more (false).
    pub fn in_order(
        &self,
        db: &Db,
        view: View,
        key: Datum,
        bounds: &[Bound],
        each: impl FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        self.within(db, view, key, bounds, Direction::Forward, each)
    }

    /// Gives the rows with `key` and within `bounds` to `each` until it wants no more (false).
    pub fn within(
        &self,
        _: &Db,
        view: View,
        key: Datum,
        bounds: &[Bound],
        direction: Direction,
        mut each: impl FnMut(&Row) -> Result<bool>,
    ) -> Result<()> {
        let open = self.opened(view, key, bounds)?;
        let outcome = loop {
            if !open.fetch(direction)? {
                break Ok(());
            }
            match each(&open.row()) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        if !matches!(outcome, Err(Failure::Postgres(_))) {
            catch(|| finish(&open))?;
        }
        outcome
    }

    /// Whether there is a row with `key` and within `bounds`, or will be if a transaction that is open commits. One that is there is given to `read`.
    pub fn presence(
        &self,
        _: &Db,
        key: Datum,
        bounds: &[Bound],
        read: impl FnOnce(&Row) -> Result<()>,
    ) -> Result<Presence> {
        // SAFETY: a dirty snapshot as InitDirtySnapshot makes it, which outlives the scan.
        let mut dirty: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
        dirty.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
        let dirty = &raw mut dirty;
        // SAFETY: it is of this function's frame.
        let open = catch(|| unsafe { self.open(dirty, pg_sys::AccessShareLock, key, bounds) })?;
        let open = open.ok_or_else(|| self.without_index())?;
        // SAFETY: as above; the scan says in it who is inserting the row that it found.
        let presence = match open.fetch(Direction::Forward)?.then(|| unsafe { (*dirty).xmin }) {
            None => Presence::Nowhere,
            Some(pg_sys::InvalidTransactionId) => Presence::There,
            Some(inserting) => Presence::Coming(inserting),
        };
        let done = if presence == Presence::There { read(&open.row()) } else { Ok(()) };
        if !matches!(done, Err(Failure::Postgres(_))) {
            catch(|| close(&open))?;
        }
        done.map(|()| presence)
    }

    /// Locks the row with `key` and within `bounds` until the end of the transaction, if `waits` once whoever holds it has ended, and gives it to `read`: what
    /// SELECT … FOR NO KEY UPDATE or FOR SHARE does with a row that nobody changes, by the steps of RelationFindReplTupleByIndex
    /// (executor/execReplication.c).
    pub fn lock<T>(
        &self,
        _: &Db,
        (strength, waits): (RowStrength, bool),
        key: Datum,
        bounds: &[Bound],
        read: impl FnOnce(&Row) -> Result<T>,
    ) -> Result<RowLock<T>> {
        let (open, outcome) = catch(|| {
            // SAFETY: the snapshot is pushed until the scan is closed; an error leaves both, and what waits, to the abort. The row's place is
            // copied, because the slot is filled again with the row as it is when locked.
            unsafe {
                ffi::PushActiveSnapshot(latest_snapshot());
                let snapshot = pg_sys::GetActiveSnapshot();
                let Some(open) = self.open(snapshot, pg_sys::RowShareLock, key, bounds) else { return (None, None) };
                if !ffi::index_getnext_slot(open.scan, pg_sys::ScanDirection::ForwardScanDirection, open.slot) {
                    return (Some(open), None);
                }
                let mut place = (*open.slot).tts_tid;
                let outcome = lock_tuple(open.relation, &mut place, open.slot, strength, waits);
                if outcome == pg_sys::TM_Result::TM_Ok {
                    ffi::slot_getsomeattrs_int(open.slot, open.columns as i32);
                }
                (Some(open), Some(outcome))
            }
        })?;
        let Some(open) = open else { return Err(self.without_index()) };
        let locked = match outcome {
            None => Ok(RowLock::Nowhere),
            Some(pg_sys::TM_Result::TM_Ok) => {
                // SAFETY: all columns of the slot are there.
                let row = unsafe { Row::of_slot(open.slot, open.columns) };
                read(&row).map(RowLock::Locked)
            }
            Some(pg_sys::TM_Result::TM_WouldBlock) => Ok(RowLock::Busy),
            Some(_) => Ok(RowLock::Changed),
        };
        catch(|| {
            close(&open);
            // SAFETY: pushed above.
            unsafe { ffi::PopActiveSnapshot() }
        })?;
        locked
    }

    /// The scan, to be closed by [`finish`] unless PostgreSQL raises an error: the last one that was opened first.
    pub fn opened(&self, view: View, key: Datum, bounds: &[Bound]) -> Result<Scan> {
        let open = catch(|| {
            // SAFETY: the snapshot is pushed until the scan is closed.
            unsafe {
                let of_caller = view == View::Caller;
                ffi::PushActiveSnapshot(if of_caller { pg_sys::GetActiveSnapshot() } else { latest_snapshot() });
                let snapshot = match view {
                    View::Now => &raw mut pg_sys::SnapshotSelfData,
                    _ => pg_sys::GetActiveSnapshot(),
                };
                self.open(snapshot, pg_sys::AccessShareLock, key, bounds)
            }
        })?;
        open.ok_or_else(|| self.without_index())
    }

    fn without_index(&self) -> Failure {
        let what = format!("table {} has no valid index on its columns {:?}", self.table.to_u32(), self.columns);
        Error::Internal { what }.into()
    }

    /// Runs inside `catch`; `lock`: of the table.
    ///
    /// # Safety
    /// The snapshot outlives the scan.
    unsafe fn open(&self, snapshot: pg_sys::Snapshot, lock: u32, key: Datum, bounds: &[Bound]) -> Option<Scan> {
        // SAFETY: as systable_beginscan of access/index/genam.c. The locks are kept until the end of the transaction, as a statement's are.
        unsafe {
            let relation = ffi::relation_open(self.table, lock as i32);
            let index = self.open_index(relation)?;
            let slot = ffi::MakeSingleTupleTableSlot((*relation).rd_att, ffi::table_slot_callbacks(relation));
            let count = 1 + bounds.len().min(MOST_CONDITIONS - 1);
            let scan = compat::index_beginscan(relation, index, snapshot, count as i32);
            let mut conditions = [pg_sys::ScanKeyData::default(); MOST_CONDITIONS];
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            ffi::ScanKeyInit(&mut conditions[0], 1, equal, Oid::from(self.equality), key);
            for (condition, bound) in conditions[1..].iter_mut().zip(bounds) {
                let function = Oid::from(bound.function);
                ffi::ScanKeyInit(condition, bound.column, bound.strategy as u16, function, bound.value);
                // ScanKeyInit means the collation of catalogs: the index is in the order of its own.
                condition.sk_collation = *(*index).rd_indcollation.add(bound.column as usize - 1);
            }
            ffi::index_rescan(scan, conditions.as_mut_ptr(), count as i32, ptr::null_mut(), 0);
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

    /// Whether the index is the one meant. An operator may have indexes of other kinds, orders, collations or conditions on the same columns, and
    /// REINDEX CONCURRENTLY puts ours behind them.
    ///
    /// # Safety
    /// `index` is an open index. May raise.
    unsafe fn is_it(&self, index: pg_sys::Relation) -> bool {
        // SAFETY: rd_index belongs to the open index; indkey has indnkeyatts numbers.
        unsafe {
            let form = &*(*index).rd_index;
            form.indisvalid
                && (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && form.indkey.values.as_slice(form.indnkeyatts as usize) == self.columns
                && (0..self.columns.len()).all(|place| is_ordinary(index, place))
                && covers(index, self.condition)
        }
    }
}

/// Whether a column of an index is in the ascending order of its type's default operators, and a text in that of bytes, as ours are.
///
/// # Safety
/// `index` is an open B-tree with such a column, from 0. May raise.
unsafe fn is_ordinary(index: pg_sys::Relation, place: usize) -> bool {
    // SAFETY: each array has a place for each key column.
    unsafe {
        let index = &*index;
        let ordinary = ffi::GetDefaultOpClass(*index.rd_opcintype.add(place), pg_sys::BTREE_AM_OID);
        let collation = *index.rd_indcollation.add(place);
        *index.rd_indoption.add(place) == 0
            && (collation == pg_sys::InvalidOid || collation == C_COLLATION)
            && ordinary != pg_sys::InvalidOid
            && ffi::get_opclass_family(ordinary) == *index.rd_opfamily.add(place)
    }
}

/// Whether an index covers the rows with this condition and no others.
///
/// # Safety
/// `index` is an open index. May raise.
unsafe fn covers(index: pg_sys::Relation, condition: Option<Covered>) -> bool {
    // SAFETY: the predicate is a list of what must all be true (utils/cache/relcache.c), a copy of ours; tags say what nodes are.
    unsafe {
        let conditions = ffi::RelationGetIndexPredicate(index);
        let Some(condition) = condition else { return conditions.is_null() };
        if conditions.is_null() || (*conditions).length != 1 {
            return false;
        }
        let is_column = |node: *mut std::ffi::c_void, column: i16| {
            let var = node.cast::<pg_sys::Var>();
            (*var).xpr.type_ == NodeTag::T_Var && (*var).varattno == column
        };
        let only = (*(*conditions).elements).ptr_value;
        match condition {
            Covered::Smaller(one, other) => {
                let only = only.cast::<pg_sys::OpExpr>();
                if (*only).xpr.type_ != NodeTag::T_OpExpr || (*only).opfuncid != Oid::from(pg_sys::F_TIMESTAMPTZ_LT) {
                    return false;
                }
                let side = |place| (*(*(*only).args).elements.add(place)).ptr_value;
                is_column(side(0), one) && is_column(side(1), other)
            }
            Covered::Present(column) => {
                let only = only.cast::<pg_sys::NullTest>();
                (*only).xpr.type_ == NodeTag::T_NullTest
                    && (*only).nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
                    && is_column((*only).arg.cast(), column)
            }
        }
    }
}

/// table_tuple_lock (access/tableam.h) as FOR NO KEY UPDATE. Runs inside `catch`.
///
/// # Safety
/// The relation is open and locked, `place` is a row's, `slot` is one of the table's kind, and a snapshot is active.
unsafe fn lock_tuple(
    relation: pg_sys::Relation,
    place: pg_sys::ItemPointer,
    slot: *mut pg_sys::TupleTableSlot,
    strength: RowStrength,
    waits: bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: as the caller says; a table without this function cannot be locked by SQL either.
    unsafe {
        let Some(lock) = (*(*relation).rd_tableam).tuple_lock else { return pg_sys::TM_Result::TM_Invisible };
        let mode = match strength {
            RowStrength::Append => pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
            RowStrength::Check => pg_sys::LockTupleMode::LockTupleShare,
        };
        let policy = if waits { pg_sys::LockWaitPolicy::LockWaitBlock } else { pg_sys::LockWaitPolicy::LockWaitSkip };
        let mut failure = pg_sys::TM_FailureData::default();
        let command = ffi::GetCurrentCommandId(false);
        lock(relation, place, pg_sys::GetActiveSnapshot(), slot, command, mode, policy, 0, &mut failure)
    }
}

/// Closes what [`Probe::opened`] gave. Runs inside `catch`.
pub fn finish(open: &Scan) {
    close(open);
    // SAFETY: it was pushed for this scan.
    unsafe { ffi::PopActiveSnapshot() }
}

/// Runs inside `catch`.
fn close(open: &Scan) {
    // SAFETY: closes what `open` opened, in reverse order.
    unsafe {
        ffi::index_endscan(open.scan);
        ffi::ExecDropSingleTupleTableSlot(open.slot);
        ffi::index_close(open.index, pg_sys::NoLock as i32);
        ffi::relation_close(open.relation, pg_sys::NoLock as i32);
    }
}
