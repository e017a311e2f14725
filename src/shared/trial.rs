//! A test that is under way in this session (es_test, src/command/tested.rs): its clock, from which position on its log begins, its source of event ids, and what it has appended.
//!
//! Promises: nothing of it is left when it is over, neither here nor in what a transaction notes of itself (src/shared/transaction.rs); outside of one all of this is what it is for
//! everybody, and costs the look at a flag.
use super::{open_appends, transaction};
use crate::pg::process::server;
use eventstream_core::error::Error;
use eventstream_core::event_id::EventIds;
use eventstream_core::shown;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static TRIAL: RefCell<Option<Trial>> = const { RefCell::new(None) };
}

struct Trial {
    after: i64,
    clock: Option<i64>,
    ids: EventIds,
    /// In the order in which they were taken.
    positions: Vec<i64>,
}

/// Whether a test is under way.
pub fn is_on() -> bool {
    IS_ON.get()
}

/// Runs a test that sees no event at `after` or before. Whatever `work` does has to be undone when it returns.
pub fn run<T>(after: i64, work: impl FnOnce() -> T) -> T {
    /// Ends it, also where a panic does.
    struct Ends(usize, transaction::Noted);
    impl Drop for Ends {
        fn drop(&mut self) {
            IS_ON.set(false);
            TRIAL.set(None);
            // Nothing that was appended meanwhile is left: whoever waits for the end of this transaction need not wait for that.
            open_appends::release_to(self.0);
            transaction::put_back(self.1);
        }
    }
    let _ends = Ends(open_appends::count(), transaction::noted());
    TRIAL.set(Some(Trial { after, clock: None, ids: EventIds::default(), positions: Vec::new() }));
    IS_ON.set(true);
    work()
}

fn ask<T>(ask: impl FnOnce(&mut Trial) -> T) -> Option<T> {
    if !is_on() {
        return None;
    }
    TRIAL.with_borrow_mut(|trial| trial.as_mut().map(ask))
}

/// That it appends to a stream that is not its own.
pub fn refusal(stream: &str) -> Error {
    Error::FeatureNotSupported {
        what: format!("a test cannot append to stream {}, which was there before", shown(stream)),
        hint: Some("Let it have streams of its own, whose history is given.".into()),
    }
}

/// For what looks at, or works on, what is there for everybody. Errors: 0A000 within a test.
pub fn refuse(call: &str) -> Result<(), Error> {
    if !is_on() {
        return Ok(());
    }
    Err(Error::FeatureNotSupported {
        what: format!("{call} cannot be called within a test"),
        hint: Some(
            "A test sees and moves what it made itself alone. Its projections are brought up at once; what has to be there before, make before es_test, in the same transaction."
                .into(),
        ),
    })
}

/// A key as it is kept: those of a test are nobody else's, for no key begins with a blank.
pub fn key(key: &str) -> Cow<'_, str> {
    if is_on() { format!(" {key}").into() } else { key.into() }
}

/// The clock that events are recorded and judged by (microseconds since 2000-01-01 UTC).
pub fn clock() -> i64 {
    ask(|trial| trial.clock).flatten().unwrap_or_else(server::clock)
}

/// None: the server's.
pub fn set_clock(clock: Option<i64>) {
    ask(|trial| trial.clock = clock);
}

/// The position after which a reader who asks for what comes after that one begins.
pub fn after(position: i64) -> i64 {
    ask(|trial| trial.after).map_or(position, |after| after.max(position))
}

/// A source of event ids of its own: those of a test in another year are nobody else's.
pub fn new_event_id(now_unix_ms: u64, random: [u8; 16]) -> Option<[u8; 16]> {
    ask(|trial| trial.ids.next(now_unix_ms, random))
}

/// It has appended at these positions.
pub fn note(positions: &[i64]) {
    ask(|trial| trial.positions.extend(positions));
}

/// The positions that were taken, but for the first `skipped` ones. What a savepoint took back is among them.
pub fn positions(skipped: usize) -> Vec<i64> {
    ask(|trial| trial.positions.get(skipped..).map(<[i64]>::to_vec)).flatten().unwrap_or_default()
}
