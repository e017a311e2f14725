//! Documents stay the text that they are.
use eventstream_client::Json;
use proptest::prelude::*;

#[test]
fn what_stands_at_a_pointer_keeps_its_digits() {
    let document = Json::parse_text(r#"{"a/b": {"~": [1400.50, 0.12345678901234567890, 1e400]}, "": null}"#).unwrap();
    assert_eq!(document.at("/a~1b/~0/0").unwrap().as_str(), "1400.50");
    assert_eq!(document.at("/a~1b/~0/1").unwrap().as_str(), "0.12345678901234567890");
    assert_eq!(document.at("/a~1b/~0/2").unwrap().as_str(), "1e400");
    assert_eq!(document.at("/").unwrap().as_str(), "null");
    for nowhere in ["/a~1b/~0/3", "/a~1b/~0/-1", "/x", "a", "/a~1b/~0/0/0"] {
        assert!(document.at(nowhere).is_none(), "{nowhere}");
    }
}

#[test]
fn an_object_that_looks_like_a_part_of_serde_json_is_an_object() {
    for text in [r#"{"$serde_json::private::RawValue": "1"}"#, r#"{"$serde_json::private::Number": "1"}"#] {
        let document = Json::parse_text(format!("[{text}]")).unwrap();
        assert_eq!(document.at("/0").unwrap().as_str(), text);
        assert_eq!(Json::of(&[document.at("/0").unwrap()]).unwrap().as_str(), format!("[{text}]"));
    }
}

proptest! {
    #[test]
    fn any_text_goes_and_comes_back(text in ".*") {
        let document = Json::of(&text).unwrap();
        prop_assert_eq!(document.read::<String>().unwrap(), text);
    }

    #[test]
    fn no_pointer_is_a_panic(text in r#"[\[\]{}":,0-9a~/ ]{0,30}"#, pointer in "[/~01a-]{0,12}") {
        if let Ok(document) = Json::parse_text(text) {
            let _ = document.at(&pointer);
        }
    }
}
