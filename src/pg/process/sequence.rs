//! Sequences as registers that are durable outside of transactions. Their page is read directly (commands/sequence.c has
//! no cheaper way to the value without taking one).
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};

/// Hands out the next value.
pub fn next(sequence: Oid) -> Result<i64> {
    // SAFETY: the oid is a sequence of the extension's; rights are the owner's.
    catch(|| unsafe { ffi::nextval_internal(sequence, false) })
}

/// The last value handed out (start - 1 where there was none), and the position in the WAL that makes it durable.
pub fn last(sequence: Oid) -> Result<(i64, pg_sys::XLogRecPtr)> {
    catch(|| {
        // SAFETY: a sequence has one page with one tuple: last_value, log_cnt, is_called (FormData_pg_sequence_data). The
        // page is read under its share lock, as seq_redo and nextval write it under the exclusive one.
        unsafe {
            let relation = ffi::relation_open(sequence, pg_sys::AccessShareLock as i32);
            let buffer = ffi::ReadBuffer(relation, 0);
            ffi::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let page_header = page.cast::<pg_sys::PageHeaderData>();
            // PageGetItemId and PageGetItem of storage/bufpage.h, for the first item.
            let item = (&raw const (*page_header).pd_linp).cast::<pg_sys::ItemIdData>();
            let header = page.cast::<u8>().add((*item).lp_off() as usize).cast::<pg_sys::HeapTupleHeaderData>();
            let data = header.cast::<u8>().add(usize::from((*header).t_hoff));
            let value = data.cast::<i64>().read_unaligned();
            let is_called = *data.add(16) != 0;
            let lsn = (*page_header).pd_lsn;
            ffi::UnlockReleaseBuffer(buffer);
            // The lock is kept until the end of the transaction: whoever asks again does without the shared lock table.
            ffi::relation_close(relation, pg_sys::NoLock as i32);
            let value = if is_called { value } else { value - 1 };
            (value, (u64::from(lsn.xlogid) << 32) | u64::from(lsn.xrecoff))
        }
    })
}

/// Sets the value (as setval) and makes it durable before it returns.
pub fn set_durably(sequence: Oid, value: i64) -> Result<()> {
    catch(|| {
        // SAFETY: setval(regclass, bigint).
        unsafe {
            ffi::DirectFunctionCall2Coll(
                Some(ffi::setval_oid),
                pg_sys::InvalidOid,
                pg_sys::Datum::from(sequence),
                pg_sys::Datum::from(value),
            )
        }
    })?;
    let (_, lsn) = last(sequence)?;
    flush(lsn)
}

/// Waits until the WAL is on disk up to `lsn`.
pub fn flush(lsn: pg_sys::XLogRecPtr) -> Result<()> {
    // SAFETY: an lsn read from a page of this server.
    catch(|| unsafe { ffi::XLogFlush(lsn) })
}
