//! What is counted: for the whole database, since the server started, in shared memory where the library is preloaded; else, and
//! for databases beyond the first [`DATABASES`], in this backend. Counting never waits and never fails.
use super::board::database::{DATABASES, exclusively};
use super::notes::{Note, Notes};
use super::trial;
use crate::pg::process::server;
use crate::pg::shmem::Area;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// One a thing that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    Appends,
    EventsAppended,
    Conflicts,
    ConditionsFailed,
    CacheHits,
    CacheMisses,
    SnapshotHits,
    SnapshotMisses,
    SnapshotsInvalid,
    SnapshotsTaken,
    EventsFolded,
    EventsProjected,
    ProjectionRetries,
    DeadLetters,
    EventsDelivered,
    EventsAcknowledged,
    EventsNacked,
    LeasesExpired,
    SnapshotsFailed,
    CommandsReplayed,
    CommandMismatches,
    CommandsRefused,
    InvariantsBroken,
    ScheduledDone,
    ScheduledRefused,
    ScheduledFailed,
    TokensRefused,
}

pub const COUNTERS: usize = Counter::TokensRefused as usize + 1;

impl Counter {
    pub const ALL: [Self; COUNTERS] = [
        Self::Appends,
        Self::EventsAppended,
        Self::Conflicts,
        Self::ConditionsFailed,
        Self::CacheHits,
        Self::CacheMisses,
        Self::SnapshotHits,
        Self::SnapshotMisses,
        Self::SnapshotsInvalid,
        Self::SnapshotsTaken,
        Self::EventsFolded,
        Self::EventsProjected,
        Self::ProjectionRetries,
        Self::DeadLetters,
        Self::EventsDelivered,
        Self::EventsAcknowledged,
        Self::EventsNacked,
        Self::LeasesExpired,
        Self::SnapshotsFailed,
        Self::CommandsReplayed,
        Self::CommandMismatches,
        Self::CommandsRefused,
        Self::InvariantsBroken,
        Self::ScheduledDone,
        Self::ScheduledRefused,
        Self::ScheduledFailed,
        Self::TokensRefused,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Appends => "appends",
            Self::EventsAppended => "events_appended",
            Self::Conflicts => "conflicts",
            Self::ConditionsFailed => "conditions_failed",
            Self::CacheHits => "cache_hits",
            Self::CacheMisses => "cache_misses",
            Self::SnapshotHits => "snapshot_hits",
            Self::SnapshotMisses => "snapshot_misses",
            Self::SnapshotsInvalid => "snapshots_invalid",
            Self::SnapshotsTaken => "snapshots_taken",
            Self::EventsFolded => "events_folded",
            Self::EventsProjected => "events_projected",
            Self::ProjectionRetries => "projection_retries",
            Self::DeadLetters => "dead_letters",
            Self::EventsDelivered => "events_delivered",
            Self::EventsAcknowledged => "events_acknowledged",
            Self::EventsNacked => "events_nacked",
            Self::LeasesExpired => "leases_expired",
            Self::SnapshotsFailed => "snapshots_failed",
            Self::CommandsReplayed => "commands_replayed",
            Self::CommandMismatches => "command_mismatches",
            Self::CommandsRefused => "commands_refused",
            Self::InvariantsBroken => "invariants_broken",
            Self::ScheduledDone => "scheduled_commands_done",
            Self::ScheduledRefused => "scheduled_commands_refused",
            Self::ScheduledFailed => "scheduled_commands_failed",
            Self::TokensRefused => "tokens_refused",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Appends => "calls that appended events, also where the transaction was rolled back later",
            Self::EventsAppended => "events that they appended",
            Self::Conflicts => "appends refused because the stream was at another version (ES001)",
            Self::ConditionsFailed => "appends refused because their condition did not hold any more (ES015)",
            Self::CacheHits => "states that a session had kept, and could start from",
            Self::CacheMisses => "states that a session had not kept",
            Self::SnapshotHits => "states that a snapshot was the start of",
            Self::SnapshotMisses => "states for which no snapshot was found that would have helped",
            Self::SnapshotsInvalid => "snapshots that were damaged and not used; es_verify_snapshots() names them",
            Self::SnapshotsTaken => "snapshots taken by es_snapshot and es_maintain",
            Self::EventsFolded => "events folded into states",
            Self::EventsProjected => "events applied by projections, dead letters not included",
            Self::ProjectionRetries => "attempts of projections that failed and are to be tried again",
            Self::DeadLetters => {
                "events that a projection or the consumers of a subscription could not process, and went past"
            }
            Self::EventsDelivered => "events that es_fetch gave to consumers, repeated deliveries included",
            Self::EventsAcknowledged => "events that consumers acknowledged",
            Self::EventsNacked => "events that consumers gave back (es_nack)",
            Self::LeasesExpired => "leases that ended unacknowledged, so that what they held is delivered again",
            Self::SnapshotsFailed => "streams and folds of which es_maintain could take no snapshot",
            Self::CommandsReplayed => "commands whose key was known, and that were given their first answer again",
            Self::CommandMismatches => "commands refused because their key was used for another request (ES030)",
            Self::CommandsRefused => "commands that their decider refused (ES033), scheduled ones included",
            Self::InvariantsBroken => "appends and commits refused by an invariant (ES019)",
            Self::ScheduledDone => "scheduled commands that were executed",
            Self::ScheduledRefused => "scheduled commands that their decider refused (ES033)",
            Self::ScheduledFailed => "attempts at scheduled commands that failed",
            Self::TokensRefused => "tokens that es_use_token refused (ES043); the server's log says why",
        }
    }
}

/// One a duration that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Histogram {
    /// A call that appends, until it returns: the commit is the caller's.
    Append,
    /// A batch of a projection, from the look at the log to the checkpoint.
    Batch,
    /// From an event's recorded_at to the commit of the batch that made it visible in a read model.
    Visible,
    /// From a scheduled command's run_at until it was executed.
    ScheduledDelay,
}

pub const HISTOGRAMS: usize = Histogram::ScheduledDelay as usize + 1;

/// The upper ends of the buckets, in microseconds; what takes longer than all of them is in one more.
pub const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

impl Histogram {
    pub const ALL: [Self; HISTOGRAMS] = [Self::Append, Self::Batch, Self::Visible, Self::ScheduledDelay];

    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append_duration",
            Self::Batch => "projection_batch_duration",
            Self::Visible => "projection_visible_lag",
            Self::ScheduledDelay => "scheduled_command_delay",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Append => "time that calls took which appended, without the commit",
            Self::Batch => "time that a batch of a projection took, without the commit",
            Self::ScheduledDelay => "time from a scheduled command's run_at until it was executed, without the commit",
            Self::Visible => {
                "time from an event's recorded_at until a projection had applied it, just before that was committed"
            }
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// By bucket, not summed up; the last one has no upper end.
    pub buckets: [u64; BOUNDS.len() + 1],
    pub microseconds: u64,
}

impl Measured {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper end of the bucket (microseconds) in which the quantile lies, e.g. 0.95; None where nothing was measured, or in the
    /// bucket without an upper end.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut passed = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            passed += bucket;
            if passed >= rank {
                return Some(bound);
            }
        }
        None
    }
}

/// Counts of one histogram.
struct Buckets {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Buckets {
    const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], microseconds: AtomicU64::new(0) }
    }
}

/// The counts of one database, on cache lines of its own. A block that was taken stays its database's until that is dropped.
#[repr(C, align(64))]
pub struct Block {
    /// 0: nobody's.
    database: AtomicU32,
    counts: [AtomicU64; COUNTERS],
    failed_snapshots: AtomicU64,
    measured: [Buckets; HISTOGRAMS],
    /// What was counted at two moments, the older one first: when (µs), appends, conflicts, failed conditions, refused tokens, keys of another request.
    marks: [[AtomicU64; 6]; 2],
    /// Folds and upcasters that were seen to fail, and of each tenant the damaged snapshot that was met last.
    pub failing_folds: Notes<4>,
    pub failing_upcasters: Notes<4>,
    pub damaged_snapshots: Notes<8>,
}

impl Block {
    const fn new() -> Self {
        Self {
            database: AtomicU32::new(0),
            counts: [const { AtomicU64::new(0) }; COUNTERS],
            failed_snapshots: AtomicU64::new(0),
            measured: [const { Buckets::new() }; HISTOGRAMS],
            marks: [const { [const { AtomicU64::new(0) }; 6] }; 2],
            failing_folds: Note::none(),
            failing_upcasters: Note::none(),
            damaged_snapshots: Note::none(),
        }
    }
}

/// Where this backend counts.
#[derive(Clone, Copy)]
enum Home {
    Unknown,
    Backend,
    Shared(&'static Block),
}

pub static BLOCKS: Area<Block> = Area::new(c"eventstream counters", || DATABASES, Block::new);

thread_local! {
    static HOME: Cell<Home> = const { Cell::new(Home::Unknown) };
    static OWN: Block = const { Block::new() };
}

/// The block of this backend's database: one for all of its backends.
fn home() -> Home {
    let mine = server::database().to_u32();
    if mine == 0 {
        return Home::Backend;
    }
    let of = |database: u32| BLOCKS.all().iter().find(|block| block.database.load(SeqCst) == database);
    // Alone where a block is taken, so that two backends do not take two.
    let found = of(mine).or_else(|| {
        let taken = exclusively(|_| {
            let found = of(mine).or_else(|| of(0));
            found.inspect(|block| block.database.store(mine, SeqCst))
        });
        taken.flatten()
    });
    found.map_or(Home::Backend, Home::Shared)
}

/// The databases that have a block.
pub fn databases() -> Vec<u32> {
    BLOCKS.all().iter().map(|block| block.database.load(SeqCst)).filter(|&database| database != 0).collect()
}

/// These databases are gone: nobody counts for them any more, and others get their blocks.
pub fn forget(gone: &[u32]) {
    for block in BLOCKS.all().iter().filter(|block| gone.contains(&block.database.load(SeqCst))) {
        exclusively(|_| {
            let numbers = block.counts.iter().chain([&block.failed_snapshots]);
            let measured = block.measured.iter().flat_map(|one| one.buckets.iter().chain([&one.microseconds]));
            let numbers = numbers.chain(block.marks.iter().flatten());
            numbers.chain(measured).for_each(|number| number.store(0, SeqCst));
            let failing = block.failing_folds.iter().chain(&block.failing_upcasters);
            failing.chain(&block.damaged_snapshots).for_each(Note::clear);
            block.database.store(0, SeqCst);
        });
    }
}

pub fn with_block<T>(work: impl FnOnce(&Block) -> T) -> T {
    if let Home::Unknown = HOME.get() {
        HOME.set(home());
    }
    match HOME.get() {
        Home::Shared(block) => work(block),
        Home::Backend | Home::Unknown => OWN.with(work),
    }
}

/// What a test does was never done.
pub fn add(counter: Counter, count: u64) {
    if trial::is_on() {
        return;
    }
    with_block(|block| block.counts[counter as usize].fetch_add(count, Relaxed));
}

pub fn get(counter: Counter) -> u64 {
    with_block(|block| block.counts[counter as usize].load(Relaxed))
}

/// As [`add`].
pub fn observe(histogram: Histogram, duration: Duration) {
    if trial::is_on() {
        return;
    }
    let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let bucket = BOUNDS.partition_point(|&bound| bound < microseconds);
    with_block(|block| {
        let measured = &block.measured[histogram as usize];
        measured.buckets[bucket].fetch_add(1, Relaxed);
        measured.microseconds.fetch_add(microseconds, Relaxed);
    });
}

pub fn measured(histogram: Histogram) -> Measured {
    with_block(|block| {
        let from = &block.measured[histogram as usize];
        let mut measured = Measured { microseconds: from.microseconds.load(Relaxed), ..Measured::default() };
        for (into, bucket) in measured.buckets.iter_mut().zip(&from.buckets) {
            *into = bucket.load(Relaxed);
        }
        measured
    })
}

/// Snapshots that failed in the last round of upkeep which took any or failed.
pub fn failed_snapshots() -> u64 {
    with_block(|block| block.failed_snapshots.load(Relaxed))
}

pub fn set_failed_snapshots(count: u64) {
    if !trial::is_on() {
        with_block(|block| block.failed_snapshots.store(count, Relaxed));
    }
}

/// Appends that were made, and refused for a conflict or a failed condition, and tokens and command keys that were refused, in the last minutes.
#[derive(Debug, Clone, Copy)]
pub struct Recent {
    pub appends: u64,
    pub conflicts: u64,
    pub failed_conditions: u64,
    pub refused_tokens: u64,
    pub mismatches: u64,
    pub seconds: u64,
}

/// How far the marks are apart at least (µs): what was counted since the older one is the last one to two of these, where somebody looks
/// that often.
const BETWEEN_MARKS: u64 = 60_000_000;

/// `now`: microseconds. Of little worth where two look at the same moment for the first time in a while, which only a number depends on.
pub fn recent(now: u64) -> Recent {
    with_block(|block| {
        let count = |counter: Counter| block.counts[counter as usize].load(Relaxed);
        let counted = [
            Counter::Appends,
            Counter::Conflicts,
            Counter::ConditionsFailed,
            Counter::TokensRefused,
            Counter::CommandMismatches,
        ];
        let [appends, conflicts, conditions, tokens, mismatches] = counted.map(count);
        let values = [now, appends, conflicts, conditions, tokens, mismatches];
        let [older, newer] = &block.marks;
        if now.saturating_sub(newer[0].load(Relaxed)) > BETWEEN_MARKS {
            for (place, value) in values.into_iter().enumerate() {
                older[place].store(newer[place].swap(value, Relaxed), Relaxed);
            }
        }
        let since = |place: usize| values[place].saturating_sub(older[place].load(Relaxed));
        // Before the first mark, since the server started.
        let seconds = if older[0].load(Relaxed) == 0 { BETWEEN_MARKS } else { since(0) } / 1_000_000;
        Recent {
            appends: since(1),
            conflicts: since(2),
            failed_conditions: since(3),
            refused_tokens: since(4),
            mismatches: since(5),
            seconds,
        }
    })
}

/// Whether the counts are the database's, not only this session's.
pub fn are_shared() -> bool {
    with_block(|_| ());
    matches!(HOME.get(), Home::Shared(_))
}
