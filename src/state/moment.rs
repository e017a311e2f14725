//! Which events count at a moment. In valid time they are a prefix of versions, found by binary search on max_occurred_at, and
//! the few late events behind it; in transaction time they are a prefix, because recorded_at never falls along a stream.
use crate::log::scan::{Late, Opened};
use crate::pg::error::failure::Result;
use crate::pg::process::memory::List;
use crate::pg::process::session::Db;

/// A moment in valid time, in transaction time, and in versions; None: no bound. Times in microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    pub as_of: Option<i64>,
    pub known_at: Option<i64>,
    pub version: Option<i64>,
}

impl Moment {
    pub const NOW: Self = Self { as_of: None, known_at: None, version: None };
}

/// The events that count.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// None after this version counts.
    pub newest: i64,
    /// All up to this version count.
    pub prefix: i64,
    /// Of those in between, late ones count that occurred up to here.
    pub as_of: i64,
}

impl Selection {
    pub fn of(db: &Db, opened: &Opened, moment: Moment) -> Result<Self> {
        let mut newest = opened.head.version;
        if let Some(version) = moment.version {
            newest = newest.min(version);
        }
        if let Some(known_at) = moment.known_at {
            newest = opened.known_at(db, newest, known_at)?;
        }
        let as_of = moment.as_of.unwrap_or(i64::MAX);
        let prefix = if as_of == i64::MAX { newest } else { opened.until(db, newest, as_of)? };
        Ok(Self { newest, prefix, as_of })
    }

    /// All up to a version.
    pub fn up_to(version: i64) -> Self {
        Self { newest: version, prefix: version, as_of: i64::MAX }
    }

    /// The late events after `version` that count, in the order of versions.
    pub fn lates_after(&self, db: &Db, opened: &Opened, version: i64) -> Result<List<Late>> {
        if version >= self.newest { List::new() } else { opened.lates(db, version + 1, self.newest, self.as_of) }
    }

    /// Whether every event that counts is in the prefix, without a look at the late ones.
    pub fn is_prefix(&self) -> bool {
        self.prefix == self.newest
    }
}
