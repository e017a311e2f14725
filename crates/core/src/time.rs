//! Moments, as microseconds. Owns the step from PostgreSQL's epoch to Unix's, and the rule that recorded_at
//! never goes back (invariant 2). Promises exact integers: no float ever holds a time.

/// 2000-01-01 00:00:00 UTC, PostgreSQL's epoch, in microseconds since 1970-01-01 UTC
/// (`POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE` days, src/include/datatype/timestamp.h).
pub const PG_EPOCH_UNIX_US: i64 = 946_684_800_000_000;

/// A `timestamptz` (microseconds since 2000-01-01 UTC) as microseconds since 1970-01-01 UTC.
///
/// Saturates after the year 294247: the last 30 years of PostgreSQL's range do not fit. The log never holds such
/// a time, because occurred_at may be only `eventstream.max_future_skew` ahead of the clock.
#[must_use]
pub const fn pg_to_unix_us(pg_us: i64) -> i64 {
    pg_us.saturating_add(PG_EPOCH_UNIX_US)
}

/// The recorded_at of the next event: the clock, but never before the stream's `last` (if it has events), the
/// database-wide `floor` (what `es_settled_until()` has promised), or the `bound` that the transaction's slot shows.
/// All four in the same unit and epoch.
#[must_use]
pub fn next_recorded_at(clock: i64, last: Option<i64>, floor: i64, bound: i64) -> i64 {
    clock.max(last.unwrap_or(i64::MIN)).max(floor).max(bound)
}
