//! What keeps a log from being thrown away, or altered, by a command that somebody did not think through.
use crate::log::{first_append, partition};
use crate::pg::error::failure::Result;
use crate::pg::guard::Act;
use crate::pg::process::session::Planning;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;

/// Events are counted up to here: a refusal does not take minutes.
const MOST: i64 = 10_000;

/// Refuses to remove anything of a log that has events, and to change anything of one that has appended here: until then it may be
/// a restore, which makes triggers and attaches partitions. Errors: ES051.
pub fn protect(act: Act, command: &str, object: &str) -> Result<()> {
    if act == Act::Change && !first_append::is_there()? {
        return Ok(());
    }
    let counted = as_owner(Planning::ByIndex, |db, catalog| partition::count(db, catalog, MOST + 1))?;
    if counted == 0 {
        return Ok(());
    }
    let (events, more) = (counted.min(MOST), counted > MOST);
    Err(Error::Guarded { command: command.into(), object: object.into(), events, more }.into())
}
