//! What happens at the end of a transaction that has appended: its commit is durable whatever the session says
//! (invariant 3), its PREPARE TRANSACTION is refused, the slot is cleared and workers are woken once the end is visible to others, and what was
//! noted for a rolled back (sub)transaction is forgotten. Callbacks for commit and abort never raise.
use crate::pg::error::failure::raise;
use crate::pg::ffi;
use crate::shared::{board, open_appends, settings};
use eventstream_core::error::Error;
use pgrx::pg_sys::{self, SubXactEvent, SyncCommitLevel, XactEvent};
use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// How a (sub)transaction that may have appended ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    RolledBack,
    /// A subtransaction, by its id, with all that began after it.
    SubtransactionRolledBack(u32),
}

type OnEnd = fn(End);

thread_local! {
    static APPENDED: Cell<bool> = const { Cell::new(false) };
    static GATED: Cell<bool> = const { Cell::new(false) };
    /// The tenant whose gate was entered last, and the subtransaction that did, whose rollback leaves it.
    static ENTERED: Cell<Option<(i64, u32)>> = const { Cell::new(None) };
    static SESSION_LEVEL: Cell<Option<c_int>> = const { Cell::new(None) };
    static ON_END: Cell<Option<OnEnd>> = const { Cell::new(None) };
}

/// Registers for the ends of all transactions; once a backend, from _PG_init.
pub fn init() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_sub_end), std::ptr::null_mut());
    }
}

/// Whether this transaction has appended.
pub fn has_appended() -> bool {
    APPENDED.get()
}

/// This transaction appends. To be called before it takes a position.
pub fn note_append() {
    APPENDED.set(true);
}

/// This transaction holds a tenant's gate.
pub fn note_gate() {
    GATED.set(true);
}

/// This subtransaction has entered that tenant's gate.
pub fn note_entered(tenant_id: i64) {
    note_gate();
    ENTERED.set(Some((tenant_id, current_subtransaction())));
}

/// Whether this transaction is known to be within that tenant's gate.
pub fn has_entered(tenant_id: i64) -> bool {
    ENTERED.get().is_some_and(|(entered, _)| entered == tenant_id)
}

/// Calls that at the end of this transaction, and of its subtransactions that are rolled back.
pub fn call_at_end(on_end: OnEnd) {
    ON_END.set(Some(on_end));
}

/// The id of the current subtransaction; ids only grow within a transaction.
pub fn current_subtransaction() -> u32 {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

extern "C-unwind" fn at_end(event: XactEvent::Type, _: *mut c_void) {
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT if APPENDED.get() => raise_durability(),
        XactEvent::XACT_EVENT_PRE_PREPARE if APPENDED.get() || GATED.get() => refuse_prepare(),
        XactEvent::XACT_EVENT_COMMIT => finish(End::Committed),
        XactEvent::XACT_EVENT_ABORT => finish(End::RolledBack),
        // What was to be done at the commit is not the session's next transaction's: utility.rs sees to it at COMMIT PREPARED.
        XactEvent::XACT_EVENT_PREPARE => board::at_end(false, false),
        _ => {}
    }
}

extern "C-unwind" fn at_sub_end(event: SubXactEvent::Type, this: u32, _: u32, _: *mut c_void) {
    if event != SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        return;
    }
    if ENTERED.get().is_some_and(|(_, entered_in)| entered_in >= this) {
        ENTERED.set(None);
    }
    if let Some(on_end) = ON_END.get() {
        on_end(End::SubtransactionRolledBack(this));
    }
}

fn finish(end: End) {
    if let Some(on_end) = ON_END.take() {
        on_end(end);
    }
    if let Some(level) = SESSION_LEVEL.take() {
        // The session's own value again; a SET LOCAL ends right after, in AtEOXact_GUC.
        set_level(level);
    }
    open_appends::release();
    GATED.set(false);
    ENTERED.set(None);
    board::at_end(end == End::Committed, APPENDED.replace(false));
}

/// Waits for the flush here and, where synchronous_standby_names is set, there: ForceSyncCommit alone flushes locally
/// only, because SyncRepWaitForLSN looks at the session's synchronous_commit. No user code runs after pre-commit.
fn raise_durability() {
    if !settings::is_durability_strict() {
        return;
    }
    let strict = SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH as c_int;
    // SAFETY: a plain variable of this backend.
    let level = unsafe { pg_sys::synchronous_commit };
    if level < strict {
        SESSION_LEVEL.set(Some(level));
        set_level(strict);
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

/// The slot could not follow it, and nobody knows how long it would keep the gate.
fn refuse_prepare() {
    let (what, hint) = if APPENDED.get() {
        (
            "PREPARE TRANSACTION after an append is not supported",
            "Commit the append in a transaction of its own, with an event_id so that a retry is safe.",
        )
    } else {
        (
            "PREPARE TRANSACTION is not supported after es_load(for_update => true), a retried append, or a change of an inline projection",
            "Do that in a transaction of its own, and COMMIT it: until then the appends of the tenant, or who must wait for them, would wait.",
        )
    };
    raise(Error::FeatureNotSupported { what: what.into(), hint: Some(hint.into()) }.into())
}
