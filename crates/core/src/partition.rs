//! How the log is cut into partitions by global position. Owns the ranges and the names of their tables;
//! promises ranges that touch and never overlap. Making the tables is the business of `src/log`.

/// Lower bound, inclusive, of the first partition: the first global position.
pub const FIRST_LOWER: i64 = 1;

/// Upper bound, exclusive, of the first partition. Hard-coded because that partition belongs to the extension, and
/// what the script of `CREATE EXTENSION` makes must be the same everywhere.
pub const FIRST_UPPER: i64 = 1 << 24;

/// The range `[lower, upper)` of the partition to be made for `position`: it begins where the partition before it ends
/// (`previous_upper`, exclusive), is a whole number of `size` positions wide (`eventstream.partition_size`; less than 1 counts as
/// 1), and does not reach beyond `next_lower`, where one after it exists already.
///
/// After a jump of the sequence it is wider: a hole between two partitions is always a partition that somebody took away.
/// Bounds saturate at `i64::MAX`.
#[must_use]
pub fn range_for(position: i64, previous_upper: i64, next_lower: Option<i64>, size: i64) -> (i64, i64) {
    let size = size.max(1);
    let lower = previous_upper.max(FIRST_LOWER);
    let skipped = position.max(lower).saturating_sub(lower) / size;
    let upper = lower.saturating_add(skipped.saturating_add(1).saturating_mul(size));
    (lower, next_lower.map_or(upper, |next| upper.min(next)))
}

/// The name of the partition that starts at `lower`, without its schema: `events_1`, `events_16777216`. The only
/// characters are ASCII letters, digits and `_`, so it needs no quoting.
#[must_use]
pub fn table_name(lower: i64) -> String {
    debug_assert!(lower >= FIRST_LOWER, "positions start at {FIRST_LOWER}");
    format!("events_{lower}")
}
