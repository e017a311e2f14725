//! What happens at the end of a transaction that has appended: its commit is durable whatever the session says
//! (invariant 3), its PREPARE TRANSACTION is refused, the entry is cleared and workers are woken once the end is visible to others, and what was
//! noted for a rolled back (sub)transaction is forgotten. Nothing here raises after the commit.
use super::{alone, board, meant, open_appends, portions, settings, token};
use crate::pg::error::failure::{Failure, Result};
use crate::pg::process::test_point::test_point;
use crate::pg::process::xact::{self, Event};
use eventstream_core::error::Error;
use std::cell::Cell;

/// How a (sub)transaction that may have appended ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Committed,
    RolledBack,
    /// A subtransaction, by its id, with all that began after it.
    SubtransactionRolledBack(u32),
}

type OnEnd = fn(End);

/// What is due before a commit: it may still refuse it.
#[derive(Clone, Copy)]
pub struct Due {
    pub before_commit: fn() -> Result<()>,
    pub on_end: OnEnd,
}

thread_local! {
    static APPENDED: Cell<bool> = const { Cell::new(false) };
    static GATED: Cell<bool> = const { Cell::new(false) };
    /// The tenant whose gate was entered last, and the subtransaction that did, whose rollback leaves it.
    static ENTERED: Cell<Option<(i64, u32)>> = const { Cell::new(None) };
    static ON_END: Cell<Option<OnEnd>> = const { Cell::new(None) };
    static DUE: Cell<Option<Due>> = const { Cell::new(None) };
    static LAST: Cell<Option<Due>> = const { Cell::new(None) };
    static UNVEILED: Cell<Option<Due>> = const { Cell::new(None) };
    /// From the last thing before the commit on.
    static COMMITTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this transaction has appended.
pub fn has_appended() -> bool {
    APPENDED.get()
}

/// This transaction appends. To be called before it takes a position.
pub fn note_append() {
    APPENDED.set(true);
}

/// What a transaction is held to.
#[derive(Clone, Copy)]
pub struct Noted {
    appended: bool,
    gated: bool,
}

/// What it is held to so far.
pub fn noted() -> Noted {
    Noted { appended: APPENDED.get(), gated: GATED.get() }
}

/// Whatever it has done since then was undone.
pub fn put_back(noted: Noted) {
    APPENDED.set(noted.appended);
    GATED.set(noted.gated);
}

/// This transaction holds a tenant's gate.
pub fn note_gate() {
    GATED.set(true);
}

/// This subtransaction has entered that tenant's gate.
pub fn note_entered(tenant_id: i64) {
    note_gate();
    ENTERED.set(Some((tenant_id, xact::current_subtransaction())));
}

/// It has left it again.
pub fn note_left() {
    ENTERED.set(None);
}

/// Whether this transaction is known to be within that tenant's gate.
pub fn has_entered(tenant_id: i64) -> bool {
    ENTERED.get().is_some_and(|(entered, _)| entered == tenant_id)
}

/// Calls that at the end of this transaction, and of its subtransactions that are rolled back.
pub fn call_at_end(on_end: OnEnd) {
    ON_END.set(Some(on_end));
}

/// Does that before this transaction commits, which cannot be prepared, and calls it at the end as [`call_at_end`] does.
pub fn call_before_commit(due: Due) {
    DUE.set(Some(due));
}

/// What was to be done before the commit was rolled back to a savepoint.
pub fn nothing_due() {
    DUE.set(None);
}

/// Does that behind whatever else is due before this transaction commits.
pub fn call_last_before_commit(due: Due) {
    LAST.set(Some(due));
}

/// Does that behind even those, when no code of users' runs in this transaction any more; it must call none.
pub fn call_unveiled_before_commit(due: Due) {
    UNVEILED.set(Some(due));
}

/// What was to be done last was rolled back to a savepoint.
pub fn nothing_last() {
    LAST.set(None);
}

/// Whether what is done last before the commit has begun, or is over.
pub fn is_committing() -> bool {
    COMMITTING.get()
}

/// Whether something is due before this transaction commits.
pub fn has_due() -> bool {
    DUE.get().is_some()
}

/// What [`xact::init`] is given.
pub fn note(event: Event) -> Result<()> {
    match event {
        Event::BeforeCommit => {
            if let Some(due) = DUE.get() {
                xact::with_snapshot(due.before_commit)?;
            }
            COMMITTING.set(true);
            if let Some(last) = LAST.get() {
                xact::with_snapshot(last.before_commit)?;
            }
            if let Some(unveiled) = UNVEILED.get() {
                xact::with_snapshot(unveiled.before_commit)?;
            }
            alone::warn()?;
            // No user code runs after it that could set another level.
            if APPENDED.get() && settings::is_durability_strict() {
                xact::wait_for_flush();
            }
            if APPENDED.get() {
                test_point("append before the flush");
            }
        }
        Event::BeforePrepare if APPENDED.get() || GATED.get() || has_due() => return Err(refuse_prepare()),
        Event::BeforePrepare => (),
        Event::Committed => {
            if APPENDED.get() {
                test_point("append committed");
            }
            finish(End::Committed);
        }
        Event::RolledBack => finish(End::RolledBack),
        // What was to be done at the commit is not the session's next transaction's: evict.rs sees to it at COMMIT PREPARED.
        Event::Prepared => {
            token::forget();
            portions::forget();
            meant::end();
            board::at_end(false, false);
        }
        Event::SubtransactionRolledBack(this) => {
            token::roll_back(this);
            meant::roll_back(this);
            if ENTERED.get().is_some_and(|(_, entered_in)| entered_in >= this) {
                ENTERED.set(None);
            }
            for on_end in [ON_END.get(), DUE.get().map(|due| due.on_end), LAST.get().map(|last| last.on_end)]
                .into_iter()
                .flatten()
            {
                on_end(End::SubtransactionRolledBack(this));
            }
        }
    }
    Ok(())
}

fn finish(end: End) {
    // What the session's next transaction would take for its own, or others wait for, goes first: should anything else panic, that is gone.
    GATED.set(false);
    ENTERED.set(None);
    COMMITTING.set(false);
    token::forget();
    portions::forget();
    meant::end();
    alone::forget();
    let has_appended = APPENDED.replace(false);
    xact::wait_as_before();
    open_appends::release();
    let due = [DUE.take(), LAST.take(), UNVEILED.take()].into_iter().flatten();
    for on_end in ON_END.take().into_iter().chain(due.map(|due| due.on_end)) {
        on_end(end);
    }
    board::at_end(end == End::Committed, has_appended);
}

/// The entry could not follow it, and nobody knows how long it would keep the gate.
fn refuse_prepare() -> Failure {
    let (what, hint) = if APPENDED.get() {
        (
            "PREPARE TRANSACTION after an append is not supported",
            "Commit the append in a transaction of its own, with an event_id so that a retry is safe.",
        )
    } else if has_due() {
        (
            "PREPARE TRANSACTION after an act of administration is not supported",
            "Do that in a transaction of its own, and COMMIT it: the act becomes an event at the commit.",
        )
    } else {
        (
            "PREPARE TRANSACTION is not supported after es_load(for_update => true), a retried append, a check of versions, or a change of an inline projection",
            "Do that in a transaction of its own, and COMMIT it: until then the appends of the tenant, or who must wait for them, would wait.",
        )
    };
    Error::FeatureNotSupported { what: what.into(), hint: Some(hint.into()) }.into()
}
