//! How the log is cut into partitions by global position. Owns the ranges and the names of their tables;
//! promises ranges that touch and never overlap. Making the tables is the business of `src/log`.

/// Lower bound, inclusive, of the first partition: the first global position.
pub const FIRST_LOWER: i64 = 1;

/// Upper bound, exclusive, of the first partition. Hard-coded because that partition belongs to the extension, and
/// what the script of `CREATE EXTENSION` makes must be the same everywhere.
pub const FIRST_UPPER: i64 = 1 << 24;

/// The range `[lower, upper)` that follows a log whose last partition ends at `last_upper` (exclusive), `size`
/// positions wide (`eventstream.partition_size`; less than 1 counts as 1).
///
/// Bounds saturate at `i64::MAX`; there `lower == upper`, and the log is full.
#[must_use]
pub const fn next_range(last_upper: i64, size: i64) -> (i64, i64) {
    let lower = if last_upper < FIRST_LOWER {
        FIRST_LOWER
    } else {
        last_upper
    };
    let size = if size < 1 { 1 } else { size };
    (lower, lower.saturating_add(size))
}

/// The name of the partition that starts at `lower`, without its schema: `events_1`, `events_16777216`. The only
/// characters are ASCII letters, digits and `_`, so it needs no quoting.
#[must_use]
pub fn table_name(lower: i64) -> String {
    debug_assert!(lower >= FIRST_LOWER, "positions start at {FIRST_LOWER}");
    format!("events_{lower}")
}
