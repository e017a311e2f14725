//! A subtransaction around work that may fail without ending the caller's: whatever it did is undone, and the caller goes on
//! (as PL/pgSQL's BEGIN … EXCEPTION does). To be called outside of [`super::session::as_owner`]; the work may call it.
use crate::pg::error::failure::{Caught, Failure, Result, catch, keeping_errors};
use crate::pg::ffi;
use pgrx::pg_sys;

/// Runs `work` in a subtransaction: what it made, or what it failed with, after all that it did was undone. A failure that means
/// the whole transaction passes: a cancel or a shutdown (class 57), a deadlock or serialization failure (class 40).
///
/// Not in a parallel plan's leader, where PostgreSQL before 17 refuses subtransactions: [`is_possible`] tells.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    attempt_but(|_| false, work)
}

/// As [`attempt`], but takes back only what is an event's own fault: what every event would meet (no memory, a lock that was not to be had, a missing
/// table, a session that cannot run folds) passes as it was raised, with its SQLSTATE and HINT.
pub fn attempt_event<T>(work: impl FnOnce() -> Result<T>) -> Result<std::result::Result<T, Caught>> {
    attempt_but(|failure| !failure.is_of_event(), work)
}

fn ends_transaction(failure: &Failure) -> bool {
    match failure {
        Failure::Postgres(error) => matches!(&error.sqlstate()[..2], "40" | "57"),
        Failure::Rule(error) => error.sqlstate().starts_with("40"),
    }
}

/// As [`attempt`], but what `passes` as well is raised as it was.
pub fn attempt_but<T>(
    passes: impl FnOnce(&Failure) -> bool,
    work: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, Caught>> {
    caught(passes, work, |failure| failure.withheld().map(Failure::into_caught))
}

/// As [`attempt_but`], for whoever tells it to who has called: also the words of what is hushed.
pub fn attempt_told<T>(
    passes: impl FnOnce(&Failure) -> bool,
    work: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, Caught>> {
    caught(passes, work, |failure| Ok(failure.into_caught()))
}

fn caught<T>(
    passes: impl FnOnce(&Failure) -> bool,
    work: impl FnOnce() -> Result<T>,
    words: impl FnOnce(Failure) -> Result<Caught>,
) -> Result<std::result::Result<T, Caught>> {
    match inside(true, work)? {
        Ok(made) => Ok(Ok(made)),
        Err(failure) if ends_transaction(&failure) || passes(&failure) => Err(failure),
        Err(failure) => words(failure).map(Err),
    }
}

/// Runs `work` in a subtransaction that is rolled back whatever comes of it: nothing that it does stays. What it makes lives in the caller's memory. May also be called
/// before a commit.
pub fn undone<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    inside(false, work)?
}

/// Runs `work` in a subtransaction, which is rolled back where it fails, and where it does not stay.
fn inside<T>(stays: bool, work: impl FnOnce() -> Result<T>) -> Result<Result<T>> {
    // SAFETY: plain variables of this backend, and of the transaction that goes on below the subtransaction.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let back = || {
        // SAFETY: both were current before, and outlive the subtransaction.
        unsafe {
            pg_sys::CurrentMemoryContext = memory;
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    keeping_errors(|| {
        catch(|| {
            // SAFETY: as pl_exec.c does. The work's memory is the caller's, so what it makes outlives the subtransaction.
            unsafe {
                ffi::BeginInternalSubTransaction(std::ptr::null());
                pg_sys::CurrentMemoryContext = memory;
            }
        })?;
        let mut outcome = work();
        if stays && let Ok(made) = outcome {
            // SAFETY: ends what was begun above: `work` leaves no subtransaction of its own.
            match catch(|| unsafe { ffi::ReleaseCurrentSubTransaction() }) {
                Ok(()) => {
                    back();
                    return Ok(Ok(made));
                }
                Err(failure) => outcome = Err(failure),
            }
        }
        // SAFETY: as above; rights, settings, search path, SPI and open scans are put back by the abort.
        catch(|| unsafe { ffi::RollbackAndReleaseCurrentSubTransaction() })?;
        back();
        Ok(outcome)
    })
}

/// Whether a subtransaction can be begun now.
pub fn is_possible() -> bool {
    // SAFETY: reads the transaction state.
    !unsafe { pg_sys::IsInParallelMode() }
}
