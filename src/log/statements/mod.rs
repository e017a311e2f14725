//! The statements that look up and read events in one partition: finding.rs, reading.rs, verifying.rs, tagged.rs, offers.rs. `{events}` is the partition's table, `{tags}` that of its tags: appends, heads
//! and stream reads never plan over all partitions. `x + 0 = …` keeps a condition away from an index that must not be used, and so does a
//! comparison of rows: `(category, global_position) > (…)` can only be asked of the index that has them in this order.
use crate::pg::query::columns::table;
use pgrx::pg_sys::{INT2OID, INT8OID, Oid, TEXTOID};

mod definition;
mod finding;
mod offers;
mod reading;
mod tagged;
mod verifying;

use definition::Definition;
pub use finding::tally;
pub use offers::fact;
pub use reading::size;
pub use verifying::verified;

table! {
    /// The table events, and each of its partitions.
    pub mod column;
    TENANT_ID,
    STREAM_ID,
    VERSION,
    GLOBAL_POSITION,
    OCCURRED_AT,
    MAX_OCCURRED_AT,
    RECORDED_AT,
    EVENT_ID,
    SCHEMA_VERSION,
    EVENT_TYPE,
    CATEGORY,
    RECORDED_BY,
    SUBJECT,
    RECORDED_FROM,
    SALT,
    CHAIN_HASH,
    PAYLOAD,
    METADATA,
    TAGS,
}

table! {
    /// The table streams.
    pub mod stream_column;
    ID,
    TENANT_ID,
    FIRST_POSITION,
    NAME,
    CATEGORY,
    SLOT,
}

table! {
    /// The table stream_segments.
    pub mod segment;
    STREAM_ID,
    PARTITION,
    FIRST_VERSION,
    FIRST_POSITION,
}

table! {
    /// The table event_tags, and each of its partitions.
    pub mod tag_column;
    TENANT_ID,
    TAG,
    GLOBAL_POSITION,
}

table! {
    /// The table tag_partitions.
    pub mod tag_partition;
    TENANT_ID,
    TAG,
    PARTITION,
}

/// What is asked of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    Newest,
    Oldest,
    Exists,
    HeadUpTo,
    ByVersions,
    ReadForward,
    ReadBackward,
    LogAll,
    LogByCategory,
    LogBackward,
    ByEventId,
    Size,
    Verify,
    VerifyStream,
    MissingFirst,
    MissingSegments,
    MissingOfStream,
    Places,
    NewestWithin,
    RecordedLast,
    OffersAll,
    OffersByCategory,
    OffersAt,
    OffersOfStream,
    FactsAt,
    EventsAt,
    EventsAtBackward,
    StreamsFrom,
    Tally,
    TagsWithin,
    LostTags,
    LostTagsOfStream,
    StrayTags,
    UnlistedTags,
    FirstTagLost,
    LastTagLost,
}

pub const STATEMENTS: usize = Statement::LastTagLost as usize + 1;

impl Statement {
    /// The SQL, and the types of its parameters.
    pub fn definition(self) -> Definition {
        match self {
            Statement::Newest => finding::NEWEST,
            Statement::Oldest => finding::OLDEST,
            Statement::Exists => finding::EXISTS,
            Statement::HeadUpTo => finding::HEAD_UP_TO,
            Statement::ByVersions => reading::BY_VERSIONS,
            Statement::ReadForward => reading::READ_FORWARD,
            Statement::ReadBackward => reading::READ_BACKWARD,
            Statement::LogAll => reading::LOG_ALL,
            Statement::LogByCategory => reading::LOG_BY_CATEGORY,
            Statement::LogBackward => reading::LOG_BACKWARD,
            Statement::ByEventId => reading::BY_EVENT_ID,
            Statement::Size => reading::SIZE,
            Statement::Verify => verifying::VERIFY,
            Statement::VerifyStream => verifying::VERIFY_STREAM,
            Statement::MissingFirst => verifying::MISSING_FIRST,
            Statement::MissingSegments => verifying::MISSING_SEGMENTS,
            Statement::MissingOfStream => verifying::MISSING_OF_STREAM,
            Statement::Places => finding::PLACES,
            Statement::NewestWithin => finding::NEWEST_WITHIN,
            Statement::RecordedLast => finding::RECORDED_LAST,
            Statement::OffersAll => offers::OFFERS_ALL,
            Statement::OffersByCategory => offers::OFFERS_BY_CATEGORY,
            Statement::OffersAt => offers::OFFERS_AT,
            Statement::OffersOfStream => offers::OFFERS_OF_STREAM,
            Statement::FactsAt => offers::FACTS_AT,
            Statement::EventsAt => reading::EVENTS_AT,
            Statement::EventsAtBackward => reading::EVENTS_AT_BACKWARD,
            Statement::StreamsFrom => finding::STREAMS_FROM,
            Statement::Tally => finding::TALLY,
            Statement::TagsWithin => tagged::TAGS_WITHIN,
            Statement::LostTags => tagged::LOST_TAGS,
            Statement::LostTagsOfStream => tagged::LOST_TAGS_OF_STREAM,
            Statement::StrayTags => tagged::STRAY_TAGS,
            Statement::UnlistedTags => tagged::UNLISTED_TAGS,
            Statement::FirstTagLost => tagged::FIRST_TAG_LOST,
            Statement::LastTagLost => tagged::LAST_TAG_LOST,
        }
    }
}

/// Parameters of the statements in `stream.rs`.
pub const STREAM_KEY: &[Oid] = &[INT8OID, TEXTOID];
pub const STREAM_ROW: &[Oid] = &[INT8OID, TEXTOID, TEXTOID, INT8OID, INT2OID];
pub const STREAM_AND_POSITION: &[Oid] = &[INT8OID, INT8OID];
pub const STREAM_PAGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
