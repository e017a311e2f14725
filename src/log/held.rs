//! Streams that a decision is made behind the locks of: those that it may append to, and those that it begins elsewhere. What it appends is locked once more by its append, which
//! then waits for nobody.
use super::locks::MOST_NAMES;
use super::stream::{self, Absent, Hold, Locked, Stream};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::probe::{Presence, RowStrength};
use crate::shared::catalog::Catalog;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;

/// A stream as it is, for as long as its lock is held.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// None: there is none of that name, and nobody else makes one.
    pub stream: Option<Stream>,
    pub version: i64,
}

/// Whether a stream can be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// There is none, and nobody else makes one until the end of the transaction.
    Free,
    /// There is one.
    There,
    /// Somebody else is about to make it, or looks whether it is there.
    Busy,
}

/// Locks streams as an append does, until the end of the (sub)transaction; `names` in the order of the names. Errors: ES005 where too many of them are not there.
pub fn hold<'a>(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<(&'a str, Held)>> {
    // Who makes more streams than it can keep the names of meets those who found one absent by this, as those who check it; before all names.
    stream::tag_of_unnamed(catalog, tenant_id).share()?;
    let mut held = Vec::new();
    let mut absent = 0;
    for name in names {
        let stream = StreamName::parse_own(name)?;
        let (strength, absence) = (RowStrength::Append, Absent::Keep);
        let hold = Hold { strength, absent: absence, shares_name: false, partitions: 1, expected: 0 };
        held.push((
            name,
            match stream::lock(db, catalog, tenant_id, &stream, &hold)? {
                Locked::Existing(stream, head, _) => Held { stream: Some(stream), version: head.version },
                Locked::Free(_) | Locked::Made(_) | Locked::Missing => Held { stream: None, version: 0 },
            },
        ));
        absent += usize::from(held.last().is_some_and(|(_, held)| held.stream.is_none()));
        if absent > MOST_NAMES {
            return Err(Error::InvalidArgument {
                argument: "boundary".into(),
                reason: format!("must not name more than {MOST_NAMES} streams that have no events yet"),
                hint: Some("A decider may begin streams without naming them in its boundary.".into()),
            }
            .into());
        }
    }
    Ok(held)
}

/// Keeps the name of a stream that is to be begun, beside what is held already: out of the order of locks, and so without waiting.
pub fn begin(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName) -> Result<Begin> {
    let tag = stream::tag_of_name(catalog, tenant_id, name);
    if !tag.try_lock()? {
        return Ok(Begin::Busy);
    }
    let begin = match stream::with_name_probe(catalog, |probe| stream::presence(db, probe, tenant_id, name))? {
        Presence::Nowhere => return Ok(Begin::Free),
        Presence::There => Begin::There,
        Presence::Coming(_) => Begin::Busy,
    };
    tag.unlock()?;
    Ok(begin)
}
