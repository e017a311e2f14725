//! PostgreSQL's invalidation messages: by them a session learns, at the commit, what others changed in what it has derived from tables of ours
//! and from catalogs.
use super::error::entry::logging;
use super::error::failure::{Result, catch};
use super::ffi;
use pgrx::pg_sys::{self, Datum, Oid, SysCacheIdentifier};

/// What a session derives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Roles,
    Memberships,
    Functions,
}

/// Calls that for each message about a relation (InvalidOid: any of them may have changed), for the life of the process. It must not raise, and
/// not look anything up.
pub fn on_relation(callback: fn(Oid)) {
    // SAFETY: the callback is a function of the library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::from(callback as usize)) }
}

/// The same for each message about a catalog.
pub fn on(of: Of, callback: fn()) {
    let cache = match of {
        Of::Roles => SysCacheIdentifier::AUTHOID,
        Of::Memberships => SysCacheIdentifier::AUTHMEMROLEMEM,
        Of::Functions => SysCacheIdentifier::PROCOID,
    };
    // SAFETY: as above.
    unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(cache_changed), Datum::from(callback as usize)) }
}

extern "C-unwind" fn relation_changed(callback: Datum, relation: Oid) {
    // SAFETY: `on_relation` passes nothing else.
    let callback = unsafe { std::mem::transmute::<usize, fn(Oid)>(callback.value()) };
    logging("a change of a relation", || {
        callback(relation);
        Ok(())
    });
}

extern "C-unwind" fn cache_changed(callback: Datum, _: i32, _: u32) {
    // SAFETY: `on` passes nothing else.
    let callback = unsafe { std::mem::transmute::<usize, fn()>(callback.value()) };
    logging("a change of a catalog", || {
        callback();
        Ok(())
    });
}

/// Tells every session at the commit that a relation changed, by a statement of ours which is over; this one at once, and again when the (sub)transaction is
/// undone: it may have derived something from it by then.
pub fn announce(relation: Oid) -> Result<()> {
    announce_with_command(relation)?;
    // SAFETY: the counter is PostgreSQL's to be counted up. Only what was announced by a command that is over is announced again.
    catch(|| unsafe {
        ffi::GetCurrentCommandId(true);
        ffi::CommandCounterIncrement();
    })
}

/// The same by a statement that is still at work: this session learns of it with the end of that.
pub fn announce_with_command(relation: Oid) -> Result<()> {
    // SAFETY: raises where the relation does not exist.
    catch(|| unsafe { ffi::CacheInvalidateRelcacheByRelid(relation) })
}

/// Takes in what other sessions changed: partitions, grants, roles.
pub fn take_in() -> Result<()> {
    // SAFETY: processes pending messages; locks nothing.
    catch(|| unsafe { ffi::AcceptInvalidationMessages() })
}
