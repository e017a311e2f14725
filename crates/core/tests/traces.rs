//! A traceparent is what W3C says, and nothing else.
use eventstream_core::trace::is_traceparent;

#[test]
fn only_what_w3c_says_is_a_traceparent() {
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for good in [
        format!("00-{trace}-{parent}-01"),
        format!("00-{trace}-{parent}-00"),
        format!("01-{trace}-{parent}-01"),
        format!("cc-{trace}-{parent}-01-what-comes-later"),
        format!("00-{}1-{}1-ff", "0".repeat(31), "0".repeat(15)),
    ] {
        assert!(is_traceparent(&good), "{good}");
    }
    for bad in [
        String::new(),
        "00-aa".into(),
        format!("00-{trace}-{parent}"),
        format!("00-{trace}-{parent}-01-"),
        format!("00-{trace}-{parent}-01-more"),
        format!("ff-{trace}-{parent}-01"),
        format!("0-{trace}-{parent}-01"),
        format!("00-{}-{parent}-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{}-{parent}-01", trace.to_uppercase()),
        format!("00-{trace}-{parent}-1"),
        format!("00-{trace}-{parent}-zz"),
        format!(" 00-{trace}-{parent}-01"),
        format!("00_{trace}_{parent}_01"),
    ] {
        assert!(!is_traceparent(&bad), "{bad}");
    }
}
