//! Statements that are prepared once a backend and kept. Results come back as rows, go to a callback one by one, or flow
//! straight into the tuplestore that a set-returning function returns.
use super::row::Row;
use super::store::Store;
use crate::pg::error::entry::raising;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use crate::pg::process::session::Db;
use crate::pg::value::datum::Nullable;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_int};
use std::ops::ControlFlow;
use std::ptr;

/// What a statement sees, and whether it may write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Read as of the caller's snapshot: for STABLE functions.
    Caller,
    /// Read as of now, also in REPEATABLE READ: what committed after the caller's snapshot is seen.
    Latest,
    /// As [`View::Latest`]; a probe sees row by row what is committed by then, and SERIALIZABLE notes no dependency on it: for what locks of
    /// our own, or the caller's comparison, keep in order. A probe's alone.
    Now,
    /// Write, seeing what is committed by now.
    Write,
    /// As [`View::Write`]; but where the transaction keeps its snapshot, as of that: a row that was changed since is a serialization failure.
    Lock,
}

/// A statement and its plan, which PostgreSQL keeps as long as this lives.
pub struct Plan {
    sql: std::borrow::Cow<'static, str>,
    types: &'static [Oid],
    prepared: Prepared,
}

/// What PostgreSQL has prepared, or NULL.
struct Prepared {
    plan: Cell<pg_sys::SPIPlanPtr>,
    /// Whether it outlives the SPI connection it is made in.
    is_kept: bool,
}

thread_local! {
    /// Kept plans that nobody has any more.
    static LEFT: RefCell<Vec<pg_sys::SPIPlanPtr>> = const { RefCell::new(Vec::new()) };
}

impl Prepared {
    const fn none(is_kept: bool) -> Self {
        Self { plan: Cell::new(ptr::null_mut()), is_kept }
    }
}

impl Drop for Prepared {
    /// Calls nothing of PostgreSQL's: an error or a panic may be on its way, or the process at its end.
    fn drop(&mut self) {
        let plan = self.plan.get();
        if self.is_kept && !plan.is_null() {
            // At the end of the process the list may be gone, and all memory with it.
            _ = LEFT.try_with(|left| left.borrow_mut().push(plan));
        }
    }
}

/// Gives the memory of the plans that nobody has any more back to PostgreSQL.
fn free_those_left() -> Result<()> {
    for plan in LEFT.take() {
        // SAFETY: SPI_keepplan made it ours, and nobody runs it: whoever does borrows what it was dropped with.
        catch(|| unsafe { ffi::SPI_freeplan(plan) })?;
    }
    Ok(())
}

impl Plan {
    pub const fn new(sql: &'static str, types: &'static [Oid]) -> Self {
        Self { sql: std::borrow::Cow::Borrowed(sql), types, prepared: Prepared::none(true) }
    }

    pub const fn made(sql: String, types: &'static [Oid]) -> Self {
        Self { sql: std::borrow::Cow::Owned(sql), types, prepared: Prepared::none(true) }
    }

    /// A plan that ends with the SPI connection: use it within one `as_owner`, and drop it there.
    pub const fn passing(sql: String, types: &'static [Oid]) -> Self {
        Self { sql: std::borrow::Cow::Owned(sql), types, prepared: Prepared::none(false) }
    }

    fn prepared(&self) -> Result<pg_sys::SPIPlanPtr> {
        let Prepared { plan: prepared, is_kept } = &self.prepared;
        if prepared.get().is_null() {
            free_those_left()?;
            let sql = CString::new(self.sql.as_bytes())
                .map_err(|_| Error::Internal { what: "a statement holds a zero byte".into() })?;
            let (sql, types, is_kept) = (sql.as_ptr(), self.types, *is_kept);
            let plan = catch(|| {
                // SAFETY: SPI is connected (the caller holds a Db); SPI copies the types.
                unsafe {
                    let options = pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int;
                    let plan = ffi::SPI_prepare_cursor(sql, types.len() as c_int, types.as_ptr().cast_mut(), options);
                    if !plan.is_null() && is_kept {
                        ffi::SPI_keepplan(plan);
                    }
                    plan
                }
            })?;
            if plan.is_null() {
                return Err(Error::Internal { what: format!("cannot prepare: {}", self.sql) }.into());
            }
            prepared.set(plan);
        }
        Ok(prepared.get())
    }

    /// One value for each parameter: PostgreSQL reads as many as the plan has.
    fn expect(&self, args: &[Nullable]) -> Result<()> {
        if args.len() != self.types.len() {
            let (given, wanted) = (args.len(), self.types.len());
            return Err(
                Error::Internal { what: format!("{given} values for {wanted} parameters of: {}", self.sql) }.into()
            );
        }
        Ok(())
    }

    fn check(&self, outcome: c_int) -> Result<u64> {
        if outcome < 0 {
            return Err(Error::Internal { what: format!("SPI says {outcome} to: {}", self.sql) }.into());
        }
        // SAFETY: SPI's own result variable, valid after a statement.
        Ok(unsafe { pg_sys::SPI_processed })
    }

    /// Runs the statement, at most `limit` rows (0 = all), and gives each row to `each`.
    pub fn rows<T>(
        &self,
        _: &Db,
        view: View,
        limit: i64,
        args: &[Nullable],
        mut each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.expect(args)?;
        let plan = self.prepared()?;
        let mut values: Vec<Datum> = args.iter().map(|arg| arg.unwrap_or(Datum::null())).collect();
        let nulls: Vec<c_char> = args.iter().map(|arg| if arg.is_some() { b' ' } else { b'n' } as c_char).collect();
        let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
        let read_only = !matches!(view, View::Write | View::Lock);
        let is_callers = view == View::Caller || view == View::Lock && crate::pg::process::server::keeps_its_snapshot();
        let outcome = catch(|| {
            // SAFETY: one value and one null flag for each parameter of the plan.
            unsafe {
                let snapshot = if is_callers { pg_sys::GetActiveSnapshot() } else { latest_snapshot() };
                ffi::SPI_execute_snapshot(plan, values, nulls, snapshot, ptr::null_mut(), read_only, true, limit)
            }
        })?;
        self.check(outcome)?;
        // SAFETY: SPI's result; the table is NULL for statements that return no rows, and is freed after its last use.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return Ok(Vec::new());
            }
            let desc = (*table).tupdesc;
            let columns = (*desc).natts as usize;
            let mut values = vec![Datum::null(); columns];
            let mut nulls = vec![true; columns];
            let mut results = Vec::with_capacity((*table).numvals as usize);
            for place in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(place);
                pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
                results.push(each(&Row::of_tuple(&values, &nulls, desc))?);
            }
            ffi::SPI_freetuptable(table);
            Ok(results)
        }
    }

    /// The first row, if any.
    pub fn first<T>(
        &self,
        db: &Db,
        view: View,
        args: &[Nullable],
        each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.rows(db, view, 1, args, each)?.pop())
    }

    /// Runs a statement that returns nothing; how many rows it wrote.
    pub fn write(&self, db: &Db, args: &[Nullable]) -> Result<u64> {
        self.write_as(db, View::Write, args)
    }

    /// The same, of rows as `view` sees them.
    pub fn write_as(&self, db: &Db, view: View, args: &[Nullable]) -> Result<u64> {
        self.rows(db, view, 0, args, |_| Ok(()))?;
        // SAFETY: SPI's own result variable.
        Ok(unsafe { pg_sys::SPI_processed })
    }

    fn send(&self, view: View, args: &[Nullable], receiver: *mut pg_sys::DestReceiver) -> Result<u64> {
        self.expect(args)?;
        let plan = self.prepared()?;
        let types = self.types;
        let outcome = catch(|| {
            // SAFETY: the parameter list is filled for every parameter; the receiver outlives the call.
            unsafe {
                let params = ffi::makeParamList(types.len() as c_int);
                for (place, arg) in args.iter().enumerate() {
                    *(*params).params.as_mut_ptr().add(place) = pg_sys::ParamExternData {
                        value: arg.unwrap_or(Datum::null()),
                        isnull: arg.is_none(),
                        pflags: pg_sys::PARAM_FLAG_CONST as u16,
                        ptype: types[place],
                    };
                }
                let options = pg_sys::SPIExecuteOptions {
                    params,
                    read_only: true,
                    must_return_tuples: true,
                    dest: receiver,
                    ..Default::default()
                };
                let latest = view == View::Latest;
                if latest {
                    ffi::PushActiveSnapshot(latest_snapshot());
                }
                let outcome = ffi::SPI_execute_plan_extended(plan, &options);
                if latest {
                    ffi::PopActiveSnapshot();
                }
                outcome
            }
        })?;
        self.check(outcome)
    }

    /// Runs a reading statement whose rows flow into `store`; how many there were.
    pub fn fill(&self, _: &Db, view: View, args: &[Nullable], store: &Store) -> Result<u64> {
        self.send(view, args, store.receiver()?)
    }

    /// Runs a reading statement and gives each row to `each` as it comes: memory stays flat however many there are.
    pub fn for_each(
        &self,
        db: &Db,
        view: View,
        args: &[Nullable],
        each: &mut dyn FnMut(&Row) -> Result<()>,
    ) -> Result<u64> {
        self.for_each_until(db, view, args, &mut |row| each(row).map(ControlFlow::Continue))
    }

    /// The same until `each` breaks.
    pub fn for_each_until(
        &self,
        _: &Db,
        view: View,
        args: &[Nullable],
        each: &mut dyn FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        let mut receiver = RowReceiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive_row),
                rStartup: Some(ignore_startup),
                rShutdown: Some(ignore),
                rDestroy: Some(ignore),
                mydest: pg_sys::CommandDest::DestNone,
            },
            each,
            failure: None,
        };
        let sent = self.send(view, args, (&raw mut receiver).cast());
        match receiver.failure {
            Some(failure) => Err(failure),
            None => sent,
        }
    }
}

/// Whether no transaction that could have written has ended since the snapshot was taken that the caller's statement runs under: no newer one shows more.
pub fn shows_what_is_committed() -> Result<bool> {
    catch(|| {
        // SAFETY: a snapshot is active while a function is called; neither is kept.
        unsafe {
            let (own, now) = (&*pg_sys::GetActiveSnapshot(), &*latest_snapshot());
            own.xmin == now.xmin && own.xmax == now.xmax && own.xcnt == now.xcnt
        }
    })
}

/// A snapshot of now. GetLatestSnapshot is refused in parallel mode, also in the leader; a catalog snapshot is as new (for pg_trigger, of whose changes
/// neither a syscache nor RelationInvalidatesSnapshotsOnly tells, PostgreSQL takes a fresh one).
///
/// # Safety
/// May raise: call it inside `catch`, and push the result at once.
pub unsafe fn latest_snapshot() -> pg_sys::Snapshot {
    // SAFETY: as the caller says.
    unsafe {
        if pg_sys::IsInParallelMode() {
            ffi::GetCatalogSnapshot(pg_sys::TriggerRelationId)
        } else {
            ffi::GetLatestSnapshot()
        }
    }
}

/// A DestReceiver (tcop/dest.h) that calls a closure for each row.
#[repr(C)]
struct RowReceiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row) -> Result<ControlFlow<()>>,
    failure: Option<Failure>,
}

unsafe extern "C-unwind" fn receive_row(slot: *mut pg_sys::TupleTableSlot, this: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the executor passes the receiver that for_each made, and a filled slot.
    let (this, columns) = unsafe { (&mut *this.cast::<RowReceiver>(), (*(*slot).tts_tupleDescriptor).natts) };
    let mut take = || {
        // SAFETY: as above.
        let row = unsafe {
            if i32::from((*slot).tts_nvalid) < columns {
                catch(|| ffi::slot_getsomeattrs_int(slot, columns))?;
            }
            Row::of_slot(slot, columns as usize)
        };
        (this.each)(&row)
    };
    raising("a row of a result", || match take() {
        Ok(flow) => Ok(flow.is_continue()),
        // Whoever sent the statement gives it on; the executor ends as if it had what it wants.
        Err(failure) => {
            this.failure = Some(failure);
            Ok(false)
        }
    })
}

unsafe extern "C-unwind" fn ignore_startup(_: *mut pg_sys::DestReceiver, _: c_int, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn ignore(_: *mut pg_sys::DestReceiver) {}
