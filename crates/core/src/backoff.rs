//! How long to wait before what failed is tried again: twice as long each time, up to a limit.
use std::time::Duration;

/// The pause after `attempts` failed ones, of which the first is followed by `first`.
#[must_use]
pub fn pause(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = attempts.saturating_sub(1).min(63);
    let pause = first.as_nanos().saturating_mul(1 << doublings).min(longest.max(first).as_nanos());
    Duration::from_nanos(u64::try_from(pause).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let of = |attempts| pause(attempts, Duration::from_millis(500), Duration::from_secs(10)).as_millis();
        assert_eq!((0..8).map(of).collect::<Vec<_>>(), [500, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        assert_eq!(of(u32::MAX), 10_000);
    }

    #[test]
    fn the_first_pause_stands_where_it_is_the_longer_one() {
        assert_eq!(pause(9, Duration::from_secs(3), Duration::from_secs(1)), Duration::from_secs(3));
    }
}
