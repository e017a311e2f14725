//! The chain hash: SHA-256 over an event and its stream's previous chain hash. Owns the exact bytes, which are
//! fixed for ever (docs/chain-hash.md shows them one by one); called by append and verification.
//! Promises that two different events never frame to the same bytes, and that nothing is allocated.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The 16 bytes of a uuid.
pub type Uuid = [u8; 16];

/// What stands for the previous chain hash of a stream's first event.
pub const GENESIS: Hash = [0; 32];

const EVENT_DOMAIN: &[u8] = b"eventstream/event/1\0";
const CONTENT_DOMAIN: &[u8] = b"eventstream/content/1\0";
const NULL: u8 = 0x00;
const VALUE: u8 = 0x01;

/// What the chain hash covers, beside the previous hash, in the order it is hashed. The global position is left
/// out on purpose: it belongs to the log, not to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventFields<'a> {
    /// Of the tenant, whose name may change.
    pub tenant_uuid: &'a Uuid,
    /// The stream's full name.
    pub stream: &'a str,
    /// 1, 2, 3 … within the stream.
    pub version: i64,
    /// Unique within the stream.
    pub event_id: &'a Uuid,
    /// The event's type.
    pub event_type: &'a str,
    /// The version of the payload's form.
    pub schema_version: i32,
    /// Whom the event is about, if anybody.
    pub subject: Option<&'a str>,
    /// In byte order, each once ([`are_in_order`]).
    pub tags: &'a [&'a str],
    /// Valid time, microseconds since 1970-01-01 UTC.
    pub occurred_at_unix_us: i64,
    /// Transaction time, microseconds since 1970-01-01 UTC.
    pub recorded_at_unix_us: i64,
    /// The role that appended.
    pub recorded_by: &'a str,
    /// From [`content_digest`].
    pub content_digest: &'a Hash,
}

/// Whether these are an event's tags as they are hashed: in byte order, each once.
#[must_use]
pub fn are_in_order<T: AsRef<str>>(tags: &[T]) -> bool {
    tags.windows(2).all(|pair| pair[0].as_ref() < pair[1].as_ref())
}

/// The length of a salt, in bytes. It is fixed, which is why the salt needs no frame: who verifies must call a salt of
/// another length a problem before asking for the digest.
pub const SALT_BYTES: usize = 16;

/// The digest of an event's content: `salt` ([`SALT_BYTES`] random bytes), then payload and metadata, framed, as the
/// UTF-8 text that PostgreSQL prints for the stored jsonb.
#[must_use]
pub fn content_digest(salt: &[u8], payload_text: &[u8], metadata_text: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(CONTENT_DOMAIN);
    hasher.update(salt);
    frame(&mut hasher, payload_text);
    frame(&mut hasher, metadata_text);
    hasher.finalize().into()
}

/// The chain hash of an event whose predecessor in the stream has the chain hash `previous` ([`GENESIS`] for
/// version 1).
#[must_use]
pub fn chain_hash(previous: &Hash, fields: &EventFields) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(EVENT_DOMAIN);
    hasher.update(previous);
    feed(fields, &mut hasher);
    hasher.finalize().into()
}

/// Where framed bytes go: the hasher, or (in the tests of the framing) a plain buffer.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Sha256 {
    fn put(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl EventFields<'_> {
    /// The framed fields, as [`chain_hash`] feeds them to SHA-256 after the domain and the previous hash: for
    /// tests and for people who compare byte by byte.
    #[must_use]
    pub fn framed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        feed(self, &mut bytes);
        bytes
    }
}

fn feed(fields: &EventFields, sink: &mut impl Sink) {
    frame(sink, fields.tenant_uuid);
    frame(sink, fields.stream.as_bytes());
    frame_int(sink, fields.version);
    frame(sink, fields.event_id);
    frame(sink, fields.event_type.as_bytes());
    frame_int(sink, i64::from(fields.schema_version));
    match fields.subject {
        Some(subject) => frame(sink, subject.as_bytes()),
        None => sink.put(&[NULL]),
    }
    frame_int(sink, fields.tags.len() as i64);
    for tag in fields.tags {
        frame(sink, tag.as_bytes());
    }
    frame_int(sink, fields.occurred_at_unix_us);
    frame_int(sink, fields.recorded_at_unix_us);
    frame(sink, fields.recorded_by.as_bytes());
    frame(sink, fields.content_digest);
}

/// A value: the byte that says so, its length as 8 bytes big-endian, its bytes.
fn frame<S: Sink + ?Sized>(sink: &mut S, bytes: &[u8]) {
    let mut head = [VALUE; 9];
    head[1..].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
    sink.put(&head);
    sink.put(bytes);
}

/// An integer: framed, 8 bytes big-endian two's complement.
fn frame_int<S: Sink + ?Sized>(sink: &mut S, value: i64) {
    frame(sink, &value.to_be_bytes());
}

const SLOT_DOMAIN: &[u8] = b"eventstream/slot/1\0";

/// What says where a stream belongs wherever streams are spread: the same for ever, in every copy of its log.
#[must_use]
pub fn stream_hash(tenant_uuid: &Uuid, stream: &str) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(SLOT_DOMAIN);
    hasher.update(tenant_uuid);
    frame(&mut hasher, stream.as_bytes());
    hasher.finalize().into()
}

const FOLD_DOMAIN: &[u8] = b"eventstream/fold/1\0";
const SNAPSHOT_DOMAIN: &[u8] = b"eventstream/snapshot/1\0";

/// The fingerprint of a fold: over everything that its states depend on besides the events.
#[must_use]
pub fn fingerprint(parts: &[&str]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(FOLD_DOMAIN);
    for part in parts {
        frame(&mut hasher, part.as_bytes());
    }
    hasher.finalize().into()
}

/// What a snapshot's checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFields<'a> {
    /// Of the tenant.
    pub tenant_uuid: &'a Uuid,
    /// The stream's full name.
    pub stream: &'a str,
    /// The fold's name.
    pub fold: &'a str,
    /// The version the state is at.
    pub version: i64,
    /// Of the event at that version.
    pub chain_hash: &'a Hash,
    /// Of the fold.
    pub fingerprint: &'a Hash,
    /// The state as PostgreSQL prints it.
    pub state_text: &'a [u8],
}

/// The checksum of a snapshot.
#[must_use]
pub fn snapshot_checksum(fields: &SnapshotFields) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(SNAPSHOT_DOMAIN);
    frame(&mut hasher, fields.tenant_uuid);
    frame(&mut hasher, fields.stream.as_bytes());
    frame(&mut hasher, fields.fold.as_bytes());
    frame_int(&mut hasher, fields.version);
    frame(&mut hasher, fields.chain_hash);
    frame(&mut hasher, fields.fingerprint);
    frame(&mut hasher, fields.state_text);
    hasher.finalize().into()
}
