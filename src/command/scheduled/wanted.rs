//! A command that is to be executed later: checked as it would be now, and kept.
use super::super::answers::{Key, Turn};
use super::super::commanded::{Command, Given, refuse_reserved};
use super::super::{covered, deciders, ended};
use crate::log::fresh_id::new_event_id;
use crate::log::target::Target;
use crate::log::{acting, activation, first_append, gate, metadata};
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, varlena};
use crate::shared::board;
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use crate::shared::{transaction, trial};
use eventstream_core::command::scheduled::Stage;
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::shown;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::{BYTEAOID, Datum, INT8OID, JSONBOID, OIDOID, TEXTOID, TIMESTAMPTZOID};

columns! {
    mod of, selected;
    SALT = "salt",
    REQUEST_DIGEST = "request_digest",
    STAGE = "stage",
    RUN_AT = "run_at",
    STREAM = "stream",
    COMMAND_TYPE = "command_type",
    SCHEDULED_AT = "scheduled_at",
}

thread_local! {
    static INSERT: Plan = const { Plan::new(
        "insert into _eventstream.scheduled_commands (tenant_id, command_key, category, stream, command_type, salt, request_digest, payload, metadata, \
                                                      decider, subject, run_at, due_at, registrant, registrant_oid, recorded_by) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15) on conflict (tenant_id, command_key, category) do nothing",
        &[
            INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BYTEAOID, BYTEAOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, OIDOID,
            TEXTOID,
        ],
    ) };
    static LOOK: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from _eventstream.scheduled_commands where tenant_id = $1 and command_key = $2 and category = $3"
        ),
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
}

/// A command, and when it is to be executed (microseconds since 2000-01-01 UTC).
pub struct Wanted<'a> {
    pub command: Command<'a>,
    pub run_at: i64,
}

/// What is scheduled under a key.
struct Found {
    /// It is this request.
    is_same: bool,
    /// It differs in nothing but a digest; when it was kept.
    kept_at: Option<i64>,
    stage: String,
    run_at: i64,
}

/// What is not known to be another request, and not to be the same.
const HIDDEN: &str = "a request of which fields are protected since, or protected otherwise";

fn gone() -> Failure {
    Error::Internal { what: "a scheduled command is gone".into() }.into()
}

/// How a scheduled command stands.
pub struct Scheduled {
    pub key: String,
    pub stage: String,
    pub run_at: i64,
    /// It was scheduled before, for that time.
    pub replayed: bool,
}

impl<'a> Wanted<'a> {
    /// Errors: ES004, ES005, ES007.
    pub fn check(given: Given<'a>, run_at: i64) -> Result<Self> {
        // DT_NOBEGIN and DT_NOEND of datatype/timestamp.h.
        if run_at == i64::MIN || run_at == i64::MAX {
            return Err(invalid("run_at", "must be finite"));
        }
        refuse_reserved(given.metadata)?;
        // Who asked for it is known now: a runner has no session of theirs.
        let metadata = metadata::with_defaults(acting::complete(given.metadata)?)?;
        metadata::check(metadata, false)?;
        Ok(Self { command: Command::check(Given { metadata, ..given })?, run_at })
    }

    /// For a decider, which is not told how it stands: what was scheduled before is so still, for the same time. It waits for nobody who executes the key, since the decision's streams are locked by
    /// now. Errors: as [`Self::schedule`]; ES030 otherwise, which says how it stands.
    pub fn schedule_unseen(&self, target: Target, decider: &str) -> Result<()> {
        let (category, name) = (self.command.stream.category(), self.checked(target)?);
        let key = Key { target, category, key: &name };
        if let Some(found) = self.look(target, category, &name)? {
            return self.same_as(target, &found, decider, &name);
        }
        let turn = match key.try_turn(&self.command.repeated(target)?) {
            Ok(Some(Turn::Answered(_))) => {
                return Err(self.before(decider, &name, "it was executed before".into(), None));
            }
            Ok(Some(Turn::Own(reserved))) => Some(reserved),
            Ok(None) => None,
            Err(Failure::Rule(Error::CommandKeyReused { .. })) => {
                return Err(self.before(decider, &name, "it was used for another request".into(), None));
            }
            Err(Failure::Rule(Error::CommandKeyHidden { .. })) => {
                return Err(self.before(decider, &name, format!("it was used for {HIDDEN}"), None));
            }
            Err(failure) => return Err(failure),
        };
        let is_new = self.insert(target, category, &name)?;
        match turn {
            Some(reserved) => reserved.let_go()?,
            // Whoever executes it looks once more when its answer is written, and this when the row is.
            None if is_new && key.is_taken()? => {
                return Err(self.before(decider, &name, "it is being executed".into(), None));
            }
            None => {}
        }
        if is_new {
            board::note_due_at_commit(self.run_at);
            return Ok(());
        }
        let found = self.look(target, category, &name)?;
        self.same_as(target, &found.ok_or_else(gone)?, decider, &name)
    }

    /// Errors: ES030 where what was scheduled before is not the same, pending, and for the same time.
    fn same_as(&self, target: Target, found: &Found, decider: &str, key: &str) -> Result<()> {
        let Found { is_same, stage, run_at, .. } = found;
        let is_pending = stage == Stage::Pending.as_str();
        if is_pending && *is_same && *run_at == self.run_at {
            return Ok(());
        }
        let request = match (is_same, self.refusal(target, found, key)?) {
            (true, _) => String::new(),
            (_, Error::CommandKeyHidden { .. }) => format!(" for {HIDDEN}"),
            _ => " for another request".into(),
        };
        let stands = if is_pending {
            format!("it is scheduled{request} and pending, for {}", server::print_time_utc(*run_at)?)
        } else {
            format!("it was scheduled{request} before, and is {stage}")
        };
        Err(self.before(decider, key, stands, Some(stage.clone())))
    }

    fn before(&self, decider: &str, key: &str, stands: String, stage: Option<String>) -> Failure {
        let category = self.command.stream.category().to_owned();
        let before = Undecided::ScheduledBefore { decider: decider.into(), key: key.into(), category, stands, stage };
        Error::Undecided(Box::new(before)).into()
    }

    /// Of what is not this request.
    fn refusal(&self, target: Target, found: &Found, key: &str) -> Result<Error> {
        let of = format!("category {}", shown(self.command.stream.category()));
        covered::reused(target.id, self.command.command_type, of, key, found.kept_at)
    }

    /// The key. Errors: ES026, ES035, ES036, ES016.
    fn checked(&self, target: Target) -> Result<String> {
        server::must_be_writable(c"es_schedule_command")?;
        activation::must_be_active("es_schedule_command")?;
        let decider = deciders::of(target.id, self.command.stream.category(), self.command.decider)?;
        decider.must_take(self.command.command_type, self.command.payload.text)?;
        match self.command.key {
            Some(key) => Ok(key.to_owned()),
            None => Ok(to_uuid_text(&new_event_id()?)),
        }
    }

    /// Waits for whoever executes the key, or schedules it, and for who has the tenant's gate alone. Errors: ES026, ES030, ES035, ES036, ES016, ES045.
    pub fn schedule(&self, target: Target) -> Result<Scheduled> {
        let (category, key) = (self.command.stream.category(), self.checked(target)?);
        gate::enter(target.id)?;
        let scheduled = |key, stage: String, run_at, replayed| Ok(Scheduled { key, stage, run_at, replayed });
        match (Key { target, category, key: &key }).take_turn(&self.command.repeated(target)?, None)? {
            // Nothing is left to be done at its time.
            Turn::Answered(_) if self.look(target, category, &key)?.is_none() => {
                return scheduled(key, Stage::Done.as_str().into(), self.run_at, true);
            }
            Turn::Answered(_) => {}
            Turn::Own(reserved) => {
                ended::must_be_open(target.id)?;
                let is_new = self.insert(target, category, &key)?;
                reserved.let_go()?;
                if is_new {
                    board::note_due_at_commit(self.run_at);
                    return scheduled(key, Stage::Pending.as_str().into(), self.run_at, false);
                }
            }
        }
        let (stage, run_at) = self.known(target, category, &key)?;
        scheduled(key, stage, run_at, true)
    }

    /// False where the key is scheduled already; waits for whoever schedules it now.
    fn insert(&self, target: Target, category: &str, key: &str) -> Result<bool> {
        let role = server::current_role();
        let (role_name, recorded_by) = (server::role_name(role)?, acting::recorded_by()?);
        let salt = server::random_bytes()?;
        let row = [
            Some(Datum::from(target.id)),
            Some(from_text(&trial::key(key))?),
            Some(from_text(category)?),
            Some(from_text(self.command.stream.as_str())?),
            Some(from_text(self.command.command_type)?),
            Some(varlena(&salt)?),
            Some(varlena(&self.command.repeated(target)?.digest(&salt))?),
            Some(self.command.payload.value.datum()),
            Some(self.command.metadata.value.datum()),
            self.command.decider.map(from_text).transpose()?,
            self.command.subject.map(from_text).transpose()?,
            Some(Datum::from(self.run_at)),
            Some(from_text(&role_name)?),
            Some(Datum::from(role)),
            Some(from_text(&recorded_by)?),
        ];
        as_owner(Planning::ByIndex, |db, catalog| {
            first_append::note(db, catalog)?;
            // What was promised to be done is not lost.
            transaction::note_append();
            INSERT.with(|plan| plan.write(db, &row)).map(|rows| rows == 1)
        })
    }

    /// The stage and the time of what was scheduled under the key before. Errors: ES030.
    fn known(&self, target: Target, category: &str, key: &str) -> Result<(String, i64)> {
        let found = self.look(target, category, key)?.ok_or_else(gone)?;
        if !found.is_same {
            return Err(self.refusal(target, &found, key)?.into());
        }
        counters::add(Counter::CommandsReplayed, 1);
        Ok((found.stage, found.run_at))
    }

    /// Whether what is scheduled under the key is this request, its stage and its time; None: nothing is.
    fn look(&self, target: Target, category: &str, key: &str) -> Result<Option<Found>> {
        let row: [Nullable; 3] =
            [Some(Datum::from(target.id)), Some(from_text(&trial::key(key))?), Some(from_text(category)?)];
        let repeated = self.command.repeated(target)?;
        as_owner(Planning::ByIndex, |db, _| {
            LOOK.with(|plan| {
                plan.first(db, View::Latest, &row, |row| {
                    let is_same = repeated.has(
                        row.bytes_opt(of::SALT)?.unwrap_or_default(),
                        row.bytes_opt(of::REQUEST_DIGEST)?,
                        false,
                    );
                    let differs_in_digest = row.text(of::STREAM)? == repeated.stream
                        && row.text(of::COMMAND_TYPE)? == repeated.command_type;
                    let kept_at = differs_in_digest.then_some(row.int8(of::SCHEDULED_AT)?);
                    Ok(Found {
                        is_same,
                        kept_at,
                        stage: row.text(of::STAGE)?.to_owned(),
                        run_at: row.int8(of::RUN_AT)?,
                    })
                })
            })
        })
    }
}
