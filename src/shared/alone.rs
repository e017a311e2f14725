//! What a statement has set until the end of its transaction, where that may end with the statement: only the end tells, because the first statement of a pipeline looks as one by itself does.
//! Sole owner of that.
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::process::server;
use std::borrow::Cow;
use std::cell::RefCell;

struct Alone {
    function: &'static str,
    hint: Cow<'static, str>,
    /// When the statement began: what the client sends next begins later.
    began: i64,
}

thread_local! {
    static ALONE: RefCell<Option<Alone>> = const { RefCell::new(None) };
}

/// This statement has called `function`, outside of a transaction block.
pub fn note(function: &'static str, hint: Cow<'static, str>) {
    ALONE.set(Some(Alone { function, hint, began: server::statement_began() }));
}

/// The transaction commits: a WARNING where nothing came after it, as PostgreSQL's SET LOCAL gives.
pub fn warn() -> Result<()> {
    let Some(alone) = ALONE.take().filter(|alone| alone.began == server::statement_began()) else { return Ok(()) };
    let message = format!("{} has no effect outside of a transaction: it ends with this statement", alone.function);
    report::warning_of("25P01", &message, &format!("Say begin first. {}", alone.hint))
}

/// The transaction is over.
pub fn forget() {
    ALONE.set(None);
}
