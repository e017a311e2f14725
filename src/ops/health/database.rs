//! The checks of the server and the database: whether the library is preloaded, workers run, the log may grow and nobody holds it.
use super::check::{Check, Level, Writing, seconds};
use super::stale::sessions_end;
use crate::log::{highest, horizon, partition};
use crate::ops::overview::Moment;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::proof::verify::{self, Seen};
use crate::shared::board;
use crate::shared::counters;
use crate::shared::session::as_owner;
use crate::shared::{live_settings, open_appends};
use eventstream_core::error::Error;
use eventstream_core::{counted, quote_literal};

/// How full the newest partition may be where the next one is not there: while workers may still be about to make it (their upkeep comes every minute
/// or so), and where none can be; from when on it is critical.
const DUE: f64 = 0.1;
const DUE_WITHOUT_WORKERS: f64 = 0.01;
const LATE: f64 = 0.5;

thread_local! {
    static DATABASE: Plan = const { Plan::new(
        "select current_database()::text, current_setting('max_worker_processes')::int8, \
                exists (select from _eventstream.subscriptions), exists (select from _eventstream.grants where privilege = 'reveal'), \
                (select count(*) from pg_stat_activity where backend_type <> all ('{archiver,autovacuum launcher,autovacuum worker,background writer,checkpointer,\
                 client backend,io worker,slotsync worker,startup,walreceiver,walsender,walsummarizer,walwriter,eventstream scribe,parallel worker}'))",
        &[],
    ) };
}

struct Database {
    name: String,
    max_worker_processes: i64,
    has_subscriptions: bool,
    has_reveal: bool,
    /// Worker processes that are taken for longer than a moment.
    taken: i64,
}

fn database() -> Result<Database> {
    let found = as_owner(Planning::ByIndex, |db, _| {
        DATABASE.with(|plan| {
            plan.first(db, View::Latest, &[], |row| {
                Ok(Database {
                    name: row.text(0)?.to_owned(),
                    max_worker_processes: row.int8(1)?,
                    has_subscriptions: row.boolean(2)?,
                    has_reveal: row.boolean(3)?,
                    taken: row.int8(4)?,
                })
            })
        })
    })?;
    found.ok_or_else(|| Error::Internal { what: "there is no database".into() }.into())
}

/// Whether there is a horizon at all.
pub fn preload() -> Result<Check> {
    if open_appends::are_there() {
        return Ok(Check::ok("preload", "the library is preloaded"));
    }
    let libraries = server::setting(c"shared_preload_libraries")?;
    let libraries = libraries.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty());
    let libraries: Vec<_> =
        libraries.filter(|name| *name != "eventstream").chain(["eventstream"]).map(quote_literal).collect();
    Ok(Check::bad(
        "preload",
        Level::Critical,
        "not preloaded",
        "shared_preload_libraries does not name eventstream: nothing can follow the log, and no workers run".into(),
        format!("alter system set shared_preload_libraries = {};\n-- then restart the server", libraries.join(", ")),
    ))
}

/// Whether the log is whole, as far as a glance tells.
pub fn log(writing: &Writing) -> Result<Check> {
    let verify = format!("select * from {}es_verify() limit 100;", writing.schema());
    let bad = |problem, detail, fix| Check::bad("log", Level::Critical, problem, detail, fix);
    Ok(match verify::glance()? {
        None => Check::ok("log", "nothing is known to be missing"),
        Some(Seen::Missing(why)) => bad(
            "events missing",
            format!(
                "events are missing, or what belongs to them: {why}. Was this restored from a part of a dump? pg_dump -n, -t and -T leave events out \
                 without a word. These statements name what is missing"
            ),
            verify,
        ),
        Some(Seen::Floor(floor)) => bad(
            "floor ahead",
            format!(
                "the floor of recorded_at is set to {}, more than a day ahead of the clock: everything is recorded at that time. Find out who set it, and what was \
                 recorded so; then a superuser sets it right",
                server::print_time_utc(floor)?
            ),
            format!(
                "{verify}\nselect setval('_eventstream.recorded_floor', \
                 (extract(epoch from clock_timestamp() - timestamptz '2000-01-01 00:00+00') * 1000000)::bigint);"
            ),
        ),
    })
}

/// How far ahead of the clock the newest event may be recorded before it is worth a word (µs).
const AHEAD: i64 = 60_000_000;

/// Whether time goes forward.
pub fn clock(moment: &Moment) -> Result<Check> {
    let newest = as_owner(Planning::ByIndex, highest::newest_recorded_at)?;
    let ahead = newest.unwrap_or(i64::MIN).saturating_sub(moment.now);
    if ahead <= AHEAD {
        return Ok(Check::ok("clock", "no event is recorded ahead of it"));
    }
    let detail = format!(
        "the newest event is recorded {} ahead of the clock: the clock was set back, or somebody wrote that time. Nothing is recorded before it in its stream, so that \
         times stand still there until the clock has come so far",
        seconds(ahead as f64 / 1e6)
    );
    let look = "select stream, version, global_position, recorded_at, recorded_by from eventstream.events where recorded_at > clock_timestamp() \
                order by global_position desc limit 100;";
    Ok(Check::bad("clock", Level::Warning, "ahead", detail, look.into()))
}

/// Those of a primary that is preloaded. `has_followers`: there are projections for workers.
pub fn checks(moment: &Moment, writing: &Writing, has_followers: bool) -> Result<Vec<Check>> {
    let database = database()?;
    let mut checks = vec![
        activation(moment, writing, has_followers || database.has_subscriptions),
        workers(&database, has_followers),
        holders(moment),
        partitions(&database, writing)?,
        clock(moment)?,
        snapshots(writing),
    ];
    checks.extend(reveals(&database));
    Ok(checks)
}

/// Where roles may ask for es_reveal: each of its records needs a worker process of its own, for a moment.
fn reveals(database: &Database) -> Option<Check> {
    if !database.has_reveal {
        return None;
    }
    let (most, taken) = (database.max_worker_processes, database.taken);
    if taken < most {
        return Some(Check::ok(
            "reveals",
            format!("{} of {most} worker processes are left for their records", most - taken),
        ));
    }
    let detail = format!(
        "roles have the privilege reveal, and all {most} worker processes (max_worker_processes) are taken: es_reveal shows nothing where none becomes free within 10 s"
    );
    let fix = format!("alter system set max_worker_processes = {};\n-- then restart the server", needed(most) + 1);
    Some(Check::bad("reveals", Level::Warning, "no worker left", detail, fix))
}

fn activation(moment: &Moment, writing: &Writing, is_needed: bool) -> Check {
    if moment.is_active {
        return Check::ok("activation", "this database is where its log is at home");
    }
    let level = if is_needed { Level::Critical } else { Level::Warning };
    Check::bad(
        "activation",
        level,
        "not activated",
        "this database is a copy of another one (restored, or made from a template): projections and subscriptions wait. If the \
         original is no longer in use, make this one the original"
            .into(),
        writing.call(None, "es_activate", ""),
    )
}

/// How many worker processes there must be.
fn needed(most: i64) -> i64 {
    if board::database::is_scheduler_running() {
        return most + i64::from(board::missing_workers());
    }
    // Where nothing runs, it is not known who has the places that there are: the launcher, the scheduler and its runners need new ones.
    most + 2 + live_settings::max_workers() as i64
}

fn workers(database: &Database, has_followers: bool) -> Check {
    let bad = |level, problem, detail, fix| Check::bad("workers", level, problem, detail, fix);
    let wanted = live_settings::max_workers();
    let level = if has_followers { Level::Warning } else { Level::Ok };
    if wanted == 0 {
        let detail =
            "eventstream.max_workers is 0: es_run_projection() advances projections, and nothing else does".into();
        let fix = "alter system set eventstream.max_workers = 4;\nselect pg_reload_conf();".into();
        return bad(level, "switched off", detail, fix);
    }
    if !live_settings::is_database_served(&database.name) {
        let detail = format!(
            "eventstream.databases does not name {}: es_run_projection() advances projections, and nothing else does",
            database.name
        );
        if !has_followers {
            return Check::ok("workers", detail);
        }
        let fix = "alter system set eventstream.databases = '*';\nselect pg_reload_conf();".into();
        return bad(Level::Warning, "switched off", detail, fix);
    }
    if !board::has_place() {
        let most = board::database::DATABASES;
        let detail = format!(
            "this database is not served: all {most} places for databases with the extension are taken (or the server has just started). \
             es_run_projection() advances projections"
        );
        let look = "select datname from pg_database where datallowconn and not datistemplate order by 1;\n-- then name those that need workers: alter \
                    system set eventstream.databases = 'one, another'; select pg_reload_conf();";
        let level = if has_followers { Level::Critical } else { Level::Warning };
        return bad(level, "no place", detail, look.into());
    }
    let (missing, is_running) = (i64::from(board::missing_workers()), board::database::is_scheduler_running());
    if is_running && missing == 0 {
        return Check::ok("workers", format!("the scheduler runs, and up to {wanted} runners where they are needed"));
    }
    let most = database.max_worker_processes;
    let needed = needed(most);
    let find = if missing == 1 { "finds" } else { "find" };
    let detail = if is_running {
        format!(
            "{missing} of {wanted} runners {find} no free worker process (max_worker_processes is {most}): those there are share the work"
        )
    } else {
        format!(
            "no scheduler runs: it found no free worker process (max_worker_processes is {most}), or the server has just started"
        )
    };
    let level = if is_running || !has_followers { Level::Warning } else { Level::Critical };
    let problem = if is_running { "too few" } else { "not running" };
    bad(
        level,
        problem,
        detail,
        format!("alter system set max_worker_processes = {needed};\n-- then restart the server"),
    )
}

fn holders(moment: &Moment) -> Check {
    let held = open_appends::holders();
    let mut held: Vec<_> = held.iter().filter_map(|held| Some((held.since, held.pid, held.position?))).collect();
    held.sort_unstable();
    let Some(&(since, ..)) = held.first() else { return Check::ok("horizon", "nobody holds it") };
    let longest = (moment.now - since).max(0) as f64 / 1e6;
    let Some(limit) = live_settings::max_append_transaction() else {
        return Check::ok("horizon", format!("held for {} at most; any time is allowed", seconds(longest)));
    };
    let limit = limit.as_secs_f64();
    let late: Vec<_> = held.iter().filter(|(since, ..)| (moment.now - since) as f64 / 1e6 > limit).collect();
    if late.is_empty() {
        return Check::ok("horizon", format!("held for {} at most", seconds(longest)));
    }
    let who: Vec<_> = late
        .iter()
        .map(|(since, pid, position)| {
            format!("process {pid} at position {position} for {}", seconds((moment.now - since) as f64 / 1e6))
        })
        .collect();
    let pids: Vec<_> = late.iter().map(|(_, pid, _)| pid.to_string()).collect();
    Check::bad(
        "horizon",
        Level::Critical,
        "held",
        format!(
            "transactions that have appended are open longer than eventstream.max_append_transaction and hold projections and \
             subscriptions back: {}",
            who.join(", ")
        ),
        sessions_end(&pids),
    )
}

/// The next partition is made once the log has entered the one before, by whoever can. Where it is not, that is said while there is time: at 13,000
/// events a second, 16,777,216 positions last for 20 minutes.
fn partitions(database: &Database, writing: &Writing) -> Result<Check> {
    let room = as_owner(Planning::ByIndex, |db, catalog| {
        let last_position = horizon::last_position(catalog)?;
        partition::room(db, catalog, last_position)
    })?;
    let full = format!("the newest partition is {:.0} per cent full", room.full * 100.0);
    if room.is_next_there {
        return Ok(Check::ok("partitions", format!("{full}, and the next one is there")));
    }
    let most = database.max_worker_processes;
    let needed = most + 2 + live_settings::max_workers() as i64;
    let raise = format!("\nalter system set max_worker_processes = {needed};\n-- then restart the server");
    let (due, why, more) = if live_settings::max_workers() == 0 {
        (
            DUE_WITHOUT_WORKERS,
            "eventstream.max_workers is 0, so that only es_maintain() makes it ahead of need".into(),
            String::new(),
        )
    } else if !live_settings::is_database_served(&database.name) {
        let why = format!(
            "eventstream.databases does not name {}, so that only es_maintain() makes it ahead of need",
            database.name
        );
        (DUE_WITHOUT_WORKERS, why, String::new())
    } else if !board::database::is_scheduler_running() {
        let why = format!("no worker process could be had to make it (max_worker_processes is {most})");
        (DUE_WITHOUT_WORKERS, why, raise)
    } else {
        (DUE, "the workers have not made it (the server's log says why)".into(), String::new())
    };
    if room.full < due {
        return Ok(Check::ok("partitions", full));
    }
    let level = if room.full < LATE { Level::Warning } else { Level::Critical };
    let detail =
        format!("{full}, and the next one is not there: {why}. At the edge an append has to make it, and others wait");
    let fix = format!("select * from {}es_maintain();{more}", writing.schema());
    Ok(Check::bad("partitions", level, "not ahead", detail, fix))
}

fn snapshots(writing: &Writing) -> Check {
    let failed = counters::failed_snapshots();
    if failed > 0 {
        let snapshots = counted(failed as i64, "snapshot", "snapshots");
        let detail = format!(
            "{snapshots} failed when last taken (a WARNING says which and why): mend the folds, then have them taken"
        );
        let fix = format!("select * from {}es_maintain();", writing.schema());
        return Check::bad("snapshots", Level::Warning, "failing", detail, fix);
    }
    Check::ok("snapshots", "none failed when last taken")
}
