//! Locks by number, which end with the transaction. They are heavyweight locks on objects, which no SQL statement can name: nobody squats on
//! them, as on advisory ones. Unlike FOR UPDATE SKIP LOCKED they can be given back at once, and never lock a newer version of a row than the one
//! that was looked at. Who has got one sees, under a new snapshot, all that earlier holders wrote.
use super::subtransaction::{attempt, attempt_but};
use crate::pg::error::failure::{Failure, Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};
use std::time::Duration;

/// The modes (storage/lockdefs.h).
const MODE: i32 = pg_sys::ExclusiveLock as i32;
const SHARED: i32 = pg_sys::ShareLock as i32;
const OPPOSED: i32 = pg_sys::RowExclusiveLock as i32;
const NOT_AVAILABLE: u32 = pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
const OBJECT: u8 = pg_sys::LockTagType::LOCKTAG_OBJECT as u8;
const DEFAULT_METHOD: u8 = pg_sys::DEFAULT_LOCKMETHOD as u8;

/// Runs `work` with what it locks, or gives back, as the (sub)transaction's. What a cursor runs would lock is the cursor's, and an error in one of its rows, fetched in a
/// savepoint, gives back what earlier rows had locked.
fn as_transaction<T>(work: impl FnOnce() -> T) -> Result<T> {
    // SAFETY: plain variables of this backend; put back whatever comes of it.
    unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = pg_sys::CurTransactionResourceOwner;
        let done = catch(work);
        pg_sys::CurrentResourceOwner = owner;
        done
    }
}

/// Whether it was had; `waits` for it, or takes it at once. Notices cancels and deadlocks.
fn acquire(tag: &pg_sys::LOCKTAG, mode: i32, waits: bool) -> Result<bool> {
    // SAFETY: a tag of our own; the lock belongs to the (sub)transaction, whose end releases it.
    as_transaction(|| unsafe { ffi::LockAcquire(tag, mode, false, !waits) != NOT_AVAILABLE })
}

/// Held, as the caller says, by this (sub)transaction.
fn release(tag: &pg_sys::LOCKTAG, mode: i32) -> Result<()> {
    // SAFETY: as above.
    as_transaction(|| unsafe { ffi::LockRelease(tag, mode, false) }).map(drop)
}

/// What is locked: a part of an object of one of our tables.
#[derive(Debug, Clone, Copy)]
pub struct LockTag {
    pub table: Oid,
    /// Objects whose numbers agree in the lower 32 bits share their locks.
    pub object: i64,
    pub part: u16,
}

impl LockTag {
    fn tag(self) -> pg_sys::LOCKTAG {
        pg_sys::LOCKTAG {
            // SAFETY: a plain variable of this backend.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: self.table.to_u32(),
            locktag_field3: self.object as u32,
            locktag_field4: self.part,
            locktag_type: OBJECT,
            locktag_lockmethodid: DEFAULT_METHOD,
        }
    }

    /// Whether it was free, or is ours already.
    pub fn try_lock(self) -> Result<bool> {
        let tag = self.tag();
        acquire(&tag, MODE, false)
    }

    /// Waits for it.
    pub fn lock(self) -> Result<()> {
        let tag = self.tag();
        acquire(&tag, MODE, true).map(drop)
    }

    /// Waits for it as one of many: only who locks it alone is kept out.
    pub fn share(self) -> Result<()> {
        let tag = self.tag();
        acquire(&tag, SHARED, true).map(drop)
    }

    /// As [`Self::share`], where nobody has to be waited for; whether it was had.
    pub fn try_share(self) -> Result<bool> {
        let tag = self.tag();
        acquire(&tag, SHARED, false)
    }

    /// Gives back what one [`Self::share`] got.
    pub fn end_sharing(self) -> Result<()> {
        let tag = self.tag();
        release(&tag, SHARED)
    }

    /// Waits for it as one of many whom those that share it keep out, and the other way round.
    pub fn oppose(self) -> Result<()> {
        let tag = self.tag();
        acquire(&tag, OPPOSED, true).map(drop)
    }

    /// As [`Self::oppose`], where nobody has to be waited for; whether it was had.
    pub fn try_oppose(self) -> Result<bool> {
        let tag = self.tag();
        acquire(&tag, OPPOSED, false)
    }

    /// Gives back what one [`Self::oppose`] got.
    pub fn end_opposing(self) -> Result<()> {
        let tag = self.tag();
        release(&tag, OPPOSED)
    }

    /// Waits for it so long at most; whether it was had. To be called outside of [`super::session::as_owner`].
    pub fn lock_within(self, patience: Duration) -> Result<bool> {
        self.acquire_within(patience, MODE)
    }

    /// The same as one of many.
    pub fn share_within(self, patience: Duration) -> Result<bool> {
        self.acquire_within(patience, SHARED)
    }

    fn acquire_within(self, patience: Duration, mode: i32) -> Result<bool> {
        let tag = self.tag();
        let waited = with_lock_timeout(patience, || {
            // What a timeout leaves of the wait goes with the subtransaction.
            attempt(|| acquire(&tag, mode, true))
        })?;
        match waited {
            Ok(_) => Ok(true),
            Err(caught) if caught.sqlstate == LOCK_NOT_AVAILABLE => Ok(false),
            // What stands in the way of any lock (53200) is raised by this one, whole.
            Err(_) => acquire(&tag, mode, false),
        }
    }

    /// In SERIALIZABLE: this transaction looks whether the place is taken, and builds on it if not. PostgreSQL learns of the dependency for this
    /// place alone; an index notes what is not there by the page, and so of all that would be on it.
    pub fn note_look(self) -> Result<()> {
        self.with_row(|relation, row| {
            // SAFETY: the relation is open; a predicate lock is on numbers, whether there is such a row or not, and belongs to the transaction.
            unsafe {
                ffi::PredicateLockTID(relation, row, pg_sys::GetActiveSnapshot(), pg_sys::InvalidTransactionId);
            }
        })
    }

    /// In SERIALIZABLE: this transaction has taken the place. Errors: 40001 where that cannot be put in a row with those who looked.
    pub fn note_taking(self) -> Result<()> {
        self.with_row(|relation, row| {
            // SAFETY: as above.
            unsafe { ffi::CheckForSerializableConflictIn(relation, row, self.object as u32) }
        })
    }

    /// The place as that of a row, which no row of the table has: it is far beyond its end.
    fn with_row(self, work: impl FnOnce(pg_sys::Relation, pg_sys::ItemPointer)) -> Result<()> {
        let block = self.object as u32;
        let mut row = pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
            ip_posid: self.part,
        };
        catch(|| {
            // SAFETY: one of our tables, locked as a statement that reads it locks it.
            unsafe {
                let relation = ffi::relation_open(self.table, pg_sys::AccessShareLock as i32);
                work(relation, &mut row);
                ffi::relation_close(relation, pg_sys::NoLock as i32);
            }
        })
    }

    /// Gives back what one [`Self::try_lock`] got.
    pub fn unlock(self) -> Result<()> {
        let tag = self.tag();
        release(&tag, MODE)
    }
}

/// Does `work`, and undoes it where it would wait for locks of others for longer than that: None. To be called outside of [`super::session::as_owner`].
pub fn patiently<T>(patience: Duration, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let is_other =
        |failure: &Failure| !matches!(failure, Failure::Postgres(error) if error.sqlstate() == LOCK_NOT_AVAILABLE);
    Ok(with_lock_timeout(patience, || attempt_but(is_other, work))?.ok())
}

/// The SQLSTATE of a wait that lock_timeout ended.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Does `work`; a wait for a lock that takes longer than that, or than the session's own lock_timeout, is its error. Errors: 55P03.
pub fn within<T>(timeout: Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    with_lock_timeout(session_timeout().unwrap_or(timeout).min(timeout), work)
}

/// Keeps everybody from gathering statistics of the relation, until the end of the transaction.
pub fn against_analyze(relation: Oid) -> Result<()> {
    // SAFETY: locks a relation.
    catch(|| unsafe { ffi::LockRelationOid(relation, pg_sys::ShareUpdateExclusiveLock as i32) })
}

/// Does `work` with that lock_timeout.
fn with_lock_timeout<T>(timeout: Duration, work: impl FnOnce() -> T) -> T {
    /// Puts the session's own back, also when a panic passes.
    struct Back(i32);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: a plain variable of this backend, which ProcSleep reads.
            unsafe { pg_sys::LockTimeout = self.0 }
        }
    }
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: as above.
    let _back = unsafe {
        let own = pg_sys::LockTimeout;
        pg_sys::LockTimeout = milliseconds;
        Back(own)
    };
    work()
}

/// The session's lock_timeout; None: there is none.
pub fn session_timeout() -> Option<Duration> {
    // SAFETY: a plain variable of this backend.
    let milliseconds = unsafe { pg_sys::LockTimeout };
    (milliseconds > 0).then(|| Duration::from_millis(u64::from(milliseconds.unsigned_abs())))
}

/// Waits until that transaction has ended, however it ends.
pub fn wait_for_end_of(transaction: pg_sys::TransactionId) -> Result<()> {
    // SAFETY: notices cancels and deadlocks; without a relation there is nothing more for the error's context.
    catch(|| unsafe {
        ffi::XactLockTableWait(transaction, std::ptr::null_mut(), std::ptr::null_mut(), pg_sys::XLTW_Oper::XLTW_None)
    })
}

/// Locks an object of a catalog, as who refers to it, until the end of the transaction: who would drop it waits. Nothing is checked: it may be gone already.
pub fn object(catalog: Oid, object: Oid) -> Result<()> {
    // SAFETY: takes a lock, and in what others have changed until they let it go.
    as_transaction(|| unsafe { ffi::LockDatabaseObject(catalog, object, 0, pg_sys::AccessShareLock as i32) })
}

/// Locks a relation as INSERT, UPDATE and DELETE do, until the end of the transaction. Nothing is checked: it may be gone already.
pub fn for_writing(relation: Oid) -> Result<()> {
    // SAFETY: takes a lock, and in what others have changed until they let it go.
    catch(|| unsafe { ffi::LockRelationOid(relation, pg_sys::RowExclusiveLock as i32) })
}
