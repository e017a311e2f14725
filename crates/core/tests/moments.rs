//! Moments as text: only what means the same in every session.
use eventstream_core::moment::has_zone;

#[test]
fn a_date_a_time_and_a_zone_are_a_moment() {
    for text in [
        "2024-10-31 23:59:59.999999Z",
        "2024-10-31T23:59Z",
        "2024-10-31 23:59:59 +02",
        "2024-10-31 23:59:59+02:00",
        "2024-10-31 23:59:59-03:30:15",
        "2024-10-31 23:59 Europe/Vienna",
        "2024-10-31 23:59:59.1 UTC",
        " 2024-10-31 23:59Z ",
        "2024-10-31 23:59 Etc/GMT+5",
        "infinity",
        "-infinity",
    ] {
        assert!(has_zone(text), "{text}");
    }
}

#[test]
fn what_depends_on_the_session_or_is_garbage_is_none() {
    for text in [
        "",
        " ",
        "2024-10-31",
        "2024-10-31 23:59",
        "2024-10-31 23:59:59.999",
        "31.10.2024 23:59Z",
        "10/31/2024 23:59Z",
        "now",
        "today",
        "tomorrow",
        "yesterday",
        "epoch",
        "2024-10-31 Z",
        "2024-10-31Z",
        "24-10-31 23:59Z",
        "2024-10-31 23:59 PM",
        "2024-10-31 23:59 BC",
        "2024-10-31 23:59:59.Z",
        "2024-10-31 23:59:59.1234567Z",
        "2024-10-31 23:59+2",
        "2024-10-31 23:59+02:0",
        "2024-10-31 23:59 'x'",
        "2024-10-31 23:59Z; select 1",
        "2024-10-31  23:59Z",
        "２024-10-31 23:59Z",
        "2024-10-31 23:59 é",
    ] {
        assert!(!has_zone(text), "{text}");
    }
}
