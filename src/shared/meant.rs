//! Which tenant each name has meant in this transaction: a name may be given to another one meanwhile. Sole owner of that.
//!
//! Promises: a transaction that has used a name goes on with the tenant that had it then, or is refused; unless it gave the name away itself, and that was not rolled back to a savepoint.
use crate::pg::process::xact;
use std::cell::RefCell;
use std::collections::HashMap;

/// A name that a subtransaction gave away, and what it had meant until then; None: it was not used before.
struct Given {
    away_in: u32,
    name: String,
    meant: Option<i64>,
}

thread_local! {
    static MEANT: RefCell<HashMap<String, i64>> = RefCell::default();
    static GIVEN: RefCell<Vec<Given>> = const { RefCell::new(Vec::new()) };
}

/// Whether the name means that tenant, as it did before, if it was used before.
pub fn means(name: &str, tenant_id: i64) -> bool {
    MEANT.with_borrow_mut(|meant| match meant.get(name) {
        Some(&before) => before == tenant_id,
        None => {
            meant.insert(name.to_owned(), tenant_id);
            true
        }
    })
}

/// This transaction gives the name to another one.
pub fn forget(name: &str) {
    let meant = MEANT.with_borrow_mut(|meant| meant.remove(name));
    let given = Given { away_in: xact::current_subtransaction(), name: name.to_owned(), meant };
    GIVEN.with_borrow_mut(|all| all.push(given));
}

/// That subtransaction was rolled back, with all that began after it: the names that it gave away mean what they did.
pub fn roll_back(this: u32) {
    let is_undone = |given: &mut Given| given.away_in >= this;
    while let Some(given) = GIVEN.with_borrow_mut(|all| all.pop_if(is_undone)) {
        MEANT.with_borrow_mut(|meant| match given.meant {
            Some(tenant_id) => meant.insert(given.name, tenant_id),
            None => meant.remove(&given.name),
        });
    }
}

/// The transaction is over.
pub fn end() {
    MEANT.with_borrow_mut(HashMap::clear);
    GIVEN.with_borrow_mut(Vec::clear);
}
