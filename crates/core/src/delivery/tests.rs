//! Promises: a fair share, an order that starves nobody, batches that are prefixes, and poison that ends up alone and then dead.
use super::*;

const fn fresh(position: i64) -> Standing {
    Standing { position, redeliveries: 0, suspect_to: 0 }
}

const fn event(position: i64, stream_id: i64) -> Candidate {
    Candidate { position, stream_id, size: 10 }
}

fn offer(slot: usize, standing: Standing, served_at: i64, positions: &[i64]) -> Offer {
    let events = positions.iter().map(|&position| event(position, slot as i64)).collect();
    Offer { slot, standing, served_at, parked: Vec::new(), events }
}

const LIMITS: Limits = Limits { events: 100, bytes: 1_000_000 };

fn leased(batch: &Batch) -> Vec<(usize, i64)> {
    batch.slots.iter().map(|&(slot, _, up_to)| (slot, up_to)).collect()
}

fn positions(batch: &Batch) -> Vec<i64> {
    batch.events.iter().map(|event| event.position).collect()
}

#[test]
fn shares_are_fair_and_cover_all_slots() {
    assert_eq!([0, 1, 2, 3, 4, 64, 65].map(fair_share), [64, 64, 32, 22, 16, 1, 1]);
    for consumers in 1..=64 {
        assert!(fair_share(consumers) * consumers >= SLOTS);
    }
}

#[test]
fn a_crowd_that_acknowledges_nothing_takes_no_more_than_one_consumers_share() {
    // One newcomer, and those among whom nobody works, share as they come.
    for (working, idle) in [(0, 1), (1, 1), (3, 1), (4, 0), (0, 200)] {
        assert_eq!(share_among(working, idle, true, 0), fair_share(working + idle));
    }
    for (working, idle) in [(1, 2), (1, 200), (2, 9), (10, 64)] {
        let one = fair_share(working + 1);
        assert_eq!(share_among(working, idle, true, 0), one);
        assert!(share_among(working, idle, false, 0) >= 1);
        for held in 0..=SLOTS {
            assert!(held + share_among(working, idle, false, held) <= one.max(held + usize::from(idle <= CROWD)));
        }
    }
}

#[test]
fn a_poison_event_is_alone_after_three_leases_and_dead_after_max_deliveries_and_no_other_is() {
    // Events 1..=9; 5 kills its consumer. Every lease goes to the last event, or to one where it is alone.
    let (mut at, mut dead, mut tries) = (fresh(0), Vec::new(), 0);
    while at.position < 9 {
        let one = offer(0, at, 0, &((at.position + 1)..=9).collect::<Vec<_>>());
        let wanted = wanted(std::slice::from_ref(&one), 64, 10);
        let lease = batch(&[&one], wanted.is_alone, 9, LIMITS);
        assert!(!lease.events.is_empty());
        tries += 1;
        let up_to = lease.slots[0].2;
        if positions(&lease).contains(&5) {
            assert_eq!(
                lease.events.iter().find(|event| event.position == 5).map(|event| event.attempt),
                Some(at.attempt(5))
            );
            let ended = at.after_end(up_to, 10);
            if let Some((dead_to, attempts)) = ended.dead_to {
                dead.push((at.position, dead_to, attempts));
            }
            at = ended.standing;
        } else {
            at = at.after_progress(up_to, 10);
        }
    }
    assert_eq!(dead, [(4, 5, 10)]);
    // 3 whole ones, 4 good ones before it, 7 of it alone, 4 after it.
    assert_eq!(tries, 3 + 4 + 7 + 4);
    assert_eq!(at, fresh(9));
}

#[test]
fn with_one_delivery_what_a_lease_held_is_dead_when_it_ends() {
    let ended = fresh(10).after_end(20, 1);
    assert_eq!(ended.dead_to, Some((20, 1)));
    assert_eq!(ended.standing, fresh(20));
}

#[test]
fn with_two_deliveries_the_second_one_is_alone() {
    let ended = fresh(10).after_end(20, 2);
    assert_eq!(ended.dead_to, None);
    assert!(ended.standing.is_isolated(2));
    let next = ended.standing.after_end(12, 2);
    assert_eq!(next.dead_to, Some((12, 2)));
    assert!(next.standing.is_isolated(2), "those behind it were in the lease too");
    assert_eq!(next.standing.attempt(15), 2);
    assert_eq!(next.standing.attempt(21), 1);
}

#[test]
fn a_lease_that_held_only_what_is_parked_suspects_nothing() {
    assert_eq!(fresh(10).after_end(10, 3), Ended { standing: fresh(10), dead_to: None });
    let suspected = Standing { position: 10, redeliveries: 2, suspect_to: 20 };
    assert_eq!(suspected.after_end(10, 3).standing, suspected);
}

#[test]
fn the_same_events_come_again_and_none_behind_them() {
    let again = fresh(0).after_end(3, 10).standing;
    let one = offer(0, again, 0, &[1, 2, 3, 4, 5]);
    let lease = batch(&[&one], false, 5, LIMITS);
    assert_eq!(positions(&lease), [1, 2, 3]);
    assert!(lease.events.iter().all(|event| event.attempt == 2));
    assert_eq!(leased(&lease), [(0, 3)]);
}

#[test]
fn those_that_waited_longest_come_first_and_the_parked_before_them() {
    let mut parked = offer(5, fresh(9), 99, &[]);
    parked.parked.push(Parked { events: vec![event(3, 5)], attempts: 1 });
    let offers = [offer(1, fresh(0), 7, &[1]), offer(2, fresh(0), 3, &[2]), offer(3, fresh(0), 1, &[]), parked];
    assert_eq!(wanted(&offers, 2, 10), Wanted { slots: vec![5, 2, 1], most: 2, is_alone: false });
}

#[test]
fn what_must_be_alone_is_alone_when_its_turn_comes_and_is_left_out_before() {
    let alone = Standing { position: 0, redeliveries: 3, suspect_to: 9 };
    let first = [offer(1, alone, 1, &[1, 5]), offer(2, fresh(0), 2, &[2])];
    let wanted_first = wanted(&first, 64, 10);
    assert_eq!(wanted_first, Wanted { slots: vec![1], most: 1, is_alone: true });
    let lease = batch(&[&first[0]], true, 9, LIMITS);
    assert_eq!((positions(&lease), leased(&lease)), (vec![1], vec![(1, 1)]));
    let later = [offer(1, alone, 3, &[1, 5]), offer(2, fresh(0), 2, &[2])];
    assert_eq!(wanted(&later, 64, 10), Wanted { slots: vec![2], most: 64, is_alone: false });
}

#[test]
fn a_parked_event_that_is_alone_moves_its_slot_nowhere() {
    let mut one = offer(1, fresh(10), 0, &[11]);
    one.parked.push(Parked { events: vec![event(4, 1)], attempts: 3 });
    assert!(wanted(std::slice::from_ref(&one), 64, 10).is_alone);
    let lease = batch(&[&one], true, 20, LIMITS);
    assert_eq!((positions(&lease), leased(&lease)), (vec![4], vec![(1, 10)]));
}

#[test]
fn suspects_are_alone_also_where_something_parked_is_due() {
    let mut one = offer(1, Standing { position: 10, redeliveries: 3, suspect_to: 20 }, 0, &[11, 12]);
    one.parked.push(Parked { events: vec![event(4, 1)], attempts: 0 });
    assert!(wanted(&[one], 64, 10).is_alone);
}

#[test]
fn a_batch_is_a_prefix_and_its_slots_go_no_further_than_it() {
    let (a, b) = (offer(1, fresh(0), 0, &[1, 4, 7]), offer(2, fresh(2), 0, &[3, 6]));
    let lease = batch(&[&a, &b], false, 9, Limits { events: 3, ..LIMITS });
    assert_eq!((positions(&lease), leased(&lease)), (vec![1, 3, 4], vec![(1, 5), (2, 5)]));
    let whole = batch(&[&a, &b], false, 9, LIMITS);
    assert_eq!((positions(&whole), leased(&whole)), (vec![1, 3, 4, 6, 7], vec![(1, 9), (2, 9)]));
}

#[test]
fn a_batch_ends_at_its_bytes_but_one_event_always_fits() {
    let one = offer(1, fresh(0), 0, &[1, 2, 3]);
    assert_eq!(positions(&batch(&[&one], false, 9, Limits { bytes: 25, ..LIMITS })), [1, 2]);
    assert_eq!(positions(&batch(&[&one], false, 9, Limits { bytes: 1, ..LIMITS })), [1]);
}

#[test]
fn slots_without_an_event_in_the_batch_are_not_leased() {
    let (a, b) = (offer(1, fresh(0), 0, &[1]), offer(2, fresh(0), 0, &[2]));
    let lease = batch(&[&a, &b], false, 9, Limits { events: 1, ..LIMITS });
    assert_eq!(leased(&lease), [(1, 1)]);
}
