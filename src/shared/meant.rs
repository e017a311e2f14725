//! Which tenant each name has meant in this transaction: a name may be given to another one meanwhile. Sole owner of that.
//!
//! Promises: a transaction that has used a name goes on with the tenant that had it then, or is refused; unless it gave the name away itself.
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static MEANT: RefCell<HashMap<String, i64>> = RefCell::default();
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
    MEANT.with_borrow_mut(|meant| meant.remove(name));
}

/// The transaction is over.
pub fn end() {
    MEANT.with_borrow_mut(HashMap::clear);
}
