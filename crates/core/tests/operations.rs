//! What a call of an operation is answered, and what is kept of its request.

use eventstream_core::command::operation::{Known, Outcome, Stage, check_key, event_id, request_digest};
use std::collections::HashSet;

const KNOWN: Known =
    Known { stage: Stage::Executing, is_same: true, is_retryable: false, lease_until: 100, forget_at: None };

#[test]
fn an_attempt_is_alone_until_its_lease_is_over() {
    for (now, outcome) in [(99, Outcome::InProgress), (100, Outcome::Again), (101, Outcome::Again)] {
        assert_eq!(KNOWN.outcome(now), outcome, "{now}");
    }
}

#[test]
fn what_was_done_is_replayed_and_what_may_be_tried_again_is_tried_again() {
    for is_retryable in [false, true] {
        let completed = Known { stage: Stage::Completed, is_retryable, ..KNOWN };
        assert_eq!(completed.outcome(1_000), Outcome::Replay);
    }
    assert_eq!(Known { stage: Stage::Failed, ..KNOWN }.outcome(0), Outcome::Replay);
    assert_eq!(Known { stage: Stage::Failed, is_retryable: true, ..KNOWN }.outcome(0), Outcome::Again);
}

#[test]
fn another_request_is_told_whatever_the_stage_unless_the_first_is_forgotten() {
    for &stage in Stage::ALL {
        for now in [0, 100, 1_000] {
            let outcome = Known { stage, is_same: false, ..KNOWN }.outcome(now);
            let expected = if stage == Stage::Forgotten { Outcome::First } else { Outcome::Differs };
            assert_eq!(outcome, expected, "{stage:?} at {now}");
        }
    }
}

#[test]
fn an_answer_is_forgotten_on_time_and_an_attempt_never() {
    for stage in [Stage::Completed, Stage::Failed] {
        let known = Known { stage, forget_at: Some(500), ..KNOWN };
        assert_eq!(known.outcome(499), Outcome::Replay);
        assert_eq!(known.outcome(500), Outcome::First);
    }
    assert_eq!(Known { forget_at: Some(50), ..KNOWN }.outcome(60), Outcome::InProgress);
}

#[test]
fn a_key_has_1_to_1024_bytes() {
    for good in ["k", "order 4711 / second half", "ü", &"x".repeat(1024)] {
        assert_eq!(check_key(good), Ok(good));
    }
    for bad in ["", " ", " k", "k\n", "\u{200B}", &"x".repeat(1025)] {
        assert_eq!(check_key(bad).unwrap_err().sqlstate(), "ES005", "{bad:?}");
    }
}

#[test]
fn digests_depend_on_all_that_they_are_of() {
    let salt = [7; 16];
    assert_eq!(request_digest(&salt, b"{}"), request_digest(&salt, b"{}"));
    assert_ne!(request_digest(&salt, b"{}"), request_digest(&[8; 16], b"{}"));
    assert_ne!(request_digest(&salt, b"{}"), request_digest(&salt, b"[]"));
    let ids: HashSet<_> =
        (0..1_000).map(|n| event_id(&salt, n)).chain((0..1_000).map(|n| event_id(&[8; 16], n))).collect();
    assert_eq!(ids.len(), 2_000);
    for id in ids {
        assert_eq!((id[6] >> 4, id[8] >> 6), (8, 2));
    }
}
