//! A command as it was sent: checked before anything is locked, shown to its decider as a value of type eventstream.command, and told of in the metadata of the events that follow.
use super::covered;
use crate::log::document::{Document, print};
use crate::log::event::check_occurred_at;
use crate::log::target::Target;
use crate::log::{acting, metadata};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::process::server;
use crate::pg::value::composite::RowType;
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::{COMMAND, Catalog};
use crate::shared::trial;
use eventstream_core::command::key::{Repeated, check_key};
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::{EventType, StreamName, Subject};
use pgrx::pg_sys::Datum;
use std::collections::BTreeMap;

/// What es_command is given.
pub struct Given<'a> {
    pub stream: &'a str,
    pub command_type: &'a str,
    pub payload: Jsonb<'a>,
    pub expected_version: Option<i64>,
    pub metadata: Jsonb<'a>,
    pub key: Option<&'a str>,
    pub occurred_at: Option<i64>,
    pub decider: Option<&'a str>,
    pub subject: Option<&'a str>,
}

/// The same, checked.
pub struct Command<'a> {
    pub stream: StreamName<'a>,
    pub command_type: &'a str,
    pub payload: Document<'a>,
    pub expected: ExpectedVersion,
    pub key: Option<&'a str>,
    pub occurred_at: Option<i64>,
    pub decider: Option<&'a str>,
    pub subject: Option<&'a str>,
    /// As it was given.
    pub metadata: Document<'a>,
    /// It was scheduled, and is executed as it was kept: maybe since before something was protected that stands in its way.
    pub is_kept: bool,
}

/// Versions of streams, by their names.
pub type Versions<'a> = BTreeMap<&'a str, i64>;

impl<'a> Command<'a> {
    /// Errors: ES004, ES005, ES007.
    pub fn check(given: Given<'a>) -> Result<Self> {
        EventType::parse_as("command_type", given.command_type)?;
        if let Some(key) = given.key {
            check_key(key)?;
        }
        if let Some(occurred_at) = given.occurred_at {
            check_occurred_at(occurred_at)?;
        }
        if let Some(subject) = given.subject {
            Subject::parse(subject)?;
        }
        refuse_reserved(given.metadata)?;
        Ok(Self {
            stream: StreamName::parse_own(given.stream)?,
            command_type: given.command_type,
            payload: print("payload", given.payload)?,
            expected: ExpectedVersion::parse(given.expected_version)?,
            key: given.key,
            occurred_at: given.occurred_at,
            decider: given.decider,
            subject: given.subject,
            metadata: print("metadata", of_session(given.metadata)?)?,
            is_kept: false,
        })
    }

    /// What a repetition must have in common with it. Errors: ES016 where something stands in the way of what is protected of it.
    pub fn repeated(&self, target: Target) -> Result<Repeated<'_>> {
        Ok(Repeated {
            stream: self.stream.as_str(),
            command_type: self.command_type,
            payload: match covered::compared("command", target.id, self.command_type, &self.payload) {
                Err(failure) if self.is_kept && failure.is(covered::IN_THE_WAY) => self.payload.text,
                compared => compared?,
            },
            whole: self.payload.text,
            occurred_at: self.occurred_at,
        })
    }

    /// The command as a value of type eventstream.command, in the current memory context. `versions`: None before anything was looked at.
    pub fn value(&self, target: Target, versions: Option<&Versions>) -> Result<Datum> {
        let metadata = metadata::with_defaults(acting::complete(self.metadata.value)?)?;
        metadata::check(metadata, false)?;
        let decided_at = trial::clock();
        let version = versions.map(|versions| versions.get(self.stream.as_str()).copied().unwrap_or(0));
        let versions = versions.map(object_of_versions).transpose()?;
        // In the order of the type's columns (sql/schema/types.sql).
        let columns: [Nullable; COMMAND.len()] = [
            Some(from_text(self.command_type)?),
            Some(self.payload.value.datum()),
            Some(metadata.datum()),
            Some(from_text(self.stream.as_str())?),
            version.map(Datum::from),
            versions.map(Jsonb::datum),
            self.subject.map(from_text).transpose()?,
            Some(Datum::from(self.occurred_at.unwrap_or(decided_at))),
            Some(Datum::from(decided_at)),
            self.key.map(from_text).transpose()?,
            Some(from_text(target.name)?),
            Some(from_text(&server::role_name(server::current_role())?)?),
            actor(metadata)?.map(from_text).transpose()?,
        ];
        let values = columns.map(|column| column.unwrap_or(Datum::null()));
        let nulls = columns.map(|column| column.is_none());
        RowType::look_up(Catalog::current()?.command_type)?.record(&values, &nulls).flat()
    }

    /// The metadata of an event that follows: what the command has, what the decider says, and what was decided on. `read`: what was looked at and not written.
    pub fn metadata_of_event(&self, own: Option<Jsonb>, decider: &str, read: &serde_json::Value) -> Result<Jsonb<'a>> {
        let read = Jsonb::parse(&read.to_string())?;
        let mut object = ObjectBuilder::begin()?;
        object.put_all(self.metadata.value)?;
        own.map_or(Ok(()), |own| object.put_all(own))?;
        object.begin_member(metadata::COMMAND)?;
        object.put("type", Part::text(self.command_type))?;
        object.put("key", self.key.map_or(Part::null(), Part::text))?;
        object.put("decider", Part::text(decider))?;
        object.put("read", Part::all_of(read)?)?;
        object.end_member()?;
        object.finish()
    }

    /// Its metadata, and those that something which follows says itself.
    pub fn metadata_with<'r>(&self, own: Option<Jsonb>) -> Result<Jsonb<'r>> {
        let mut object = ObjectBuilder::begin()?;
        object.put_all(self.metadata.value)?;
        own.map_or(Ok(()), |own| object.put_all(own))?;
        object.finish()
    }
}

/// As a decider and a caller are told of them.
pub fn object_of_versions<'made>(versions: &Versions) -> Result<Jsonb<'made>> {
    let mut object = ObjectBuilder::begin()?;
    for (name, version) in versions {
        object.put(name, Part::integer(*version)?)?;
    }
    object.finish()
}

/// Metadata that say who decided what are written by es_command alone. Errors: ES005.
pub fn refuse_reserved(metadata: Jsonb) -> Result<()> {
    if !metadata.is_object() {
        return Err(invalid("metadata", "must be a JSON object"));
    }
    metadata::check(metadata, false)
}

/// Whoever speaks for the session says who acts: what a call claims of it counts only where the session says nothing.
fn of_session(given: Jsonb) -> Result<Jsonb> {
    // Who has a token is who that says (acting::complete).
    let Some(actor) = metadata::default_of("actor")? else { return Ok(given) };
    given.with_text("actor", &actor)
}

fn actor(metadata: Jsonb<'_>) -> Result<Option<&str>> {
    let mut actor = None;
    metadata.each(|key, value| {
        if let ("actor", Value::Text(name)) = (key, value) {
            actor = Some(name);
        }
        Ok(())
    })?;
    Ok(actor)
}
