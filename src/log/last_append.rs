//! What this session has appended, and its last append: for causation ids, and for waiting until it is visible somewhere. Forgotten where the
//! (sub)transaction that made it is rolled back.
use crate::pg::process::xact;
use crate::shared::transaction::End;
use std::cell::{Cell, RefCell};

#[derive(Debug, Clone)]
pub struct LastAppend {
    pub stream: String,
    pub version: i64,
    /// Of its events, in order.
    pub positions: Vec<i64>,
    pub event_ids: Vec<[u8; 16]>,
    /// A retry was recognised: nothing was written, and version and position are those of the first time.
    pub replayed: bool,
}

impl LastAppend {
    /// What came of a stream that was only checked.
    pub fn nothing(stream: &str, version: i64) -> Self {
        Self { stream: stream.into(), version, positions: Vec::new(), event_ids: Vec::new(), replayed: false }
    }

    /// Of the newest of its events.
    pub fn global_position(&self) -> i64 {
        self.positions.last().copied().unwrap_or(0)
    }
}

/// An append that this session is told of.
struct Kept {
    last: LastAppend,
    tenant_id: i64,
    /// The subtransaction that made it, and whether its transaction is still open.
    made_in: u32,
    is_open: bool,
}

thread_local! {
    static LAST: RefCell<Option<Kept>> = const { RefCell::new(None) };
    static WRITTEN: Cell<u64> = const { Cell::new(0) };
}

/// How many events this session has written so far.
pub fn written() -> u64 {
    WRITTEN.get()
}

pub fn note_written(count: u64) {
    WRITTEN.set(WRITTEN.get() + count);
}

pub fn remember(tenant_id: i64, last: LastAppend) {
    LAST.set(Some(Kept { last, tenant_id, made_in: xact::current_subtransaction(), is_open: true }));
}

/// Runs a handler's code, whose appends are not the session's: neither is told the other's.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    struct Before(Option<Kept>);
    impl Drop for Before {
        fn drop(&mut self) {
            LAST.set(self.0.take());
        }
    }
    let _before = Before(LAST.take());
    work()
}

/// Of that tenant (None: of whichever it was).
pub fn get(tenant_id: Option<i64>) -> Option<LastAppend> {
    LAST.with_borrow(|kept| {
        let kept = kept.as_ref().filter(|kept| tenant_id.is_none_or(|tenant_id| kept.tenant_id == tenant_id));
        kept.map(|kept| kept.last.clone())
    })
}

/// Called at the end of a (sub)transaction that appended.
pub fn on_end(end: End) {
    LAST.with_borrow_mut(|last| {
        let Some(kept) = last else { return };
        let lost = kept.is_open
            && match end {
                End::Committed => false,
                End::RolledBack => true,
                End::SubtransactionRolledBack(id) => kept.made_in >= id,
            };
        if end == End::Committed {
            kept.is_open = false;
        }
        if lost {
            *last = None;
        }
    });
}
