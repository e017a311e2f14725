//! Finds the event that fails: a batch that fails is applied again in parts, until the failing event is alone; those before it stay
//! applied. Pure: what applying means, the caller says.
use std::ops::Range;

/// What came of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Isolated<F> {
    /// So many of its events are applied.
    pub applied: usize,
    /// Why the next one is not; None where all are.
    pub failure: Option<F>,
}

/// A failed part: why, and which of its events it was, where that is known.
#[derive(Debug)]
pub struct Part<F> {
    /// Why.
    pub failure: F,
    /// From the range's first event, which is 0.
    pub at: Option<usize>,
}

/// Applies `count` events in order. `apply` applies a range whole or not at all, and stops all with an outer error.
///
/// # Errors
/// Whatever `apply`'s outer result holds.
pub fn isolate<F, E>(
    count: usize,
    mut apply: impl FnMut(Range<usize>) -> Result<Result<(), Part<F>>, E>,
) -> Result<Isolated<F>, E> {
    let (mut applied, mut end) = (0, count);
    // The end of the shortest part that is known to fail.
    let mut failing = None;
    while applied < count {
        match apply(applied..end)? {
            Ok(()) => {
                applied = end;
                end = failing.take().filter(|&failing| failing > applied).unwrap_or(count);
            }
            Err(part) if end - applied == 1 => return Ok(Isolated { applied, failure: Some(part.failure) }),
            Err(part) => match part.at.filter(|&at| at < end - applied) {
                Some(at) => {
                    failing = Some(applied + at + 1);
                    end = applied + at.max(1);
                }
                None => {
                    failing = Some(end);
                    end = applied + (end - applied) / 2;
                }
            },
        }
    }
    Ok(Isolated { applied, failure: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies events of which some fail; what was applied, how often `apply` ran, and what `isolate` says.
    fn run(count: usize, failing: &[usize], tells: bool) -> (Vec<usize>, usize, Isolated<usize>) {
        let (mut done, mut calls) = (Vec::new(), 0);
        let outcome = isolate::<usize, ()>(count, |range| {
            calls += 1;
            Ok(match range.clone().find(|event| failing.contains(event)) {
                Some(event) => Err(Part { failure: event, at: tells.then(|| event - range.start) }),
                None => {
                    done.extend(range);
                    Ok(())
                }
            })
        });
        (done, calls, outcome.unwrap_or(Isolated { applied: usize::MAX, failure: None }))
    }

    #[test]
    fn the_events_before_the_first_failing_one_are_applied_once_in_order() {
        for tells in [true, false] {
            for count in 1..40 {
                for first in 0..count {
                    let (done, calls, outcome) = run(count, &[first, count - 1], tells);
                    assert_eq!(outcome, Isolated { applied: first, failure: Some(first) });
                    assert_eq!(done, (0..first).collect::<Vec<_>>());
                    assert!(calls <= if tells { 3 } else { 14 }, "{calls} calls for {first} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_batch_without_failures_is_applied_at_once() {
        assert_eq!(run(500, &[], false), ((0..500).collect(), 1, Isolated { applied: 500, failure: None }));
        assert_eq!(run(0, &[], false), (vec![], 0, Isolated { applied: 0, failure: None }));
    }

    #[test]
    fn what_fails_only_once_is_no_failure() {
        let mut calls = 0;
        let outcome = isolate::<&str, ()>(8, |_| {
            calls += 1;
            Ok(if calls == 1 { Err(Part { failure: "once", at: None }) } else { Ok(()) })
        });
        assert_eq!(outcome, Ok(Isolated { applied: 8, failure: None }));
    }

    #[test]
    fn what_ends_everything_passes() {
        assert_eq!(isolate::<(), &str>(8, |_| Err("cancelled")), Err("cancelled"));
    }
}
