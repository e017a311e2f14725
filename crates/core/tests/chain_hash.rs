//! The chain hash: its framing is injective, and every field counts. Its exact bytes are held by vectors.rs.

use eventstream_core::{EventFields, GENESIS, Hash, Uuid, are_in_order, chain_hash, content_digest};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// An event that owns its text, so that strategies can make and change it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    tenant_uuid: Uuid,
    stream: String,
    version: i64,
    event_id: [u8; 16],
    event_type: String,
    schema_version: i32,
    subject: Option<String>,
    tags: BTreeSet<String>,
    occurred_at_unix_us: i64,
    recorded_at_unix_us: i64,
    recorded_by: String,
    content_digest: Hash,
}

impl Event {
    /// What is made of its fields, whose tags are borrowed as a list.
    fn with_fields<T>(&self, make: impl FnOnce(&EventFields) -> T) -> T {
        let tags: Vec<&str> = self.tags.iter().map(String::as_str).collect();
        assert!(are_in_order(&tags));
        make(&EventFields {
            tenant_uuid: &self.tenant_uuid,
            stream: &self.stream,
            version: self.version,
            event_id: &self.event_id,
            event_type: &self.event_type,
            schema_version: self.schema_version,
            subject: self.subject.as_deref(),
            tags: &tags,
            occurred_at_unix_us: self.occurred_at_unix_us,
            recorded_at_unix_us: self.recorded_at_unix_us,
            recorded_by: &self.recorded_by,
            content_digest: &self.content_digest,
        })
    }

    fn framed(&self) -> Vec<u8> {
        self.with_fields(|fields| fields.framed())
    }

    fn hash(&self, previous: &Hash) -> Hash {
        self.with_fields(|fields| chain_hash(previous, fields))
    }

    /// The same event with `other`'s value in its `index`-th field, counted as they are hashed.
    fn with_field_of(&self, index: usize, other: &Self) -> Self {
        let mut changed = self.clone();
        let other = other.clone();
        match index {
            0 => changed.tenant_uuid = other.tenant_uuid,
            1 => changed.stream = other.stream,
            2 => changed.version = other.version,
            3 => changed.event_id = other.event_id,
            4 => changed.event_type = other.event_type,
            5 => changed.schema_version = other.schema_version,
            6 => changed.subject = other.subject,
            7 => changed.tags = other.tags,
            8 => changed.occurred_at_unix_us = other.occurred_at_unix_us,
            9 => changed.recorded_at_unix_us = other.recorded_at_unix_us,
            10 => changed.recorded_by = other.recorded_by,
            _ => changed.content_digest = other.content_digest,
        }
        changed
    }
}

const FIELD_COUNT: usize = 12;

/// Text that looks like frames, so that a framing without lengths or tags would be caught.
fn tricky_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\u{0}\u{1}\u{2}a]{0,12}"]
}

prop_compose! {
    fn event()(
        tenant_uuid in any::<Uuid>(),
        stream in tricky_text(),
        version in any::<i64>(),
        event_id in any::<[u8; 16]>(),
        event_type in tricky_text(),
        schema_version in any::<i32>(),
        subject in prop::option::of(tricky_text()),
        tags in prop::collection::btree_set(tricky_text(), 0..4),
        (occurred_at_unix_us, recorded_at_unix_us) in any::<(i64, i64)>(),
        recorded_by in tricky_text(),
        content_digest in any::<[u8; 32]>(),
    ) -> Event {
        Event {
            tenant_uuid, stream, version, event_id, event_type, schema_version, subject, tags, occurred_at_unix_us,
            recorded_at_unix_us, recorded_by, content_digest,
        }
    }
}

/// Reads framed fields back: if that gives every field's bytes again, no two field lists frame alike.
fn unframe(mut bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut fields = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        if *tag == 0 {
            fields.push(None);
            bytes = rest;
            continue;
        }
        let (length, rest) = rest.split_at(8);
        let length = usize::try_from(u64::from_be_bytes(length.try_into().unwrap())).unwrap();
        fields.push(Some(rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    fields
}

proptest! {
    #[test]
    fn framed_fields_can_be_read_back(event in event()) {
        let mut expected: Vec<Option<Vec<u8>>> = vec![
            Some(event.tenant_uuid.to_vec()),
            Some(event.stream.clone().into_bytes()),
            Some(event.version.to_be_bytes().to_vec()),
            Some(event.event_id.to_vec()),
            Some(event.event_type.clone().into_bytes()),
            Some(i64::from(event.schema_version).to_be_bytes().to_vec()),
            event.subject.clone().map(String::into_bytes),
            Some((event.tags.len() as i64).to_be_bytes().to_vec()),
        ];
        expected.extend(event.tags.iter().map(|tag| Some(tag.clone().into_bytes())));
        expected.extend([
            Some(event.occurred_at_unix_us.to_be_bytes().to_vec()),
            Some(event.recorded_at_unix_us.to_be_bytes().to_vec()),
            Some(event.recorded_by.clone().into_bytes()),
            Some(event.content_digest.to_vec()),
        ]);
        prop_assert_eq!(unframe(&event.framed()), expected);
    }

    #[test]
    fn changing_any_one_field_changes_bytes_and_hash(a in event(), b in event(), previous in any::<[u8; 32]>()) {
        for index in 0..FIELD_COUNT {
            let changed = a.with_field_of(index, &b);
            let is_same = changed == a;
            prop_assert_eq!(changed.framed() == a.framed(), is_same, "field {}", index);
            prop_assert_eq!(changed.hash(&previous) == a.hash(&previous), is_same, "field {}", index);
        }
    }

    #[test]
    fn the_previous_hash_counts(event in event(), a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
        prop_assert_eq!(event.hash(&a) == event.hash(&b), a == b);
    }

    #[test]
    fn text_cannot_move_between_neighbouring_fields(
        event in event(), subject in tricky_text(), tag in tricky_text(), at in any::<prop::sample::Index>()
    ) {
        let whole = format!("{subject}{tag}");
        let event = Event { subject: Some(subject), tags: [tag].into(), ..event };
        let mut cut = at.index(whole.len() + 1);
        while !whole.is_char_boundary(cut) {
            cut -= 1;
        }
        let (subject, tag) = whole.split_at(cut);
        let moved = Event { subject: Some(subject.into()), tags: [tag.into()].into(), ..event.clone() };
        prop_assert_eq!(moved.hash(&GENESIS) == event.hash(&GENESIS), moved == event);
    }

    #[test]
    fn every_part_of_the_content_counts(
        a in (any::<[u8; 16]>(), tricky_text(), tricky_text()), b in (any::<[u8; 16]>(), tricky_text(), tricky_text())
    ) {
        let digest = |salt: &[u8; 16], payload: &str, metadata: &str| {
            content_digest(salt, payload.as_bytes(), metadata.as_bytes())
        };
        let of_a = digest(&a.0, &a.1, &a.2);
        prop_assert_eq!(digest(&b.0, &a.1, &a.2) == of_a, a.0 == b.0);
        prop_assert_eq!(digest(&a.0, &b.1, &a.2) == of_a, a.1 == b.1);
        prop_assert_eq!(digest(&a.0, &a.1, &b.2) == of_a, a.2 == b.2);
        let joined = format!("{}{}", a.1, a.2);
        prop_assert_eq!(digest(&a.0, &joined, "") == of_a, a.2.is_empty());
    }
}

#[test]
fn no_subject_is_not_an_empty_subject() {
    let event = Event {
        tenant_uuid: [3; 16],
        stream: "account-1".into(),
        version: 1,
        event_id: [1; 16],
        event_type: "A".into(),
        schema_version: 1,
        subject: None,
        tags: BTreeSet::new(),
        occurred_at_unix_us: 0,
        recorded_at_unix_us: 0,
        recorded_by: "r".into(),
        content_digest: [2; 32],
    };
    let empty = Event { subject: Some(String::new()), ..event.clone() };
    assert_ne!(event.hash(&GENESIS), empty.hash(&GENESIS));
}

#[test]
fn tags_in_another_order_or_given_twice_are_none_that_are_hashed() {
    assert!(are_in_order::<&str>(&[]));
    assert!(are_in_order(&["Zoll:1", "order:4", "order:42", "žeton:1"]));
    assert!(!are_in_order(&["a", "B"]));
    assert!(!are_in_order(&["order:42", "order:42"]));
}
