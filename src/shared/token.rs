//! The token of this transaction (src/access/token.rs verifies it): kept in this backend alone, for the session's user that brought it. Sole owner of that.
//!
//! ```text
//! none ── es_use_token ─▶ in use ── another of the same tenant ─▶ in use
//!                           │ ROLLBACK TO a savepoint before it ─▶ the one before it, or none; the tenant stays the transaction's
//!                           └ the transaction ends ─▶ none
//! ```
//! Promises: no token outlives its transaction, and no transaction has tokens of two tenants, whatever is rolled back to whichever savepoint: a cursor may have seen the first one. A statement that gives its
//! rows in portions is known with every token that it gave any under.
use crate::pg::process::{server, xact};
use eventstream_core::token::Claims;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A token that was verified.
#[derive(Debug)]
pub struct Token {
    pub tenant_id: i64,
    /// Which key has signed it, and what that was.
    pub key_id: String,
    pub key: Vec<u8>,
    pub claims: Claims,
    /// Under which rights and keys it was last found to count (`catalog::access_generation`).
    pub found_at: Cell<u64>,
}

struct InUse {
    token: Rc<Token>,
    /// The session's: SET SESSION AUTHORIZATION takes it from others.
    user: Oid,
    used_in: u32,
}

/// What a statement gave rows under.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// With the subtransaction in which each was brought.
    tokens: Vec<(Rc<Token>, u32)>,
    /// One of them was rolled back since.
    pub is_taken_back: bool,
}

impl Ran {
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().map(|(token, _)| &**token)
    }
}

/// So many different ones a transaction may use: each takes memory until its end.
pub const MOST: usize = 64;

thread_local! {
    static IN_USE: RefCell<Vec<InUse>> = const { RefCell::new(Vec::new()) };
    /// The transaction's first one, whatever became of it.
    static FIRST: RefCell<Option<Rc<Token>>> = const { RefCell::new(None) };
    static RAN: RefCell<HashMap<usize, Ran>> = RefCell::default();
    static HAS_HAD: Cell<bool> = const { Cell::new(false) };
    static HOLDS_CURSOR: Cell<bool> = const { Cell::new(false) };
}

/// Whether this transaction has, or had, a token.
pub fn has_had() -> bool {
    HAS_HAD.get()
}

/// The one that says which tenant the transaction is of.
pub fn first() -> Option<Rc<Token>> {
    if has_had() { FIRST.with_borrow(Clone::clone) } else { None }
}

/// The one that is in use, where the session's user brought it.
pub fn in_use() -> Option<Rc<Token>> {
    if !has_had() {
        return None;
    }
    let user = server::session_role();
    IN_USE.with_borrow(|in_use| in_use.last().filter(|last| last.user == user).map(|last| Rc::clone(&last.token)))
}

/// Uses it from now on; false where there were too many.
pub fn begin(token: Rc<Token>) -> bool {
    let used_in = xact::current_subtransaction();
    FIRST.with_borrow_mut(|first| {
        first.get_or_insert_with(|| Rc::clone(&token));
    });
    HAS_HAD.set(true);
    IN_USE.with_borrow_mut(|in_use| {
        // What was used in the same subtransaction goes with it, or stays with it.
        if in_use.last().is_some_and(|last| last.used_in == used_in) {
            in_use.pop();
        }
        if in_use.len() < MOST {
            in_use.push(InUse { token, user: server::session_role(), used_in });
            return true;
        }
        false
    })
}

/// What that statement gave rows under; None: under no token.
pub fn ran(statement: usize) -> Option<Ran> {
    RAN.with_borrow(|ran| ran.get(&statement).cloned())
}

/// A statement begins: what had that number before is over.
pub fn note_begin(statement: usize) {
    RAN.with_borrow_mut(|ran| ran.remove(&statement));
}

/// It gives rows under the token that is in use.
pub fn note_run(statement: usize) {
    let Some((token, used_in)) =
        IN_USE.with_borrow(|in_use| in_use.last().map(|last| (Rc::clone(&last.token), last.used_in)))
    else {
        return;
    };
    RAN.with_borrow_mut(|ran| {
        let tokens = &mut ran.entry(statement).or_default().tokens;
        if !tokens.iter().any(|(other, in_which)| Rc::ptr_eq(other, &token) && *in_which == used_in) {
            tokens.push((token, used_in));
        }
    });
}

/// A cursor WITH HOLD was declared in this transaction: its commit runs the cursor's statement.
pub fn note_held_cursor() {
    HOLDS_CURSOR.set(true);
}

pub fn holds_cursor() -> bool {
    HOLDS_CURSOR.get()
}

/// The transaction is over.
pub fn forget() {
    HOLDS_CURSOR.set(false);
    if HAS_HAD.replace(false) {
        IN_USE.set(Vec::new());
        FIRST.set(None);
        RAN.set(HashMap::new());
    }
}

/// That subtransaction was rolled back, with all that began after it.
pub fn roll_back(this: u32) {
    if has_had() {
        IN_USE.with_borrow_mut(|in_use| in_use.retain(|one| one.used_in < this));
        RAN.with_borrow_mut(|ran| {
            for ran in ran.values_mut() {
                ran.is_taken_back |= ran.tokens.iter().any(|(_, used_in)| *used_in >= this);
            }
        });
    }
}
