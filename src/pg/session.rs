//! Our own statements run as the owner of the log, with nothing but pg_catalog on the search path, and with plans that
//! use the indexes whatever statistics say. [`as_owner`] is the only way into SPI, and nobody else's code runs inside.
use super::catalog::Catalog;
use super::compat::SearchPath;
use super::failure::{Failure, Result, catch};
use super::{call, ffi};
use pgrx::pg_sys;

/// Proof that SPI is connected, and that the rights which are on are the owner's, or a registrant's for statements of its own.
pub struct Db {
    _private: (),
}

/// How statements inside are planned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Planning {
    /// By the indexes that were made for them: a kept plan must not freeze a sequential scan that a small table invited.
    ByIndex,
    /// As the server's costs say: for scans of whole partitions.
    ByCost,
}

/// The planner's switches as they were; put back also when a panic passes.
struct PlannerSwitches {
    seqscan: bool,
    bitmapscan: bool,
    jit: bool,
}

impl PlannerSwitches {
    fn set(planning: Planning) -> Self {
        // SAFETY: plain variables of this backend, read by the planner only.
        unsafe {
            let found = Self {
                seqscan: pg_sys::enable_seqscan,
                bitmapscan: pg_sys::enable_bitmapscan,
                jit: pg_sys::jit_enabled,
            };
            let by_cost = planning == Planning::ByCost;
            pg_sys::enable_seqscan = by_cost;
            pg_sys::enable_bitmapscan = by_cost;
            pg_sys::jit_enabled = false;
            found
        }
    }
}

impl Drop for PlannerSwitches {
    fn drop(&mut self) {
        // SAFETY: as in `set`.
        unsafe {
            pg_sys::enable_seqscan = self.seqscan;
            pg_sys::enable_bitmapscan = self.bitmapscan;
            pg_sys::jit_enabled = self.jit;
        }
    }
}

/// Runs `work` with the owner's rights. Refuses a fold or an upcaster that calls back. After PostgreSQL's own error the rights, the search path and SPI are left to the
/// abort of the (sub)transaction, which puts them back.
pub fn as_owner<T>(planning: Planning, work: impl FnOnce(&Db, &Catalog) -> Result<T>) -> Result<T> {
    call::refuse_in_user_code()?;
    let catalog = Catalog::current()?;
    let _switches = PlannerSwitches::set(planning);
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    let owner = catalog.owner;
    let path = catch(|| {
        // SAFETY: connects SPI and becomes the owner for the statements of `work` only.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            ffi::SPI_connect();
            let path = SearchPath::push();
            pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            path
        }
    })?;
    let result = work(&Db { _private: () }, &catalog);
    if matches!(result, Err(Failure::Postgres(_))) {
        return result;
    }
    catch(|| {
        // SAFETY: undoes the above in reverse order.
        unsafe {
            pg_sys::SetUserIdAndSecContext(user, context);
            path.pop();
            ffi::SPI_finish();
        }
    })?;
    result
}

/// Plans by the indexes in `work`, whoever's statements these are.
pub fn by_index<T>(work: impl FnOnce() -> T) -> T {
    let _switches = PlannerSwitches::set(Planning::ByIndex);
    work()
}

/// Runs `work` with SPI connected and the rights that are on: for statements that a registrant's rights must cover, inside
/// [`call::as_registrant`].
pub fn as_current<T>(work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
    catch(|| {
        // SAFETY: connects SPI for the statements of `work`.
        unsafe {
            ffi::SPI_connect();
        }
    })?;
    let result = work(&Db { _private: () });
    if matches!(result, Err(Failure::Postgres(_))) {
        return result;
    }
    catch(|| {
        // SAFETY: undoes the above.
        unsafe {
            ffi::SPI_finish();
        }
    })?;
    result
}
