//! How long to wait before what failed is tried again: twice as long each time, up to a limit.
use std::time::Duration;

/// The pause after `attempts` failed ones, of which the first is followed by `first`.
#[must_use]
pub fn pause(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = attempts.saturating_sub(1).min(63);
    let pause = first.as_nanos().saturating_mul(1 << doublings).min(longest.max(first).as_nanos());
    Duration::from_nanos(u64::try_from(pause).unwrap_or(u64::MAX))
}

/// The pause of one of many: up to a quarter longer, each by its own amount, a new one for each attempt. Two that stand in each other's
/// way, and failed together, are not tried together for ever.
#[must_use]
pub fn spread(pause: Duration, whose: i64, attempts: u32) -> Duration {
    // The finalizer of splitmix64: neighbours differ in all bits.
    let mut mixed = whose.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(attempts);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let quarter = pause / 4;
    pause + quarter.mul_f64(f64::from((mixed >> 32) as u32) / f64::from(u32::MAX))
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

    #[test]
    fn neighbours_are_spread_over_a_quarter_of_the_pause() {
        let pause = Duration::from_secs(8);
        let of = |whose, attempts| spread(pause, whose, attempts).as_secs_f64();
        let all: Vec<f64> = (0..1000).map(|number| of(number, 3)).collect();
        assert!(all.iter().all(|spread| (8.0..=10.0).contains(spread)));
        assert!(
            all.iter().filter(|spread| **spread < 8.5).count() > 200
                && all.iter().filter(|spread| **spread > 9.5).count() > 200
        );
        for number in 0..999 {
            assert!((1..6).any(|attempts| (of(number, attempts) - of(number + 1, attempts)).abs() > 0.1));
        }
        assert_eq!(spread(Duration::ZERO, 1, 1), Duration::ZERO);
    }
}
