//! What is older than it should be, or happens more often: conflicts, refused tokens and command keys, locks on the log, leases, attempts. Warnings: nothing is broken yet.
use super::check::{Check, Level, Writing};
use crate::access;
use crate::ops::overview::Moment;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::projection::progress::HIDDEN;
use crate::shared::counters::{self, Counter};
use crate::shared::live_settings::stale_after;
use crate::shared::session::as_owner;
use eventstream_core::{counted, quote_literal};
use pgrx::pg_sys::{Datum, INT8OID};

/// Conflicts are many where there were so many of them, and so large a part of all appends was one.
const MANY: u64 = 60;
const ONE_IN: u64 = 10;
/// Tokens that are refused are many from so many on: one that has expired on its way is nobody's fault.
const MANY_TOKENS: u64 = 60;
/// Each is a mistake of a program's, and that many are one that goes on.
const MANY_MISMATCHES: u64 = 10;

columns! {
    /// Of a subscription's old ones.
    mod of, selected;
    TENANT = "o.tenant",
    NAME = "o.name",
    COUNT = "o.count",
    SECONDS = "o.seconds",
    WORD = "o.word",
    CATEGORIES = "o.categories",
}

thread_local! {
    // The locks are asked for only where a transaction is old enough: to list them stops all others who lock for a moment.
    static IS_ANY_OLD: Plan = const { Plan::new(
        "select exists (select from pg_stat_activity a where a.datid = (select d.oid from pg_database d where d.datname = current_database()) \
         and a.backend_type = 'client backend' and a.xact_start < clock_timestamp() - $1 * interval '1 microsecond')",
        &[INT8OID],
    ) };
    static LOCKS: Plan = const { Plan::new(
        "select a.pid, extract(epoch from clock_timestamp() - a.xact_start)::int8, \
                string_agg(distinct case l.locktype when 'relation' then c.relname::text else 'the gate of a tenant, whose appends wait' end, ', ') \
         from pg_locks l join pg_stat_activity a on a.pid = l.pid \
         join pg_class c on c.oid = l.relation \
              or l.relation is null and c.oid = l.classid and c.oid = '_eventstream.tenants'::regclass \
         where (l.locktype = 'relation' and l.mode <> 'AccessShareLock' \
                or l.locktype = 'object' and l.mode = 'ExclusiveLock' and l.objsubid = 0) and l.granted \
           and l.database = (select d.oid from pg_database d where d.datname = current_database()) \
           and c.relnamespace = '_eventstream'::regnamespace and c.relkind in ('r', 'p') and a.backend_type = 'client backend' \
           and a.xact_start < clock_timestamp() - $1 * interval '1 microsecond' \
         group by a.pid, a.xact_start order by a.xact_start",
        &[INT8OID],
    ) };
    static LEASES: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from (select t.name as tenant, s.name, count(*), extract(epoch from clock_timestamp() - min(l.given_at))::int8 as seconds, \
         min(l.consumer) as word, null::text[] as categories \
         from _eventstream.subscription_leases l join _eventstream.subscriptions s on s.id = l.subscription_id \
         join _eventstream.tenants t on t.id = s.tenant_id \
         where l.finished_at is null and l.lease_until > clock_timestamp() \
           and l.given_at < clock_timestamp() - $1 * interval '1 microsecond' and ($2 is null or s.tenant_id = $2) \
         group by t.name, s.name) o order by o.tenant collate \"C\", o.name collate \"C\""
        ),
        &[INT8OID, INT8OID],
    ) };
    static ATTEMPTS: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from (select t.name as tenant, s.name, count(*), extract(epoch from clock_timestamp() - min(p.parked_at))::int8 as seconds, \
         min(p.reason) as word, min(s.categories) as categories \
         from _eventstream.subscription_parked p join _eventstream.subscriptions s on s.id = p.subscription_id \
         join _eventstream.tenants t on t.id = s.tenant_id \
         where p.attempts > 0 and p.parked_at < clock_timestamp() - $1 * interval '1 microsecond' and ($2 is null or s.tenant_id = $2) \
         group by t.name, s.name) o order by o.tenant collate \"C\", o.name collate \"C\""
        ),
        &[INT8OID, INT8OID],
    ) };
}

/// Those of the database and the server.
pub fn of_database(moment: &Moment) -> Result<Vec<Check>> {
    Ok(vec![conflicts(moment), locks()?])
}

/// Those of a tenant, or of all.
pub fn of_subscriptions(writing: &Writing, tenant_id: Option<i64>) -> Result<Vec<Check>> {
    let mut checks = old_ones(&LEASES, tenant_id, |tenant, name, count, seconds, (consumer, _)| {
        let leases = counted(count, "lease was", "leases were");
        let has = if count == 1 { "has" } else { "have" };
        let detail = format!(
            "{leases} given {seconds} s ago or earlier and {has} not ended (one to consumer {}): what is held, and what comes after \
             it in the same slots, is given to nobody else. Ended consumers give nothing back: let their leases run out, and make them shorter",
            consumer.unwrap_or_default()
        );
        let look = format!(
            "{}select consumer, lease_until, cardinality(positions) as events from _eventstream.subscription_leases l join \
             _eventstream.subscriptions s on s.id = l.subscription_id where s.name = {} and finished_at is null order by given_at;",
            writing.choice(Some(tenant)),
            quote_literal(name)
        );
        Check::bad(format!("leases of {name}"), Level::Warning, "old leases", detail, look).of(tenant)
    })?;
    checks.extend(old_ones(&ATTEMPTS, tenant_id, |tenant, name, count, seconds, (reason, is_shown)| {
        // A consumer's words.
        let reason = reason.map_or_else(String::new, |reason| format!(": {}", if is_shown { reason } else { HIDDEN }));
        let streams = counted(count, "stream waits", "streams wait");
        let detail = format!(
            "{streams} for another attempt, the oldest since {seconds} s: events were nacked, and come again after growing \
             pauses, or die after max_deliveries{reason}"
        );
        let look = format!(
            "{}select name, parked, redeliveries, dead_letters from eventstream.subscriptions where name = {};",
            writing.choice(Some(tenant)),
            quote_literal(name)
        );
        Check::bad(format!("attempts of {name}"), Level::Warning, "old attempts", detail, look).of(tenant)
    })?);
    Ok(checks)
}

fn old_ones(
    plan: &'static std::thread::LocalKey<Plan>,
    tenant_id: Option<i64>,
    make: impl Fn(&str, &str, i64, i64, (Option<&str>, bool)) -> Check,
) -> Result<Vec<Check>> {
    let Some(limit) = micros() else { return Ok(Vec::new()) };
    let found = as_owner(Planning::ByIndex, |db, _| {
        plan.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(limit), tenant_id.map(Datum::from)], |row| {
                let names = (row.text(of::TENANT)?.to_owned(), row.text(of::NAME)?.to_owned());
                let word = row.text_opt(of::WORD)?.map(ToOwned::to_owned);
                let categories = row.text_array_opt(of::CATEGORIES)?;
                Ok((names, row.int8(of::COUNT)?, row.int8(of::SECONDS)?, word, categories))
            })
        })
    })?;
    found
        .into_iter()
        .map(|((tenant, name), count, seconds, word, categories)| {
            let is_shown = access::shown_in(Some(&tenant))?.covers(categories.as_deref());
            Ok(make(&tenant, &name, count, seconds, (word.as_deref(), is_shown)))
        })
        .collect()
}

fn micros() -> Option<Datum> {
    stale_after().map(|limit| Datum::from(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX / 4)))
}

fn conflicts(moment: &Moment) -> Check {
    let recent = counters::recent(moment.now.unsigned_abs());
    let refused = recent.conflicts + recent.failed_conditions;
    let all = recent.appends + refused;
    let numbers = format!(
        "{} of {all} appends were refused for a conflict (ES001), and {} for a condition that did not hold any more (ES015), in the last {} s",
        recent.conflicts, recent.failed_conditions, recent.seconds
    );
    if refused < MANY || refused * ONE_IN < all {
        return Check::ok("conflicts", numbers);
    }
    // Of the two what happens often: each is mended otherwise.
    let of_streams = "several writers decide on the same streams at a time. Load with es_load(…, for_update => true), or make the streams smaller";
    let of_conditions = "several writers decide on the same tags at a time, or on more than their decisions need. Look with items of few event types and of all tags that the decision \
                         is about, the rarest among them (a course's seat, and not the whole school), and append soon after es_condition";
    let often = [(recent.conflicts, of_streams), (recent.failed_conditions, of_conditions)];
    let advice: Vec<_> =
        often.into_iter().filter(|(count, _)| count * ONE_IN >= refused).map(|(_, advice)| advice).collect();
    Check::bad(
        "conflicts",
        Level::Warning,
        "many",
        format!("{numbers}: {}; set eventstream.log_conflicts = on shows which", advice.join("; and ")),
        "select name, value from eventstream.stats where name in ('appends', 'conflicts', 'conditions_failed');".into(),
    )
}

/// No row before the first that was refused since the server started.
pub fn refused_tokens(moment: &Moment) -> Option<Check> {
    if counters::get(Counter::TokensRefused) == 0 {
        return None;
    }
    let recent = counters::recent(moment.now.unsigned_abs());
    let refused = counted(recent.refused_tokens.try_into().unwrap_or(i64::MAX), "token was", "tokens were");
    let numbers = format!("{refused} refused (ES043) in the last {} s", recent.seconds);
    if recent.refused_tokens < MANY_TOKENS {
        return Some(Check::ok("refused tokens", numbers));
    }
    let detail = format!(
        "{numbers}: a service sends tokens that are expired, of a key that is revoked or of another log, or somebody tries. The server's log says of each why, \
         with the role, and the key and tenant that it names"
    );
    let look = "select name, value from eventstream.stats where name = 'tokens_refused';".into();
    Some(Check::bad("refused tokens", Level::Warning, "many", detail, look))
}

/// No row before the first key that was refused since the server started.
pub fn mismatches(moment: &Moment) -> Option<Check> {
    if counters::get(Counter::CommandMismatches) == 0 {
        return None;
    }
    let recent = counters::recent(moment.now.unsigned_abs());
    let refused = counted(recent.mismatches.try_into().unwrap_or(i64::MAX), "command was", "commands were");
    let numbers = format!(
        "{refused} refused in the last {} s because the key was used for another request (ES030)",
        recent.seconds
    );
    if recent.mismatches < MANY_MISMATCHES {
        return Some(Check::ok("command keys", numbers));
    }
    let detail = format!(
        "{numbers}: a program takes keys that are no names of one intention (a number that begins anew, the name of a customer), or changes the request when it repeats it (a time, the \
         scale of a number). The server's log has each that nobody caught, with its key"
    );
    let look =
        "select name, value from eventstream.stats where name in ('command_mismatches', 'commands_replayed');".into();
    Some(Check::bad("command keys", Level::Warning, "many", detail, look))
}

fn locks() -> Result<Check> {
    let Some(limit) = micros() else { return Ok(Check::ok("locks", "locks of any age are allowed")) };
    let held = as_owner(Planning::ByIndex, |db, _| {
        if IS_ANY_OLD.with(|plan| plan.first(db, View::Latest, &[Some(limit)], |row| row.boolean(0)))? != Some(true) {
            return Ok(Vec::new());
        }
        LOCKS.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(limit)], |row| {
                Ok((row.int4(0)?, row.int8(1)?, row.text_opt(2)?.unwrap_or_default().to_owned()))
            })
        })
    })?;
    if held.is_empty() {
        return Ok(Check::ok("locks", "no transaction holds locks on the log for long"));
    }
    let who: Vec<_> =
        held.iter().map(|(pid, seconds, tables)| format!("process {pid} for {seconds} s ({tables})")).collect();
    let pids: Vec<_> = held.iter().map(|(pid, ..)| pid.to_string()).collect();
    let detail = format!(
        "transactions are open longer than eventstream.stale_after and hold locks on the log's tables, streams or projections: {}. Others \
         who need the same wait for them",
        who.join(", ")
    );
    Ok(Check::bad("locks", Level::Warning, "old locks", detail, sessions_end(&pids)))
}

/// The sessions, to be looked at, and what ends them.
pub fn sessions_end(pids: &[String]) -> String {
    let ends: Vec<_> = pids.iter().map(|pid| format!("select pg_terminate_backend({pid});")).collect();
    format!(
        "select pid, usename, application_name, client_addr, state, xact_start, query from pg_stat_activity where pid in ({});\n{}",
        pids.join(", "),
        ends.join("\n")
    )
}
