//! The owner's rights for our own statements: [`as_owner`] is the only way to the tables of the log, and nobody else's code runs inside.
use super::catalog::Catalog;
use crate::pg::error::failure::Result;
use crate::pg::function::call;
use crate::pg::process::session::{Db, Planning, as_role};

/// Runs `work` with the owner's rights, and tells it where the relations are. Refuses a fold or an upcaster that calls back.
pub fn as_owner<T>(planning: Planning, work: impl FnOnce(&Db, &Catalog) -> Result<T>) -> Result<T> {
    call::refuse_in_user_code()?;
    let catalog = Catalog::current()?;
    as_role(catalog.owner, planning, |db| work(db, &catalog))
}
