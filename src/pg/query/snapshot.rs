//! A snapshot of now, for code that goes by the active one: STABLE functions of users, called behind locks that the statement waited for.
use super::plan::latest_snapshot;
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;

/// Runs `work` under it, also in REPEATABLE READ: it sees what was committed by now, and what this transaction has done. After PostgreSQL's own error it is left to the
/// abort of the (sub)transaction.
pub fn of_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: pushed at once, and popped below.
    catch(|| unsafe { ffi::PushActiveSnapshot(latest_snapshot()) })?;
    let result = work();
    if !matches!(result, Err(Failure::Postgres(_))) {
        // SAFETY: pushed above; what `work` pushes it pops.
        catch(|| unsafe { ffi::PopActiveSnapshot() })?;
    }
    result
}
