//! The settings of workers, projections and subscriptions. All but the databases' own are read again when the server's
//! configuration is reloaded.
use crate::pg::guc::{self, Integer};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;
use std::time::Duration;

/// What happens to a transaction that appended and stays open for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum OnLongAppend {
    #[name = c"log"]
    Log,
    #[name = c"cancel"]
    Cancel,
    #[name = c"terminate"]
    Terminate,
}

static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static IDLE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static RETRY_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(500);
static MAX_RETRY_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(300_000);
static HANDLER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static MAX_APPEND_TRANSACTION: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static ON_LONG_APPEND: GucSetting<OnLongAppend> = GucSetting::<OnLongAppend>::new(OnLongAppend::Log);
/// A conflict is an answer, and a busy log would hide what is none.
static LOG_CONFLICTS: GucSetting<bool> = GucSetting::<bool>::new(false);
static COMMAND_RETRIES: GucSetting<i32> = GucSetting::<i32>::new(10);
static STALE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(600_000);
static LAG_THRESHOLD: GucSetting<i32> = GucSetting::<i32>::new(60_000);

/// The most runners that a database can have.
pub const MOST_WORKERS: i32 = 64;

const INTEGERS: [Integer; 9] = [
    Integer {
        name: c"eventstream.max_workers",
        short: c"How many background workers advance the projections of each database.",
        long: c"0: none; es_run_projection() advances them. Each takes one of max_worker_processes, and so do the launcher and a scheduler for each database.",
        setting: &MAX_WORKERS,
        range: 0..=MOST_WORKERS,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.idle_interval",
        short: c"How long a scheduler that nothing wakes sleeps.",
        long: c"Appends wake it at once; this is the safety net.",
        setting: &IDLE_INTERVAL,
        range: 1_000..=3_600_000,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.retry_pause",
        short: c"The pause before a failed event is tried again for the first time; each further one is twice as long.",
        long: c"",
        setting: &RETRY_PAUSE,
        range: 1..=3_600_000,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.max_retry_pause",
        short: c"The longest pause between two attempts at an event.",
        long: c"",
        setting: &MAX_RETRY_PAUSE,
        range: 1..=86_400_000,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.handler_timeout",
        short: c"How long a worker lets one batch of a projection run.",
        long: c"0: without end. A batch that takes longer is cancelled, and tried again with fewer events.",
        setting: &HANDLER_TIMEOUT,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.max_append_transaction",
        short: c"How long a transaction that has appended may stay open before eventstream.on_long_append is done to it.",
        long: c"It holds projections and subscriptions back. 0: for ever.",
        setting: &MAX_APPEND_TRANSACTION,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.lag_threshold",
        short: c"How far a projection may be behind, in time, before that is reported.",
        long: c"0: it is never reported.",
        setting: &LAG_THRESHOLD,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.command_retries",
        short: c"How often a scheduled command that fails is tried again before it is a dead letter.",
        long: c"After eventstream.retry_pause, and twice as long each further time. A refusal (ES033) is no failure.",
        setting: &COMMAND_RETRIES,
        range: 0..=1_000,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.stale_after",
        short: c"How old locks on the log, leases of consumers and attempts at an event may be before health warns of them.",
        long: c"0: it never does.",
        setting: &STALE_AFTER,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_MS,
    },
];

/// Defines them; from `settings::init`.
pub fn init() {
    guc::define_integers(&INTEGERS, || GucContext::Sighup);
    GucRegistry::define_bool_guc(
        c"eventstream.log_conflicts",
        c"Whether version conflicts (ES001), conditions that failed (ES015) and refusals of commands (ES033) are written to the server's log.",
        c"They are counted in any case: eventstream.stats, es_metrics(), eventstream.health.",
        &LOG_CONFLICTS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"eventstream.databases",
        c"The databases in which background workers run: * for all that have the extension, or their names, separated by commas.",
        c"",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"eventstream.on_long_append",
        c"What is done to a transaction that has appended and stays open longer than eventstream.max_append_transaction: log, cancel or terminate.",
        c"cancel ends its statement, if one runs; terminate ends its session.",
        &ON_LONG_APPEND,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// Runners for each database.
pub fn max_workers() -> usize {
    MAX_WORKERS.get().unsigned_abs() as usize
}

/// Whether workers may run in the database of that name.
pub fn is_database_served(name: &str) -> bool {
    let listed = DATABASES.get();
    let listed = listed.as_deref().map_or("*".into(), |listed| listed.to_string_lossy());
    listed.split(',').map(str::trim).any(|one| one == "*" || one == name)
}

pub fn idle_interval() -> Duration {
    duration(&IDLE_INTERVAL)
}

pub fn retry_pause() -> Duration {
    duration(&RETRY_PAUSE)
}

pub fn max_retry_pause() -> Duration {
    duration(&MAX_RETRY_PAUSE)
}

/// None: without end.
pub fn handler_timeout() -> Option<Duration> {
    some(&HANDLER_TIMEOUT)
}

/// None: for ever.
pub fn max_append_transaction() -> Option<Duration> {
    some(&MAX_APPEND_TRANSACTION)
}

pub fn on_long_append() -> OnLongAppend {
    ON_LONG_APPEND.get()
}

pub fn are_conflicts_logged() -> bool {
    LOG_CONFLICTS.get()
}

/// Attempts at a scheduled command after the first one.
pub fn command_retries() -> u32 {
    COMMAND_RETRIES.get().unsigned_abs()
}

/// None: nothing is too old.
pub fn stale_after() -> Option<Duration> {
    some(&STALE_AFTER)
}

/// None: lag is not reported.
pub fn lag_threshold() -> Option<Duration> {
    some(&LAG_THRESHOLD)
}

fn duration(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get().unsigned_abs().into())
}

fn some(setting: &GucSetting<i32>) -> Option<Duration> {
    Some(duration(setting)).filter(|duration| !duration.is_zero())
}
