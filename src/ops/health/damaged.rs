//! Snapshots that were met, found to be damaged, and not used: of each tenant the last. None is looked at to find that out; one that is gone is damage no more.
use super::check::{Check, Level, Writing};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::failing::{self, Kind};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT8OID, TIMESTAMPTZOID};
use std::collections::BTreeMap;

thread_local! {
    static STREAM: Plan = const { Plan::new(
        "select t.name, s.name from _eventstream.streams s join _eventstream.tenants t on t.id = s.tenant_id \
         where s.id = $1 and ($4 is null or s.tenant_id = $4) \
           and exists (select from _eventstream.snapshots k where k.stream_id = $1 and k.version = $2 and k.taken_at = $3)",
        &[INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID],
    ) };
}

/// A row for the tenant, or (None) for each, of which one is noted.
pub fn snapshots(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let mut last = BTreeMap::new();
    for noted in failing::noted(Kind::Snapshot) {
        let key = [noted.stream_id, noted.version, noted.position].map(|number| Some(Datum::from(number)));
        let row = [key[0], key[1], key[2], tenant_id.map(Datum::from)];
        let found = as_owner(Planning::ByIndex, |db, _| {
            STREAM.with(|plan| {
                plan.first(db, View::Latest, &row, |row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned())))
            })
        })?;
        if let Some((tenant, stream)) = found {
            last.insert(tenant, (stream, noted.version));
        }
    }
    Ok(last.into_iter().map(|(tenant, (stream, version))| check(&tenant, &stream, version, writing)).collect())
}

fn check(tenant: &str, stream: &str, version: i64, writing: &Writing) -> Check {
    let detail = format!(
        "that of stream {stream} at version {version} is damaged, and not used: the events are folded instead (es_verify_snapshots() names all): look at the disks, and \
         have them taken anew"
    );
    let fix = format!(
        "{}select * from {}es_verify_snapshots();\n{}",
        writing.choice(Some(tenant)),
        writing.schema(),
        writing.call(Some(tenant), "es_prune_snapshots", "keep => 0")
    );
    Check::bad("damaged snapshots", Level::Critical, "damaged", detail, fix).of(tenant)
}
