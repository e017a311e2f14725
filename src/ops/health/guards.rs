//! Whether what keeps the log as it is stands guard: the triggers of the log's and the registers' tables, their functions, and the event trigger. A superuser
//! who has said `eventstream.allow_drop = on` can put them out of work, and events can be changed from then on without a word.
//! sql/log/partitions.sql and sql/proof/guard.sql make them, and the latter knows what they are.
use super::check::{Check, Level};
use crate::log::first_append;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;

/// So many are named in the detail.
const MOST_NAMED: usize = 10;

thread_local! {
    static BROKEN: Plan = const { Plan::new("select what, statements from _eventstream.broken_guards()", &[]) };
}

/// Before the first append a restore may be at work, which makes the triggers last.
pub fn check() -> Result<Check> {
    let broken = as_owner(Planning::ByIndex, |db, _| {
        BROKEN.with(|broken| {
            broken.rows(db, View::Latest, 0, &[], |row| {
                Ok((row.text_opt(0)?.map(ToOwned::to_owned), row.text_array_opt(1)?.unwrap_or_default()))
            })
        })
    })?;
    let names: Vec<_> = broken.iter().filter_map(|(what, _)| what.as_deref()).collect();
    if names.is_empty() {
        return Ok(Check::ok("guards", "all triggers that keep the log as it is are in place"));
    }
    let level = if first_append::is_there()? { Level::Critical } else { Level::Warning };
    let mut named: Vec<_> = names.iter().copied().take(MOST_NAMED).collect();
    let more = format!("and {} more", names.len().saturating_sub(MOST_NAMED));
    if names.len() > MOST_NAMED {
        named.push(&more);
    }
    let detail = format!(
        "what keeps events and rights from being changed is not as it was made: {}. Find out who did it, put it right, then run es_verify() and compare with \
         chain heads kept elsewhere: what was changed meanwhile was not refused",
        named.join(", ")
    );
    let statements: String =
        broken.iter().flat_map(|(_, statements)| statements).map(|statement| format!("{statement};\n")).collect();
    let fix = format!("begin;\nset local eventstream.allow_drop = on;\n{statements}commit;");
    Ok(Check::bad("guards", level, "not in place", detail, fix))
}
