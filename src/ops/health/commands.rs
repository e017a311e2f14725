//! Operations outside of the database whose attempt was left: its lease is over, and nobody has taken over.
use super::check::{Check, Level, Writing};
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::{counted, shown};
use pgrx::pg_sys::{Datum, INT8OID, TIMESTAMPTZOID};

/// So long after its lease an attempt is worth a word (µs).
const LEFT_FOR: i64 = 3_600_000_000;

thread_local! {
    static LEFT: Plan = const { Plan::new(
        "select t.name, o.under_way, o.left_behind, o.operation, o.command_key from _eventstream.tenants t cross join lateral ( \
             select count(*) filter (where o.lease_until > $2) as under_way, count(*) filter (where o.lease_until <= $2 - $3 * interval '1 us') as left_behind, \
                    (array_agg(o.operation order by o.lease_until))[1] as operation, (array_agg(o.command_key order by o.lease_until))[1] as command_key \
             from _eventstream.operations o where o.tenant_id = t.id and o.stage = 'executing') o \
         where $1 is null or t.id = $1 order by t.name collate \"C\"",
        &[INT8OID, TIMESTAMPTZOID, INT8OID],
    ) };
}

/// The attempts of a tenant.
pub struct Attempts {
    pub tenant: String,
    pub under_way: i64,
    /// Their leases were over an hour ago.
    pub left: i64,
    /// Operation and key of the oldest.
    oldest: Option<(String, String)>,
}

/// Of a tenant, or (None) of every one.
pub fn attempts(tenant_id: Option<i64>) -> Result<Vec<Attempts>> {
    let arguments = [tenant_id.map(Datum::from), Some(Datum::from(server::clock())), Some(Datum::from(LEFT_FOR))];
    as_owner(Planning::ByIndex, |db, _| {
        LEFT.with(|left| {
            left.rows(db, View::Latest, 0, &arguments, |row| {
                let oldest = row.text_opt(3)?.zip(row.text_opt(4)?);
                Ok(Attempts {
                    tenant: row.text(0)?.to_owned(),
                    under_way: row.int8(1)?,
                    left: row.int8(2)?,
                    oldest: oldest.map(|(operation, key)| (operation.to_owned(), key.to_owned())),
                })
            })
        })
    })
}

/// A row for each tenant that has some.
pub fn checks(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let all = attempts(tenant_id)?;
    Ok(all.iter().filter(|attempts| attempts.left > 0).map(|attempts| check(attempts, writing)).collect())
}

fn check(attempts: &Attempts, writing: &Writing) -> Check {
    let left = counted(attempts.left, "operation was", "operations were");
    let oldest = attempts.oldest.as_ref().map_or_else(String::new, |(operation, key)| {
        format!("; the oldest: {} with the key {}", shown(operation), shown(key))
    });
    let detail = format!(
        "{left} begun, and left without an end more than an hour ago{oldest}. Whether it was done outside nobody knows: look there, then begin it again with its key, \
         and complete or fail it"
    );
    let fix = format!(
        "{}select operation, command_key, attempt, begun_by, lease_until from eventstream.commands where stage = 'executing' and not is_under_way order by lease_until;",
        writing.choice(Some(&attempts.tenant))
    );
    Check::bad("commands", Level::Warning, "left", detail, fix).of(&attempts.tenant)
}
