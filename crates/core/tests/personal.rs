//! What looks like personal data in a name, and what does not.

use eventstream_core::command::personal::{Looks, looks_like};
use proptest::prelude::*;

#[test]
fn addresses_telephones_and_cards_are_seen_wherever_they_stand() {
    let looks = [
        ("ada@example.org", Looks::EMail),
        ("customer:ada.lovelace+news@mail.example.co.uk", Looks::EMail),
        ("ada%40example.org", Looks::EMail),
        ("jürgen@müller.de", Looks::EMail),
        ("ada\u{FF20}example.org", Looks::EMail),
        ("<ada@example.org>", Looks::EMail),
        ("x ada@example.org.", Looks::EMail),
        ("\"ada l\"@example.org", Looks::EMail),
        ("+43 664 1234567", Looks::Telephone),
        ("+436641234567", Looks::Telephone),
        ("customer:+43-664-123-45-67", Looks::Telephone),
        ("+1 (555) 123-4567", Looks::Telephone),
        ("(555) 123-4567", Looks::Telephone),
        ("(555)123.4567", Looks::Telephone),
        ("tel:0664 1234567", Looks::Telephone),
        ("Phone:06641234567", Looks::Telephone),
        ("fax=01 234 56 78", Looks::Telephone),
        ("0664 1234567", Looks::Telephone),
        ("0664/123 45 67", Looks::Telephone),
        ("customer 0664 1234567", Looks::Telephone),
        ("customer:0664\u{A0}1234567", Looks::Telephone),
        ("020 7946 0958", Looks::Telephone),
        ("06 12 34 56 78", Looks::Telephone),
        ("4111111111111111", Looks::Card),
        ("card:4111 1111 1111 1111", Looks::Card),
        ("4111-1111-1111-1111", Looks::Card),
        ("378282246310005", Looks::Card),
        ("3782 822463 10005", Looks::Card),
        ("5555555555554444", Looks::Card),
        ("2223003122003222", Looks::Card),
        ("6011111111111117", Looks::Card),
        ("30569309025904", Looks::Card),
        ("paid-3530111333300000-late", Looks::Card),
    ];
    for (text, expected) in looks {
        assert_eq!(looks_like(text), Some(expected), "{text}");
    }
}

#[test]
fn identifiers_pass() {
    let pass = [
        "",
        "1000",
        "cash",
        "user@localhost",
        "@example.org",
        "a@b",
        "price@2.50",
        "build@v1.2",
        "2024-12-31",
        "31.12.2024",
        "2024-12-31T22:59:59.999999+00:00",
        "2024-12-31T22:59:59+1000",
        "20241231235959",
        "1732998061000",
        "1732998061000000",
        "0001234567",
        "0000000000001",
        "order:0664-1234567",
        "06641234567",
        "0001 2345678",
        "1234 0567890",
        "12 0664 1234567",
        "DE89 0704 0044 0532",
        "0123 4567 8901 2345",
        "01 02 2024",
        "01/02/2024",
        "0815 17",
        "555-123-4567",
        "A+1234567",
        "order:12345678901234567890",
        "978-3-16-148410-0",
        "4006381333931",
        "AT611904300234573201",
        "AT61 1904 3002 3457 3201",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "41111111-1111-1111-1111-111111111111",
        "11111111-4111-4111-8111-111111111111",
        "00000000-0000-0000-0000-000000000000",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "a4111111111111111",
        "4111111111111112",
        "4111-1111-1111-1112",
        "9111111111111111",
        "company:1",
        "phone:work",
        "phone:12",
        "mobile-20240131",
        "1.0.0.1",
        "198.51.100.200",
        "AccountCredited",
        "v2+metadata",
        "§@§.§",
    ];
    for text in pass {
        assert_eq!(looks_like(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "\\PC{0,60}") {
        let _ = looks_like(&text);
    }

    #[test]
    fn texts_of_the_signs_that_count_are_judged(text in "[0-9@.+() %A-c-]{0,60}") {
        let _ = looks_like(&text);
    }

    #[test]
    fn no_uuid_looks_like_anything(id in any::<[u8; 16]>()) {
        prop_assert_eq!(looks_like(&eventstream_core::to_uuid_text(&id)), None);
        prop_assert_eq!(looks_like(&eventstream_core::to_ulid_text(id)), None);
    }

    #[test]
    fn no_uuid_of_digits_alone_does(digits in "[0-9]{8}-[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{12}") {
        prop_assert_eq!(looks_like(&digits), None);
    }

    #[test]
    fn a_card_is_seen_with_its_check_digit_only(rest in "[0-9]{14}") {
        let seen = (0..10).filter(|digit| looks_like(&format!("4{rest}{digit}")) == Some(Looks::Card)).count();
        prop_assert_eq!(seen, 1);
    }
}
