//! What workers have to advance.
use crate::log::activation;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;

/// A projection that runs or is being rebuilt.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub id: i64,
    pub tenant_id: i64,
    /// The checkpoint.
    pub position: i64,
    /// Microseconds since 2000-01-01 UTC: not before.
    pub retry_at: Option<i64>,
    /// It has something to do whatever the checkpoint says.
    pub is_rebuilding: bool,
}

thread_local! {
    static ENTRIES: Plan = const { Plan::new(
        "select p.id, g.global_position, g.retry_at, g.status = 'rebuilding', p.tenant_id \
         from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id \
         where p.mode = 'async' and g.status in ('running', 'rebuilding') order by p.id",
        &[],
    ) };
    static TENANTS: Plan = const { Plan::new("select count(*) from _eventstream.tenants", &[]) };
}

/// How many tenants there are. `catalog::access_generation()` changes when that may.
pub fn tenants() -> Result<usize> {
    let count =
        as_owner(Planning::ByCost, |db, _| TENANTS.with(|plan| plan.first(db, View::Latest, &[], |row| row.int8(0))))?;
    Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

/// The asynchronous projections of all tenants that run or are being rebuilt; none in a copy that was not activated. `catalog::projections_generation()` changes when others may have
/// joined or left.
pub fn entries() -> Result<Vec<Entry>> {
    if !activation::is_active()? {
        return Ok(Vec::new());
    }
    as_owner(Planning::ByCost, |db, _| {
        ENTRIES.with(|plan| {
            plan.rows(db, View::Latest, 0, &[], |row| {
                Ok(Entry {
                    id: row.int8(0)?,
                    tenant_id: row.int8(4)?,
                    position: row.int8(1)?,
                    retry_at: row.int8_opt(2),
                    is_rebuilding: row.get(3).is_some_and(|flag| flag.value() & 1 == 1),
                })
            })
        })
    })
}
