//! What a rule that takes another's place leaves out: each row what was given before, what is given now, and what nobody is kept from any more.
use eventstream_core::protect::Given;

fn listed(pointers: &[&str], metadata: &[&str]) -> Given {
    let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
    Given { pointers: Some(texts(pointers)), clear_pointers: None, metadata_pointers: texts(metadata) }
}

fn clear(pointers: &[&str]) -> Given {
    let Given { pointers, .. } = listed(pointers, &[]);
    Given { pointers: None, clear_pointers: pointers, metadata_pointers: Vec::new() }
}

#[test]
fn what_another_rule_no_longer_protects_is_named() {
    let all = "whatever was not clear, but for what is listed now";
    for (before, now, gone) in [
        (listed(&["/name"], &[]), listed(&["/name", "/phone"], &[]), vec![]),
        (listed(&["/name", "/phone"], &[]), listed(&["/nmae", "/phone"], &[]), vec!["/name"]),
        (listed(&["/name/first"], &[]), listed(&["/name"], &[]), vec![]),
        (listed(&["/name"], &[]), listed(&["/name/first"], &[]), vec!["/name"]),
        (listed(&["/contacts/*/number"], &[]), listed(&["/contacts/0/number"], &[]), vec!["/contacts/*/number"]),
        (listed(&["/contacts/0/number"], &[]), listed(&["/contacts/*/number"], &[]), vec![]),
        (listed(&[], &["/reason"]), listed(&[], &[]), vec!["/reason of the metadata"]),
        (listed(&["/name"], &[]), clear(&["/amount"]), vec![]),
        (listed(&["/name"], &[]), clear(&["/name/first"]), vec!["/name"]),
        (clear(&["/amount"]), listed(&["/name"], &[]), vec![all]),
        (clear(&["/amount"]), clear(&[]), vec![]),
        (clear(&["/amount"]), clear(&["/amount/net"]), vec![]),
        (clear(&["/amount/net"]), clear(&["/amount"]), vec!["/amount"]),
        (clear(&["/amount"]), clear(&["/amount", "/name"]), vec!["/name"]),
    ] {
        assert_eq!(before.uncovered_by(&now).expect("well-formed"), gone, "{before:?} and then {now:?}");
    }
}
