//! Rows straight into a table of ours and its indexes, as logical replication inserts them (ExecSimpleRelationInsert of
//! executor/execReplication.c): no plan to start and end for each row. For tables without defaults, insert triggers, rules
//! and check constraints only; the caller vouches for NOT NULL and for the partition's bounds.
use crate::pg::compat;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use crate::pg::process::session::Db;
use crate::pg::value::datum::Nullable;
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

/// A table that is open for inserting.
pub struct Inserter {
    relation: pg_sys::Relation,
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    columns: usize,
}

impl Inserter {
    pub fn open(_: &Db, table: Oid) -> Result<Self> {
        let opened = catch(|| {
            // SAFETY: the steps of apply_handle_insert and ExecSimpleRelationInsert; everything lives in the current memory
            // context and resource owner, so an abort closes what an error leaves open.
            unsafe {
                let relation = ffi::relation_open(table, pg_sys::RowExclusiveLock as i32);
                let state = ffi::CreateExecutorState();
                let target = ffi::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
                (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
                ffi::InitResultRelInfo(target, relation, 1, std::ptr::null_mut(), 0);
                ffi::ExecOpenIndices(target, false);
                let desc = (*relation).rd_att;
                let slot = ffi::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsVirtual);
                Self { relation, state, target, slot, columns: (*desc).natts as usize }
            }
        })?;
        opened.refuse_deferred()?;
        Ok(opened)
    }

    /// A constraint that is looked at later, which only a superuser can have put here, needs triggers that are not fired: it would not hold.
    fn refuse_deferred(&self) -> Result<()> {
        // SAFETY: the indexes are open, so many as it says; names are zero-terminated.
        let found = unsafe {
            let target = &*self.target;
            let indexes = (0..target.ri_NumIndices as usize).map(|place| *target.ri_IndexRelationDescs.add(place));
            let mut deferred = indexes.filter(|&index| !index.is_null() && !(*(*index).rd_index).indimmediate);
            deferred.next().map(|index| {
                let name = CStr::from_ptr((*(*index).rd_rel).relname.data.as_ptr()).to_string_lossy().into_owned();
                (name, CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()).to_string_lossy().into_owned())
            })
        };
        let Some((name, table)) = found else { return Ok(()) };
        Err(Error::FeatureNotSupported {
            what: format!("an append while there is the deferrable constraint {name} of _eventstream.{table}: what an append inserts is not looked at later"),
            hint: Some("A superuser may drop the constraint, with eventstream.allow_drop = on.".into()),
        }
        .into())
    }

    /// Inserts one row: a value for each column of the table, in its order.
    pub fn put(&mut self, row: &[Nullable]) -> Result<()> {
        if row.len() != self.columns {
            let what = format!("a row of {} columns for a table of {}", row.len(), self.columns);
            return Err(Error::Internal { what }.into());
        }
        let (relation, state, target, slot) = (self.relation, self.state, self.target, self.slot);
        catch(|| {
            // SAFETY: the slot has as many places as the table has columns; its datums outlive the insert, which copies them.
            unsafe {
                if let Some(clear) = (*(*slot).tts_ops).clear {
                    clear(slot);
                }
                for (place, value) in row.iter().enumerate() {
                    *(*slot).tts_values.add(place) = value.unwrap_or(Datum::null());
                    *(*slot).tts_isnull.add(place) = value.is_none();
                }
                ffi::ExecStoreVirtualTuple(slot);
                ffi::simple_table_tuple_insert(relation, slot);
                compat::insert_index_tuples(target, slot, state);
                if !(*state).es_per_tuple_exprcontext.is_null() {
                    ffi::MemoryContextReset((*(*state).es_per_tuple_exprcontext).ecxt_per_tuple_memory);
                }
            }
        })
    }

    /// Closes the table and makes the rows visible to later statements of the transaction.
    pub fn close(self) -> Result<()> {
        let Self { relation, state, target, slot, .. } = self;
        catch(|| {
            // SAFETY: closes what `open` opened, keeping the lock until the end of the transaction.
            unsafe {
                compat::close_indices(target);
                ffi::ExecDropSingleTupleTableSlot(slot);
                ffi::FreeExecutorState(state);
                ffi::relation_close(relation, pg_sys::NoLock as i32);
                ffi::CommandCounterIncrement();
            }
        })
    }
}
