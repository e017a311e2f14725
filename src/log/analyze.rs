//! What the planner knows of the log's tables: looked at anew where they have grown since, after a load or a restore, as autovacuum would do
//! some time later. Our own statements don't need it; views and the statements of people who join them do.
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::{Plan, View};
use crate::shared::catalog::Catalog;
use pgrx::pg_sys::{Datum, OIDOID};

thread_local! {
    // Of those with some pages: that nobody has looked at, or that have a fifth more of them than when somebody did.
    static GROWN: Plan = const { Plan::new(
        "select format('%I.%I', '_eventstream', c.relname), c.oid = $1 \
         from pg_class c cross join lateral (select pg_relation_size(c.oid) / current_setting('block_size')::bigint) n (pages) \
         where (c.oid = $1 or exists (select from pg_inherits i where i.inhrelid = c.oid and i.inhparent = $2)) \
         and n.pages > 32 and (n.pages > c.relpages + 16 + c.relpages / 5 \
              or not exists (select from pg_stats s where s.schemaname = '_eventstream' and s.tablename = c.relname)) \
         order by c.oid = $1 desc, c.oid desc limit 1",
        &[OIDOID, OIDOID],
    ) };
}

/// Analyzes one table that has grown, if nobody else is at it; how many it was.
pub fn one(db: &Db, catalog: &Catalog) -> Result<i64> {
    let args = [Some(Datum::from(catalog.streams)), Some(Datum::from(catalog.events))];
    let found =
        GROWN.with(|plan| plan.first(db, View::Latest, &args, |row| Ok((row.text(0)?.to_owned(), row.boolean(1)?))))?;
    let Some((table, is_streams)) = found else { return Ok(0) };
    // No contents: what is in payloads stays where it is.
    let columns = if is_streams {
        "tenant_id, category, id, first_position"
    } else {
        "tenant_id, category, stream_id, global_position, event_type"
    };
    Plan::passing(format!("analyze (skip_locked) {table} ({columns})"), &[]).write(db, &[])?;
    Ok(1)
}
