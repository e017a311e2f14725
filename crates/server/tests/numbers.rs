//! Numbers as strings: every number, nothing else, digit for digit.
use eventstream_server::numbers::as_strings;
use proptest::prelude::*;

#[test]
fn each_number_is_a_string_of_the_same_characters() {
    let cases = [
        ("1", "\"1\""),
        ("[-1.50, 1e+400,0]", "[\"-1.50\", \"1e+400\",\"0\"]"),
        (r#"{"1": "2\"3", "a": 4, "b": "\\", "c": 5}"#, r#"{"1": "2\"3", "a": "4", "b": "\\", "c": "5"}"#),
        (r#"{"é1": [true, null, "-7"]}"#, r#"{"é1": [true, null, "-7"]}"#),
    ];
    for (document, wanted) in cases {
        assert_eq!(as_strings(document), wanted);
    }
}

proptest! {
    #[test]
    fn a_document_without_numbers_stays_as_it_is(texts in proptest::collection::vec(".*", 0..5)) {
        let document = serde_json::to_string(&texts).unwrap();
        prop_assert_eq!(as_strings(&document), document);
    }

    #[test]
    fn whatever_text_comes_is_no_panic(text in ".*") {
        as_strings(&text);
    }

    #[test]
    fn integers_come_back(numbers in proptest::collection::vec(any::<i64>(), 0..5)) {
        let document = serde_json::to_string(&numbers).unwrap();
        let strings: Vec<String> = serde_json::from_str(&as_strings(&document)).unwrap();
        prop_assert_eq!(strings, numbers.iter().map(i64::to_string).collect::<Vec<_>>());
    }
}
