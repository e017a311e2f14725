//! The answers of commands, kept by their keys for ever. Sole owner of the table command_answers.
//!
//! ```text
//! a key that was answered? ─▶ the answer: a read, without a transaction id, a lock or a position
//!          └─ not yet ─▶ the key's lock ─▶ one kept meanwhile? answered? scheduled for another request? ─▶ (executed) ─▶ kept, in the transaction of its events
//! ```
//! Promises: of all calls with a key one executes at a time, and none after one that committed; what is kept commits with the command's events, and is gone with their rollback;
//! a payload is kept as a salted digest only. SERIALIZABLE notes no dependency on the look: the lock and the unique index are what keeps commands in order.
use super::covered;
use super::scheduled::kept::{Kept, Standing, look};
use crate::log::first_append;
use crate::log::target::Target;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::jsonb::{Jsonb, Stored};
use crate::pg::process::lock::{self, LockTag};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::{number, table};
use crate::pg::query::insert::Inserter;
use crate::pg::query::probe::{Bound, Presence, Probe};
use crate::pg::value::datum::{from_text, varlena};
use crate::shared::catalog::Catalog;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use crate::shared::{kept_answers, server_run, transaction, trial};
use eventstream_core::command::key::Repeated;
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher};

table! {
    /// The table command_answers.
    pub mod kept;
    TENANT_ID,
    CATEGORY,
    COMMAND_KEY,
    STREAM,
    COMMAND_TYPE,
    SALT,
    REQUEST_DIGEST,
    ANSWER,
    DECIDER,
    ROLE,
    EXECUTED_AT,
}

/// The columns of the index command_answers_pkey, by their numbers.
const KEY: &[i16] = &[number(kept::TENANT_ID), number(kept::CATEGORY), number(kept::COMMAND_KEY)];

thread_local! {
    /// Of keys.
    static EXECUTING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static PROBE: RefCell<Option<(Oid, Probe)>> = const { RefCell::new(None) };
}

/// Whose key it is.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub target: Target<'a>,
    pub category: &'a str,
    pub key: &'a str,
}

/// A key that this call executes a command for.
pub struct Reserved {
    tag: LockTag,
    /// What is scheduled with it.
    pub kept: Option<Kept>,
    _executing: Executing,
}

/// Keeps a key among those that this session is executing commands for: its lock would not keep its own calls out.
struct Executing(u64);

impl Executing {
    /// Errors: ES005 where this call is a part of the command with that key.
    fn begin(key: &Key, hash: u64) -> Result<Self> {
        if EXECUTING.with_borrow(|hashes| hashes.contains(&hash)) {
            let reason = format!(
                "must not be that of the command which is being executed: {} is answered when it is over",
                shown(key.key)
            );
            return Err(invalid("command_key", reason));
        }
        EXECUTING.with_borrow_mut(|hashes| hashes.push(hash));
        Ok(Self(hash))
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        EXECUTING.with_borrow_mut(|hashes| hashes.retain(|hash| *hash != self.0));
    }
}

/// A look for a key without its lock that found no answer.
pub struct Glance {
    /// Nobody was executing a command with it either: so it is for as long as no more answers are kept (kept_answers.rs).
    nowhere_at: Option<u64>,
}

/// What was answered, and when.
pub type Answer<'r> = (Jsonb<'r>, i64);

/// What a look for a key behind its lock came to.
pub enum Turn<'r> {
    /// Somebody else has executed it meanwhile.
    Answered(Answer<'r>),
    /// It is this call's to execute.
    Own(Reserved),
}

/// The same where nobody has been told of it yet.
enum Found {
    Answered(Stored, i64),
    /// Of another request; when, where that is one of the same type for the same stream.
    Other(Option<i64>),
}

impl Key<'_> {
    /// The answer that a repetition is given, before anything is locked. Errors: ES030.
    pub fn glance<'r>(&self, repeated: &Repeated) -> Result<std::result::Result<Answer<'r>, Glance>> {
        let kept = kept_answers::count(self.hash());
        match self.found(repeated)? {
            (Presence::Nowhere, _) => Ok(Err(Glance { nowhere_at: kept })),
            (Presence::Coming(_), _) | (_, None) => Ok(Err(Glance { nowhere_at: None })),
            (Presence::There, Some(found)) => self.told(found, repeated).map(Ok),
        }
    }

    fn is_nowhere_since(&self, glance: &Glance) -> bool {
        glance.nowhere_at.is_some() && glance.nowhere_at == kept_answers::count(self.hash())
    }

    /// What is known of the key, others' open transactions included, and of the answer that is there.
    fn found(&self, repeated: &Repeated) -> Result<(Presence, Option<Found>)> {
        let mut found = None;
        let presence = self.probed(|db, probe, bounds| {
            probe.presence(db, Datum::from(self.target.id), bounds, |row| {
                let salt = row.bytes_opt(kept::SALT)?.unwrap_or_default();
                let is_same = repeated.has(salt, row.bytes_opt(kept::REQUEST_DIGEST)?, false);
                let executed_at = row.int8(kept::EXECUTED_AT)?;
                found = Some(match row.jsonb_opt(kept::ANSWER)? {
                    // Of a row that is left behind with the scan.
                    Some(answer) if is_same => Found::Answered(Stored::keep(answer), executed_at),
                    _ => {
                        let differs_in_digest = row.text(kept::STREAM)? == repeated.stream
                            && row.text(kept::COMMAND_TYPE)? == repeated.command_type;
                        Found::Other(differs_in_digest.then_some(executed_at))
                    }
                });
                Ok(())
            })
        })?;
        Ok((presence, found))
    }

    /// Errors: ES030.
    fn told<'r>(&self, found: Found, repeated: &Repeated) -> Result<Answer<'r>> {
        match found {
            Found::Answered(answer, executed_at) => {
                counters::add(Counter::CommandsReplayed, 1);
                // As it was given the first time, but for that.
                let mut object = ObjectBuilder::begin()?;
                object.put_all(Jsonb::of_datum(answer.datum()?)?)?;
                object.put("replayed", Part::boolean(true))?;
                Ok((object.finish()?, executed_at))
            }
            Found::Other(executed_at) => {
                let of = format!("category {}", shown(self.category));
                Err(covered::reused(self.target.id, repeated.command_type, of, self.key, executed_at)?.into())
            }
        }
    }

    /// Waits until nobody else executes a command with this key: behind the key's lock until an answer is written, and then for the end of the transaction that
    /// wrote it, or is scheduling it, so that a transaction has no lock for each of its commands. Errors: ES005, ES030.
    pub fn take_turn<'r>(&self, repeated: &Repeated, glance: Option<Glance>) -> Result<Turn<'r>> {
        let (executing, tag, mut glance) = (Executing::begin(self, self.hash())?, self.tag()?, glance);
        loop {
            tag.lock()?;
            let is_nowhere = glance.take().is_some_and(|glance| self.is_nowhere_since(&glance));
            let (presence, found) = if is_nowhere { (Presence::Nowhere, None) } else { self.found(repeated)? };
            let coming = match presence {
                Presence::Nowhere => match look(self.target, self.category, self.key, repeated)? {
                    Standing::Free => return Ok(Turn::Own(Reserved { tag, kept: None, _executing: executing })),
                    Standing::Scheduled(kept) => {
                        return Ok(Turn::Own(Reserved { tag, kept: Some(kept), _executing: executing }));
                    }
                    Standing::Coming(transaction) => Some(transaction),
                },
                Presence::Coming(transaction) => Some(transaction),
                Presence::There => None,
            };
            tag.unlock()?;
            if let Some(transaction) = coming {
                lock::wait_for_end_of(transaction)?;
            } else if let Some(found) = found {
                return self.told(found, repeated).map(Turn::Answered);
            }
        }
    }

    /// The same for whoever waits for nobody; None: somebody executes a command with this key. What is scheduled with it is the caller's to look at. Errors: ES005, ES030.
    pub fn try_turn<'r>(&self, repeated: &Repeated) -> Result<Option<Turn<'r>>> {
        let (executing, tag) = (Executing::begin(self, self.hash())?, self.tag()?);
        if !tag.try_lock()? {
            return Ok(None);
        }
        let (presence, found) = self.found(repeated)?;
        if presence == Presence::Nowhere {
            return Ok(Some(Turn::Own(Reserved { tag, kept: None, _executing: executing })));
        }
        tag.unlock()?;
        found.map(|found| self.told(found, repeated).map(Turn::Answered)).transpose()
    }

    /// Whether somebody executes a command with it now, or has in a transaction that is open.
    pub fn is_in_hand(&self) -> Result<bool> {
        let tag = self.tag()?;
        if !tag.try_lock()? {
            return Ok(true);
        }
        let presence = self.presence()?;
        tag.unlock()?;
        Ok(matches!(presence, Presence::Coming(_)))
    }

    /// Whether it has an answer, or gets one if a transaction that is open commits.
    pub fn is_taken(&self) -> Result<bool> {
        Ok(self.presence()? != Presence::Nowhere)
    }

    fn presence(&self) -> Result<Presence> {
        self.probed(|db, probe, bounds| probe.presence(db, Datum::from(self.target.id), bounds, |_| Ok(())))
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // With what nobody knows: who sees locks guesses no keys.
        (server_run::id(), self.target.id, self.category, trial::key(self.key)).hash(&mut hasher);
        hasher.finish()
    }

    /// Two keys in 2^48 share it, and wait for each other.
    fn tag(&self) -> Result<LockTag> {
        let hash = self.hash();
        Ok(LockTag { table: Catalog::current()?.command_answers, object: hash as i64, part: (hash >> 48) as u16 })
    }

    fn probed<T>(&self, look: impl FnOnce(&Db, &Probe, &[Bound]) -> Result<T>) -> Result<T> {
        as_owner(Planning::ByIndex, |db, catalog| {
            let bounds = [
                Bound::equal_text(2, from_text(self.category)?),
                Bound::equal_text(3, from_text(&trial::key(self.key))?),
            ];
            let probe = PROBE.take().filter(|(table, _)| *table == catalog.command_answers);
            let (table, probe) =
                probe.unwrap_or((catalog.command_answers, Probe::by_int8(catalog.command_answers, KEY)));
            let found = look(db, &probe, &bounds)?;
            PROBE.set(Some((table, probe)));
            Ok(found)
        })
    }

    /// Keeps what a repetition is to be answered, until the end of the log.
    pub fn keep(&self, repeated: &Repeated, answer: Jsonb, decider: &str) -> Result<()> {
        let role = server::role_name(server::current_role())?;
        as_owner(Planning::ByIndex, |db, catalog| {
            first_append::note(db, catalog)?;
            // Its commit is as durable as an append's, also where it has no events.
            transaction::note_append();
            let salt = server::random_bytes()?;
            // In the order of the table's columns (sql/command/tables.sql).
            let row = [
                Some(Datum::from(self.target.id)),
                Some(from_text(self.category)?),
                Some(from_text(&trial::key(self.key))?),
                Some(from_text(repeated.stream)?),
                Some(from_text(repeated.command_type)?),
                Some(varlena(&salt)?),
                Some(varlena(&repeated.digest(&salt))?),
                Some(answer.datum()),
                Some(from_text(decider)?),
                Some(from_text(&role)?),
                Some(Datum::from(server::clock())),
            ];
            let mut inserter = Inserter::open(db, catalog.command_answers)?;
            inserter.put(&row)?;
            inserter.close()
        })?;
        kept_answers::note(self.hash());
        Ok(())
    }
}

impl Reserved {
    /// Its answer is written.
    pub fn let_go(self) -> Result<()> {
        self.tag.unlock()
    }
}
