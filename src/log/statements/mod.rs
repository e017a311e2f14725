//! The statements that look up and read events in one partition: finding.rs, reading.rs, verifying.rs, offers.rs. `{events}` is the partition's table: appends, heads
//! and stream reads never plan over all partitions. `x + 0 = …` keeps a condition away from an index that must not be used, and so does a
//! comparison of rows: `(category, global_position) > (…)` can only be asked of the index that has them in this order.
use pgrx::pg_sys::{INT2OID, INT8OID, Oid, TEXTOID};

/// Whether a filter lets an event through: event types, and what upcasters turn into one of them, as `schema version:event type`.
macro_rules! wanted {
    ($types:literal, $older:literal) => {
        concat!(
            "(",
            $types,
            " is null or event_type = any (",
            $types,
            ") or ",
            $older,
            " is not null and schema_version::text || ':' || event_type = any (",
            $older,
            "))"
        )
    };
}

mod definition;
mod finding;
mod offers;
mod reading;
mod verifying;

use definition::Definition;
pub use offers::fact;
pub use reading::size;
pub use verifying::verified;

/// Places of the columns of a row of events, from 0, in the order of sql/log/tables.sql.
pub mod column {
    pub const TENANT_ID: usize = 0;
    pub const STREAM_ID: usize = 1;
    pub const VERSION: usize = 2;
    pub const GLOBAL_POSITION: usize = 3;
    pub const OCCURRED_AT: usize = 4;
    pub const MAX_OCCURRED_AT: usize = 5;
    pub const RECORDED_AT: usize = 6;
    pub const EVENT_ID: usize = 7;
    pub const SCHEMA_VERSION: usize = 8;
    pub const EVENT_TYPE: usize = 9;
    pub const CATEGORY: usize = 10;
    pub const RECORDED_BY: usize = 11;
    pub const SUBJECT: usize = 12;
    pub const SALT: usize = 14;
    pub const CHAIN_HASH: usize = 15;
    pub const PAYLOAD: usize = 16;
    pub const METADATA: usize = 17;
    pub const TAGS: usize = 18;
}

/// Places of the columns of a row of stream_segments, and its key by number, from 1.
pub mod segment {
    pub const PARTITION: usize = 1;
    pub const FIRST_VERSION: usize = 2;
    pub const KEY: &[i16] = &[1, 2];
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
    BySubject,
    ByEventId,
    Size,
    Verify,
    VerifyStream,
    MissingFirst,
    MissingSegments,
    MissingOfStream,
    Places,
    NewestWithin,
    OffersAll,
    OffersByCategory,
    OffersAt,
    OffersOfStream,
    FactsAt,
    EventsAt,
    EventsAtBackward,
    StreamsFrom,
}

pub const STATEMENTS: usize = Statement::StreamsFrom as usize + 1;

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
            Statement::BySubject => reading::BY_SUBJECT,
            Statement::ByEventId => reading::BY_EVENT_ID,
            Statement::Size => reading::SIZE,
            Statement::Verify => verifying::VERIFY,
            Statement::VerifyStream => verifying::VERIFY_STREAM,
            Statement::MissingFirst => verifying::MISSING_FIRST,
            Statement::MissingSegments => verifying::MISSING_SEGMENTS,
            Statement::MissingOfStream => verifying::MISSING_OF_STREAM,
            Statement::Places => finding::PLACES,
            Statement::NewestWithin => finding::NEWEST_WITHIN,
            Statement::OffersAll => offers::OFFERS_ALL,
            Statement::OffersByCategory => offers::OFFERS_BY_CATEGORY,
            Statement::OffersAt => offers::OFFERS_AT,
            Statement::OffersOfStream => offers::OFFERS_OF_STREAM,
            Statement::FactsAt => offers::FACTS_AT,
            Statement::EventsAt => reading::EVENTS_AT,
            Statement::EventsAtBackward => reading::EVENTS_AT_BACKWARD,
            Statement::StreamsFrom => finding::STREAMS_FROM,
        }
    }
}

/// Parameters of the statements in `stream.rs`.
pub const STREAM_KEY: &[Oid] = &[INT8OID, TEXTOID];
pub const STREAM_ROW: &[Oid] = &[INT8OID, TEXTOID, TEXTOID, INT8OID, INT2OID];
pub const STREAM_AND_POSITION: &[Oid] = &[INT8OID, INT8OID];
pub const STREAM_PAGE: &[Oid] = &[INT8OID, INT8OID, INT8OID];
