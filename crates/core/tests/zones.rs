//! Zones as text: names, and offsets that count as ISO 8601 counts.
use eventstream_core::zone::Zone::{self, Name, Offset};

#[test]
fn names_and_iso_offsets_are_zones() {
    for (text, zone) in [
        ("Europe/Vienna", Name("Europe/Vienna")),
        ("america/port-au-prince", Name("america/port-au-prince")),
        ("UTC", Name("UTC")),
        ("EST5EDT", Name("EST5EDT")),
        ("Etc/GMT+2", Name("Etc/GMT+2")),
        ("GMT0", Name("GMT0")),
        ("W-SU", Name("W-SU")),
        ("Z", Offset(0)),
        ("+02:00", Offset(7_200)),
        ("+02", Offset(7_200)),
        ("-0330", Offset(-12_600)),
        ("-03:30:15", Offset(-12_615)),
        ("-00:00", Offset(0)),
        ("+15:59:59", Offset(57_599)),
    ] {
        assert_eq!(Zone::parse(text), Some(zone), "{text}");
    }
}

#[test]
fn what_posix_would_read_and_garbage_are_none() {
    for text in [
        "",
        " ",
        "UTC+2",
        "UTC-2",
        "CET-1CEST",
        "<+02>-2",
        "Europe/Vienna+2",
        "GMT+2",
        "Etc/GMT+123",
        "Etc/GMT++1",
        "+2",
        "+2:00",
        "+02:0",
        "+16",
        "+02:60",
        "+02:00:60",
        "+02:00:00:00",
        "02:00",
        "+",
        "-",
        "+０2",
        "+é1",
        "../passwd",
        "Europe/Vienna ",
        "a b",
        "EST5EDT,M3.2.0,M11.1.0",
        ":UTC",
    ] {
        assert_eq!(Zone::parse(text), None, "{text}");
    }
}
