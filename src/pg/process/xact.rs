//! The ends of transactions: who wants to know of them, and how far a commit waits.
use crate::pg::error::entry::{logging, raising};
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, SubXactEvent, SyncCommitLevel, XactEvent};
use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is about to commit, or to be prepared: no user code runs any more, and it may still be refused.
    BeforeCommit,
    BeforePrepare,
    /// It has, and others see it. From here on nothing may raise.
    Committed,
    Prepared,
    RolledBack,
    /// A subtransaction was rolled back, by its id, with all that began after it.
    SubtransactionRolledBack(u32),
}

static mut LISTENER: fn(Event) -> Result<()> = |_| Ok(());

/// Calls that for all transactions, and raises what it fails with where that may be; once a process, from _PG_init.
pub fn init(listener: fn(Event) -> Result<()>) {
    // SAFETY: single-threaded; the callbacks live as long as the library, which is never unloaded.
    unsafe {
        LISTENER = listener;
        pg_sys::RegisterXactCallback(Some(at_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_sub_event), std::ptr::null_mut());
    }
}

extern "C-unwind" fn at_event(event: XactEvent::Type, _: *mut c_void) {
    let event = match event {
        XactEvent::XACT_EVENT_PRE_COMMIT => Event::BeforeCommit,
        XactEvent::XACT_EVENT_PRE_PREPARE => Event::BeforePrepare,
        XactEvent::XACT_EVENT_COMMIT => Event::Committed,
        XactEvent::XACT_EVENT_PREPARE => Event::Prepared,
        XactEvent::XACT_EVENT_ABORT => Event::RolledBack,
        _ => return,
    };
    // SAFETY: written once, before.
    let tell = || unsafe { LISTENER(event) };
    match event {
        Event::BeforeCommit | Event::BeforePrepare => raising("before the end of a transaction", tell),
        _ => logging("after the end of a transaction", tell),
    }
}

extern "C-unwind" fn at_sub_event(event: SubXactEvent::Type, this: u32, _: u32, _: *mut c_void) {
    if event == SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        // SAFETY: written once, before.
        logging("after a rollback to a savepoint", || unsafe { LISTENER(Event::SubtransactionRolledBack(this)) });
    }
}

/// Runs work that is due before a commit under a snapshot of its own: there is none by then.
pub fn with_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the transaction is still in progress; a snapshot that stays behind goes with its abort.
    catch(|| unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) })?;
    let done = work()?;
    // SAFETY: the one that was pushed.
    catch(|| unsafe { pg_sys::PopActiveSnapshot() })?;
    Ok(done)
}

/// The id of the current subtransaction; ids only grow within a transaction.
pub fn current_subtransaction() -> u32 {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

thread_local! {
    static SESSION_LEVEL: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// Makes this commit wait for the flush here and, where synchronous_standby_names is set, there: ForceSyncCommit alone flushes locally
/// only, because SyncRepWaitForLSN looks at the session's synchronous_commit.
pub fn wait_for_flush() {
    let strict = SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH as c_int;
    // SAFETY: a plain variable of this backend.
    let level = unsafe { pg_sys::synchronous_commit };
    if level < strict {
        SESSION_LEVEL.set(Some(level));
        set_level(strict);
    }
}

/// The session's own level again, after the commit; a SET LOCAL ends right after, in AtEOXact_GUC.
pub fn wait_as_before() {
    if let Some(level) = SESSION_LEVEL.take() {
        set_level(level);
    }
}

/// RecordTransactionCommit reads the setting itself, SyncRepWaitForLSN the wait mode that its assign hook derives from it.
fn set_level(level: c_int) {
    // SAFETY: what SET synchronous_commit does, without its bookkeeping; the hook only assigns a variable.
    unsafe {
        pg_sys::synchronous_commit = level;
        ffi::assign_synchronous_commit(level, std::ptr::null_mut());
    }
}
