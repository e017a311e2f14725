//! What a statement has read that gives its rows in portions (a cursor's, a loop's), until the transaction is over: PostgreSQL may have read ahead of what it gives. Sole owner of that.
//!
//! Promises: what was read once counts until the statement ends, also where it was read by a statement within it.
use crate::pg::query::fetch::Mark;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What a statement has read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Read {
    /// Something of a tenant, by a session that needed no token, and used none.
    pub is_free: bool,
    /// What events and commands say, when there had been so many [`changes`].
    pub under: Option<u64>,
}

thread_local! {
    static READ: RefCell<HashMap<usize, Read>> = RefCell::default();
    /// How often a tenant was asked for without a token; what is protected; and how often that was another than before.
    static FREE: Cell<u64> = const { Cell::new(0) };
    static SHOWN: Cell<u64> = const { Cell::new(0) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// What is protected, by tenant, as this transaction has found it last; and of which tenant that is known to be so, in which generation.
    static RULES: RefCell<BTreeMap<i64, Rc<str>>> = const { RefCell::new(BTreeMap::new()) };
    static LAST: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

/// A tenant is chosen for whoever needs no token, and uses none.
pub fn note_free() {
    FREE.set(FREE.get() + 1);
}

/// What a tenant's events and commands say is about to be shown, without what is protected by `rules`, which were found in that generation.
pub fn note_shown(generation: u64, tenant_id: i64, rules: &Rc<str>) {
    if note_shown_again(generation, tenant_id) {
        return;
    }
    SHOWN.set(SHOWN.get() + 1);
    let before = RULES.with_borrow_mut(|all| all.insert(tenant_id, Rc::clone(rules)));
    if before.is_some_and(|before| before != *rules) {
        CHANGES.set(CHANGES.get() + 1);
    }
    LAST.set((generation, tenant_id));
}

/// The same, where that was noted last; false where not.
pub fn note_shown_again(generation: u64, tenant_id: i64) -> bool {
    let is_it = LAST.get() == (generation, tenant_id);
    if is_it {
        SHOWN.set(SHOWN.get() + 1);
    }
    is_it
}

/// The tenants of which something was shown in this transaction.
pub fn tenants() -> Vec<i64> {
    RULES.with_borrow(|all| all.keys().copied().collect())
}

/// How often this session has found other rules than the same transaction had found before.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// What the session has read so far.
pub fn mark() -> Mark {
    [FREE.get(), SHOWN.get(), CHANGES.get()]
}

/// A statement begins: what had that number before is over.
pub fn note_begin(statement: usize) {
    READ.with_borrow_mut(|all| all.remove(&statement));
}

/// It has given rows, and more may follow.
pub fn note_given(statement: usize, [free, shown, changes]: Mark) {
    let (is_free, is_shown) = (FREE.get() != free, SHOWN.get() != shown);
    if is_free || is_shown {
        READ.with_borrow_mut(|all| {
            let read = all.entry(statement).or_default();
            read.is_free |= is_free;
            read.under = read.under.or(is_shown.then_some(changes));
        });
    }
}

/// What that statement has read.
pub fn read(statement: usize) -> Read {
    READ.with_borrow(|all| all.get(&statement).copied()).unwrap_or_default()
}

/// The transaction is over.
pub fn forget() {
    READ.with_borrow_mut(HashMap::clear);
    RULES.with_borrow_mut(BTreeMap::clear);
    LAST.set((0, 0));
}
