//! Vectors made outside this crate: chain hashes by an independent implementation in Python, numerics by PostgreSQL.
//! The same files are held by tests/core_vectors/test_verify.py.

use eventstream_core::delivery::slot_of;
use eventstream_core::json;
use eventstream_core::number::decimal;
use eventstream_core::{EventFields, GENESIS, Hash, are_in_order, chain_hash, content_digest, printed_digits};
use serde_json::Value;
use std::collections::HashMap;

fn vectors(file: &str, list: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/core_vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(rows) = document[list].take() else { panic!("{path} has no list {list}") };
    assert!(rows.len() > 4, "{path} is nearly empty");
    rows
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn chain_hashes_are_those_of_the_independent_implementation() {
    let mut heads: HashMap<(String, String), Hash> = HashMap::new();
    for event in vectors("chain.json", "events") {
        let text = |field: &str| event[field].as_str().unwrap();
        let number = |field: &str| event[field].as_i64().unwrap();
        let event_id = hex(&text("event_id").replace('-', ""));
        let digest = content_digest(&hex(text("salt")), text("payload").as_bytes(), text("metadata").as_bytes());
        assert_eq!(digest.to_vec(), hex(text("content_digest")), "{event}");

        let tenant_uuid = hex(&text("tenant_uuid").replace('-', ""));
        let tags: Vec<&str> = event["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        assert!(are_in_order(&tags), "{event}");
        let head = heads.entry((text("tenant").to_owned(), text("stream").to_owned())).or_insert(GENESIS);
        *head = chain_hash(
            head,
            &EventFields {
                tenant_uuid: tenant_uuid.as_slice().try_into().unwrap(),
                stream: text("stream"),
                version: number("version"),
                event_id: event_id.as_slice().try_into().unwrap(),
                event_type: text("event_type"),
                schema_version: number("schema_version").try_into().unwrap(),
                subject: event["subject"].as_str(),
                tags: &tags,
                occurred_at_unix_us: number("occurred_at_unix_us"),
                recorded_at_unix_us: number("recorded_at_unix_us"),
                recorded_by: text("recorded_by"),
                content_digest: &digest,
            },
        );
        assert_eq!(head.to_vec(), hex(text("chain_hash")), "{event}");
    }
}

#[test]
fn streams_are_in_the_slots_that_the_documentation_gives() {
    for stream in vectors("slots.json", "slots") {
        let tenant_uuid = hex(&stream["tenant_uuid"].as_str().unwrap().replace('-', ""));
        let slot = slot_of(tenant_uuid.as_slice().try_into().unwrap(), stream["stream"].as_str().unwrap());
        assert_eq!(Some(slot as u64), stream["slot"].as_u64(), "{stream}");
    }
}

/// A numeric as it is stored, in this machine's byte order.
fn body(numeric: &Value) -> Vec<u8> {
    let little_endian = hex(numeric["body"].as_str().unwrap());
    let words = little_endian.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    words.flat_map(u16::to_ne_bytes).collect()
}

#[test]
fn stored_numerics_print_as_many_digits_as_postgresql_printed() {
    for numeric in vectors("numeric.json", "numerics") {
        assert_eq!(printed_digits(&body(&numeric)), numeric["printed_digits"].as_u64(), "{numeric}");
    }
}

#[test]
fn stored_numerics_are_read_as_the_literals_that_they_were_made_from() {
    let mut compared = 0;
    for numeric in vectors("numeric.json", "numerics") {
        let read = decimal(&body(&numeric)).map(|number| json::Value::Number(number).to_text());
        let literal = numeric["literal"].as_str().unwrap();
        // NaN and the infinities are no JSON.
        assert_eq!(read, json::Value::parse(literal).ok().map(|number| number.to_text()), "{literal}");
        let digits = read.map(|text| text.bytes().filter(u8::is_ascii_digit).count() as u64);
        assert_eq!(digits, numeric["printed_digits"].as_u64(), "{literal}");
        compared += digits.map_or(0, |_| 1);
    }
    assert!(compared > 20, "only {compared} numbers were compared");
}
