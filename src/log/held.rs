//! Streams that a decision is made behind the locks of: those that it may append to, and those that it begins elsewhere. Its append is told of their heads: behind the locks nobody else
//! appends, and the decider only reads.
use super::behind_lock::Known;
use super::locks::MOST_NAMES;
use super::names;
use super::stream::{self, Absent, Hold, Locked};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::View;
use crate::pg::query::probe::{Presence, RowStrength};
use crate::shared::catalog::Catalog;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::name::StreamName;

/// A stream as it is, for as long as its lock is held.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// None: there is none of that name, and nobody else makes one.
    pub known: Option<Known>,
}

impl Held {
    pub fn version(&self) -> i64 {
        self.known.as_ref().map_or(0, |known| known.head.version)
    }
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

/// Streams that were locked.
pub struct Holding<'a> {
    pub streams: Vec<(&'a str, Held)>,
    /// Whether those are kept out who make more streams than they can keep the names of: needed where one was found absent.
    pub keeps_unnamed_out: bool,
}

/// Locks streams as an append does, until the end of the (sub)transaction; `names` in the order of the names, each with whether the boundary has it. Who makes more streams than it can keep
/// the names of is kept out before all names where that is known to be needed; where it is found out later it is tried, and None where somebody is in the way. Errors: ES005 where too many
/// of the boundary's are not there.
pub fn hold<'a>(
    db: &Db,
    catalog: &Catalog,
    tenant_id: i64,
    names: impl Iterator<Item = (&'a str, bool)>,
    keeps_unnamed_out: bool,
) -> Result<Option<Holding<'a>>> {
    if keeps_unnamed_out {
        names::tag_of_unnamed(catalog, tenant_id).share()?;
    }
    let mut holding = Holding { streams: Vec::new(), keeps_unnamed_out };
    let mut absent = 0;
    for (name, is_of_boundary) in names {
        let stream = StreamName::parse_own(name)?;
        let (strength, absence) = (RowStrength::Append, Absent::Keep);
        let hold = Hold { strength, absent: absence, shares_name: false, partitions: 1, expected: 0 };
        if let Locked::Existing(stream, head, _) = stream::lock(db, catalog, tenant_id, &stream, &hold)? {
            holding.streams.push((name, Held { known: Some(Known { stream, head }) }));
            continue;
        }
        holding.streams.push((name, Held::default()));
        holding.keeps_unnamed_out = holding.keeps_unnamed_out || keep_unnamed_out(catalog, tenant_id)?;
        if !holding.keeps_unnamed_out {
            return Ok(None);
        }
        absent += usize::from(is_of_boundary);
        if absent > MOST_NAMES {
            return Err(Error::InvalidArgument {
                argument: "boundary".into(),
                reason: format!("must not name more than {MOST_NAMES} streams that have no events yet"),
                hint: Some("A decider may begin streams without naming them in its boundary.".into()),
            }
            .into());
        }
    }
    Ok(Some(holding))
}

/// Keeps the name of a stream that is to be begun, beside what is held already: out of the order of locks, and so without waiting.
pub fn begin(db: &Db, catalog: &Catalog, tenant_id: i64, name: &StreamName) -> Result<Begin> {
    if trial::is_on() && stream::probe_name(db, catalog, View::Latest, tenant_id, name)?.is_none() {
        return Ok(Begin::Free);
    }
    let tag = names::tag_of_name(catalog, tenant_id, name);
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

/// Tries to keep out who makes more streams than it can keep the names of; whether that was had.
pub fn keep_unnamed_out(catalog: &Catalog, tenant_id: i64) -> Result<bool> {
    names::tag_of_unnamed(catalog, tenant_id).try_share()
}

/// Once all is written, who meets the row of a stream that was begun waits for this transaction: the names of streams that were found absent are let go, but for those that stay so and were
/// decided on (`is_needed`), which are kept until the end of the transaction.
pub fn let_names_go<'a>(
    catalog: &Catalog,
    tenant_id: i64,
    absent: impl Iterator<Item = (&'a str, bool)>,
    keeps_unnamed_out: bool,
) -> Result<()> {
    if trial::is_on() {
        // A test keeps none.
        return Ok(());
    }
    let mut is_any_needed = false;
    for (name, is_needed) in absent {
        is_any_needed |= is_needed;
        if !is_needed {
            names::tag_of_name(catalog, tenant_id, &StreamName::parse_own(name)?).unlock()?;
        }
    }
    if keeps_unnamed_out && !is_any_needed {
        names::tag_of_unnamed(catalog, tenant_id).end_sharing()?;
    }
    Ok(())
}
