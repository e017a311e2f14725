//! How our own statements run: with the rights that they need, with nothing but pg_catalog on the search path, under switches of their own, and
//! with plans that use the indexes whatever statistics say. SPI is reached in no other way.
use crate::pg::compat::SearchPath;
use crate::pg::error::failure::{Failure, Result, catch, speak_of_callers};
use crate::pg::{ffi, guard, pinned};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    /// Whose rights were on when the owner's came.
    static CALLER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// The role whose call our statements are at work for; outside of them the current one.
pub fn caller() -> pg_sys::Oid {
    // SAFETY: reads a variable of this backend.
    CALLER.get().unwrap_or_else(|| unsafe { pg_sys::GetUserId() })
}

/// Whether our statements are at work.
pub fn is_at_work() -> bool {
    CALLER.get().is_some()
}

/// The caller that was before, also when a panic passes.
struct Caller(Option<pg_sys::Oid>);

impl Drop for Caller {
    fn drop(&mut self) {
        CALLER.set(self.0);
    }
}

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

/// What the planner may use. The switches, as those below, are PostgreSQL's plain variables, which cost nothing to write; put back also when
/// a panic passes.
struct Means([bool; 5]);

impl Means {
    fn set(planning: Planning) -> Self {
        let by_cost = planning == Planning::ByCost;
        // Sequential and bitmap scans, just-in-time compilation; index scans with and without the table.
        Self(Self::exchange([by_cost, by_cost, false, true, true]))
    }

    /// Puts these in force; those that were.
    fn exchange([a, b, c, d, e]: [bool; 5]) -> [bool; 5] {
        // SAFETY: plain variables of this backend, read by the planner.
        unsafe {
            [
                (&raw mut pg_sys::enable_seqscan).replace(a),
                (&raw mut pg_sys::enable_bitmapscan).replace(b),
                (&raw mut pg_sys::jit_enabled).replace(c),
                (&raw mut pg_sys::enable_indexscan).replace(d),
                (&raw mut pg_sys::enable_indexonlyscan).replace(e),
            ]
        }
    }
}

impl Drop for Means {
    fn drop(&mut self) {
        Self::exchange(self.0);
    }
}

/// The switches that our statements are read and run under, whatever the session has set.
struct Switches {
    reader: [bool; 4],
    numbers: [c_int; 7],
}

impl Switches {
    fn set() -> Self {
        Self {
            // standard_conforming_strings, quote_all_identifiers, transform_null_equals, array_nulls.
            reader: [true, false, false, true],
            numbers: [
                pg_sys::BackslashQuoteType::BACKSLASH_QUOTE_SAFE_ENCODING as c_int,
                pg_sys::PlanCacheMode::PLAN_CACHE_MODE_AUTO as c_int,
                1,
                ffi::BYTEA_OUTPUT_HEX,
                pg_sys::INTSTYLE_POSTGRES as c_int,
                pg_sys::USE_ISO_DATES as c_int,
                pg_sys::DATEORDER_MDY as c_int,
            ],
        }
        .exchanged()
    }

    /// Puts these in force; those that were.
    fn exchanged(self) -> Self {
        let ([f, g, h, i], [j, k, l, m, n, o, p]) = (self.reader, self.numbers);
        std::mem::forget(self);
        // SAFETY: plain variables of this backend, read by the parser, the plan cache, and input and output functions.
        unsafe {
            Self {
                reader: [
                    (&raw mut pg_sys::standard_conforming_strings).replace(f),
                    (&raw mut pg_sys::quote_all_identifiers).replace(g),
                    (&raw mut pg_sys::Transform_null_equals).replace(h),
                    (&raw mut pg_sys::Array_nulls).replace(i),
                ],
                numbers: [
                    (&raw mut pg_sys::backslash_quote).replace(j),
                    (&raw mut pg_sys::plan_cache_mode).replace(k),
                    (&raw mut pg_sys::extra_float_digits).replace(l),
                    (&raw mut ffi::bytea_output).replace(m),
                    (&raw mut pg_sys::IntervalStyle).replace(n),
                    (&raw mut pg_sys::DateStyle).replace(o),
                    (&raw mut pg_sys::DateOrder).replace(p),
                ],
            }
        }
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        let before = Self { reader: self.reader, numbers: self.numbers };
        std::mem::forget(before.exchanged());
    }
}

/// Runs `work` with the rights of that role, which is the owner of the log. After PostgreSQL's own error the rights, the search path and SPI are left to the
/// abort of the (sub)transaction, which puts them back.
pub fn as_role<T>(owner: pg_sys::Oid, planning: Planning, work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
    let _own = pinned::suspend();
    let _means = Means::set(planning);
    let _switches = Switches::set();
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
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
    let result = {
        let (_own, _callers) = (guard::own_work(), speak_of_callers());
        let _caller = Caller(CALLER.replace(Some(CALLER.get().unwrap_or(user))));
        work(&Db { _private: () })
    };
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

/// Plans by the indexes in `work`, whoever's statements these are. What text and values look like stays the session's: the planner computes
/// constants, and calls users' functions for them.
pub fn by_index<T>(work: impl FnOnce() -> T) -> T {
    let _means = Means::set(Planning::ByIndex);
    work()
}

/// Runs `work` with SPI connected and the caller's rights, and nothing but pg_catalog on the search path: for what the caller may do anyway, said in
/// statements of ours. After PostgreSQL's own error, as in [`as_owner`].
pub fn as_caller<T>(work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
    let path = catch(|| {
        // SAFETY: connects SPI for the statements of `work`.
        unsafe {
            ffi::SPI_connect();
            SearchPath::push()
        }
    })?;
    let result = work(&Db { _private: () });
    if matches!(result, Err(Failure::Postgres(_))) {
        return result;
    }
    catch(|| {
        // SAFETY: undoes the above in reverse order.
        unsafe {
            path.pop();
            ffi::SPI_finish();
        }
    })?;
    result
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

/// Runs `work`, and puts back what it has set of the session's settings, the role and the current tenant among them. After a failure that is left to the abort of the subtransaction.
pub fn with_settings_put_back<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a nesting level of settings, popped below or by the abort.
    let level = catch(|| unsafe { ffi::NewGUCNestLevel() })?;
    let made = work()?;
    // SAFETY: as above.
    catch(|| unsafe { ffi::AtEOXact_GUC(false, level) })?;
    Ok(made)
}

/// Runs `work` with the rights of that role, which whoever calls may take on, as what he runs would have them; it cannot take on another. After PostgreSQL's own error, as in
/// [`as_owner`].
pub fn on_behalf_of<T>(role: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: plain variables of this backend, put back below or by the abort of the (sub)transaction.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
    }
    let result = work();
    if !matches!(result, Err(Failure::Postgres(_))) {
        // SAFETY: as above.
        unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    }
    result
}
