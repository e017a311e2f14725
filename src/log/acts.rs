//! Acts of administration of a tenant that must not cross: each waits for the others, as long as for the gate, and then says who is in the way.
use super::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::process::lock::{self, LockTag};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::Nullable;
use crate::shared::session::as_owner;
use crate::shared::settings;
use eventstream_core::error::Error;
use pgrx::pg_sys::{BOOLOID, Datum, INT4OID, INT8OID, OIDOID, Oid};
use std::time::Duration;

thread_local! {
    static HOLDERS: Plan = const { Plan::new(
        "select l.pid, a.xact_start \
         from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid \
         where l.locktype = 'object' and l.classid = $1 and l.objid = $2 and l.objsubid = $3 and l.granted \
         and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()) \
         and l.pid <> pg_catalog.pg_backend_pid() order by a.xact_start limit 10",
        &[OIDOID, OIDOID, INT4OID],
    ) };
    /// Whose transactions have rows of progress: each by itself, or, what it wrote in a subtransaction, by both together.
    static ADVANCING: Plan = const { Plan::new(
        "with had (by) as materialized ( \
             select g.xmax from _eventstream.projections p join _eventstream.projection_progress g on g.projection_id = p.id \
             where p.tenant_id = $1 and ($2 or p.kind = 'table') and g.xmax <> '0' \
         ) \
         select l.pid, min(a.xact_start) \
         from (select h.by from had h union all \
               select m.xid from had h cross join lateral pg_catalog.pg_get_multixact_members(case when pg_catalog.mxid_age(h.by) > 0 then h.by end) m) h (by) \
         join pg_catalog.pg_locks l on l.locktype = 'transactionid' and l.transactionid = h.by and l.granted \
         left join pg_catalog.pg_stat_activity a on a.pid = l.pid \
         where l.pid <> pg_catalog.pg_backend_pid() group by l.pid order by 2 limit 10",
        &[INT8OID, BOOLOID],
    ) };
}

/// A process, and since when its transaction is open.
pub type Holder = (i32, String);

/// How long others are waited for.
pub fn patience() -> Duration {
    lock::session_timeout().unwrap_or(settings::gate_timeout()).min(settings::gate_timeout())
}

/// Waits for a lock of the tenant's acts, until the end of the transaction. To be called outside of `as_owner`. Errors: 55P03.
pub fn lock(target: Target, tag: LockTag) -> Result<()> {
    let most = patience();
    if tag.lock_within(most)? { Ok(()) } else { Err(busy(target, most, holders(tag)?).into()) }
}

/// The same as one of many.
pub fn share(target: Target, tag: LockTag) -> Result<()> {
    let most = patience();
    if tag.share_within(most)? { Ok(()) } else { Err(busy(target, most, holders(tag)?).into()) }
}

/// Waits, in `work`, for those who advance or steer a state table of the tenant, or one of `all` projections. To be called outside of `as_owner`. Errors: 55P03.
pub fn wait_for_progress<T>(target: Target, all: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let most = patience();
    if let Some(done) = lock::patiently(most, work)? {
        return Ok(done);
    }
    let whose = [Some(Datum::from(target.id)), Some(Datum::from(all))];
    // A number of another kind, and as old as can be, is none that may be asked for.
    let holders = attempt(|| as_owner(Planning::ByIndex, |db, _| ADVANCING.with(|plan| listed(db, plan, &whose))))?
        .unwrap_or_default();
    Err(busy(target, most, holders).into())
}

fn busy(target: Target, most: Duration, holders: Vec<Holder>) -> Error {
    Error::ActsBusy { tenant: target.name.to_owned(), waited_ms: most.as_millis() as u64, holders }
}

/// Who has that lock, the longest first.
pub fn holders(tag: LockTag) -> Result<Vec<Holder>> {
    let object = Oid::from(tag.object as u32);
    let key = [Some(Datum::from(tag.table)), Some(Datum::from(object)), Some(Datum::from(i32::from(tag.part)))];
    as_owner(Planning::ByIndex, |db, _| HOLDERS.with(|plan| listed(db, plan, &key)))
}

fn listed(db: &Db, plan: &Plan, key: &[Nullable]) -> Result<Vec<Holder>> {
    plan.rows(db, View::Latest, 0, key, |row| {
        let since = row.int8_opt(1).map_or_else(|| Ok("a while ago".to_owned()), server::print_time)?;
        Ok((row.int4(0)?, since))
    })
}
