//! Moments as text: only what means the same in every session.
use eventstream_core::moment::read;

fn has_zone(text: &str) -> bool {
    read(text).is_some()
}

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
        "2024-10-31 23:59 Etc/UTC",
        "2024-10-31 23:59 America/Port-au-Prince",
        "2024-10-31 23:59 America/North_Dakota/New_Salem",
        "2024-10-31 23:59 utc",
        "2024-02-29 00:00Z",
        "2000-02-29 00:00Z",
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
        "2024-10-31 23:59:59.1234567891Z",
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

#[test]
fn a_zone_is_none_that_leaves_the_meaning_to_a_setting_or_turns_its_sign() {
    for zone in [
        "monday",
        "at",
        "on",
        "now",
        "allballs",
        "DST",
        "IST",
        "EST",
        "CET",
        "UTC+2",
        "UTC-2",
        "GMT+2",
        "EST5EDT",
        "Europe/Vienna+2",
        "Europe/Vienna-2",
        "Europe/Vienna2",
        "Etc/GMT+",
        "Etc/GMT5",
        "Etc/GMT+123",
        "Etc/GMT+5/x",
        "/Vienna",
        "Europe/",
        "Europe//Vienna",
        "Europe/Vienna DST",
        "+16",
        "+02:60",
        "+02:00:00:00",
        "+",
    ] {
        assert!(!has_zone(&format!("2024-10-31 23:59 {zone}")), "{zone}");
    }
}

#[test]
fn a_day_or_a_time_that_there_is_not_is_no_moment() {
    for text in [
        "2024-13-01 00:00Z",
        "2024-00-01 00:00Z",
        "2024-02-30 00:00Z",
        "2023-02-29 00:00Z",
        "1900-02-29 00:00Z",
        "2024-04-31 00:00Z",
        "2024-10-00 00:00Z",
        "0000-10-01 00:00Z",
        "2024-10-31 24:00Z",
        "2024-10-31 23:60Z",
        "2024-10-31 23:59:60Z",
    ] {
        assert!(!has_zone(text), "{text}");
    }
}

#[test]
fn a_moment_is_cut_to_microseconds_and_not_rounded() {
    for (text, read_as) in [
        ("2024-10-31T23:59:59.999999999Z", "2024-10-31T23:59:59.999999Z"),
        ("2024-10-31 23:59:59.1234567 Europe/Vienna", "2024-10-31 23:59:59.123456 Europe/Vienna"),
        ("2024-10-31 23:59:59.12345678+02:00", "2024-10-31 23:59:59.123456+02:00"),
        (" 2024-10-31 23:59:59.5Z ", "2024-10-31 23:59:59.5Z"),
        ("2024-10-31 23:59Z", "2024-10-31 23:59Z"),
        ("infinity", "infinity"),
    ] {
        assert_eq!(read(text).as_deref(), Some(read_as));
    }
}
