//! What a decider's answer wants later: commands to be scheduled, and keys of scheduled ones that are not wanted any more. Read with the answer, and done behind the locks of
//! the decision, before it is appended: what is waited for there holds up no reader of the log.
use super::commanded::{Given, refuse_reserved};
use super::covered;
use super::deciding::Deciding;
use super::scheduled::unwanted::{Unwanted, check_reason};
use super::scheduled::wanted::Wanted;
use crate::access::authorize;
use crate::log::event::moment_of;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::{Jsonb, Shape, Value};
use crate::shared::settings;
use eventstream_core::command::decided::{ScheduleElement, UnscheduleElement};
use eventstream_core::command::key::check_key;
use eventstream_core::error::Error;
use eventstream_core::name::{Category, StreamName};
use eventstream_core::privilege::Privilege;
use std::collections::BTreeSet;

/// Why, where the decider does not say.
const REASON: &str = "by the decider of a command";

/// What is wanted later, and what is not.
#[derive(Default)]
pub struct Later<'a> {
    wanted: Vec<Wanted<'a>>,
    /// Their places in the answer.
    documents: Vec<Jsonb<'a>>,
    /// In the order of their keys, so that no two decisions wait for each other in a circle.
    unwanted: BTreeSet<Unwanted<'a>>,
}

impl<'a> Later<'a> {
    /// Of the members `schedule` and `unschedule`. Errors: ES005, named by the place within the answer, ES007.
    pub fn read(deciding: &Deciding<'a>, schedule: Option<Jsonb<'a>>, unschedule: Option<Jsonb<'a>>) -> Result<Self> {
        let mut later = Self::default();
        each(deciding, "answer.schedule", schedule, |element| {
            later.wanted.push(wanted(deciding, element)?);
            later.documents.push(element.document()?);
            Ok(())
        })?;
        each(deciding, "answer.unschedule", unschedule, |element| {
            later.unwanted.insert(unwanted(deciding, element)?);
            Ok(())
        })?;
        Ok(later)
    }

    /// Takes out of what is told of them what is protected.
    pub fn hide(&mut self, tenant_id: i64) -> Result<()> {
        for (document, Wanted { command, .. }) in self.documents.iter_mut().zip(&self.wanted) {
            *document = covered::scheduled(tenant_id, command.command_type, *document)?;
        }
        Ok(())
    }

    /// The commands that are to be scheduled, as they were answered.
    pub fn documents(&self) -> &[Jsonb<'a>] {
        &self.documents
    }

    /// The keys that are not wanted any more, each with its category.
    pub fn unwanted(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unwanted.iter().map(|unwanted| (unwanted.key, unwanted.category))
    }

    /// That the caller may do so. Errors: 42501.
    pub fn authorize(&self) -> Result<()> {
        let wanted = self.wanted.iter().map(|wanted| wanted.command.stream.category());
        for category in wanted.chain(self.unwanted.iter().map(|unwanted| unwanted.category)) {
            authorize(Privilege::Command, category)?;
        }
        Ok(())
    }

    /// Does it, as that decider answered. Errors: 42501, ES026, ES030, ES035, ES036, ES016.
    pub fn arrange(&self, target: Target, decider: &str) -> Result<()> {
        self.authorize()?;
        for unwanted in &self.unwanted {
            unwanted.unschedule(target)?;
        }
        let mut wanted: Vec<&Wanted> = self.wanted.iter().collect();
        wanted.sort_by_key(|wanted| (wanted.command.key, wanted.command.stream.category()));
        wanted.into_iter().try_for_each(|wanted| wanted.schedule_unseen(target, decider))
    }
}

/// Calls `work` with each element of an array at that place.
fn each<'a>(
    deciding: &Deciding<'a>,
    place: &str,
    array: Option<Jsonb<'a>>,
    mut work: impl FnMut(Value<'a>) -> Result<()>,
) -> Result<()> {
    let Some(array) = array else { return Ok(()) };
    if array.shape() != Shape::Array {
        return Err(invalid(place, "must be an array"));
    }
    let (limit, count) = (settings::max_batch_events(), array.len() as i64);
    if count > limit {
        let what = format!("{place} of decider \"{}\" has {count} elements", deciding.decider.name);
        return Err(
            Error::LimitExceeded { setting: "eventstream.max_batch_events", limit, actual: Some(count), what }.into()
        );
    }
    let mut at = 0;
    array.each(|_, element| {
        at += 1;
        work(element).map_err(|failure| failure.within(|| format!("{place}[{}]", at - 1)))
    })
}

fn wanted<'a>(deciding: &Deciding<'a>, element: Value<'a>) -> Result<Wanted<'a>> {
    let given: ScheduleElement<Jsonb> = element.read()?;
    let command = deciding.command;
    let stream = given.stream.unwrap_or(command.stream.as_str());
    if let Err(Error::InvalidStreamName { name, reason }) = StreamName::parse_own(stream) {
        return Err(invalid("stream", format!("is no stream name: {name:?} {reason}")));
    }
    if let Some(own) = given.metadata {
        refuse_reserved(own)?;
    }
    let wanted = Given {
        stream,
        command_type: given.command_type,
        payload: given.payload,
        expected_version: None,
        metadata: command.metadata_with(given.metadata)?,
        key: given.command_key,
        occurred_at: None,
        decider: given.decider,
        subject: given.subject.or(command.subject),
    };
    Wanted::check(wanted, moment_of("run_at", given.run_at)?)
}

fn unwanted<'a>(deciding: &Deciding<'a>, element: Value<'a>) -> Result<Unwanted<'a>> {
    let own = deciding.command.stream.category();
    let given = match element {
        Value::Text(command_key) => UnscheduleElement { command_key, category: None, reason: None },
        object @ Value::Object(_) => object.read()?,
        other => return Err(invalid("", format!("must be a key, or an object with one, not {}", other.kind()))),
    };
    Ok(Unwanted {
        key: check_key(given.command_key)?,
        category: given.category.map_or(Ok(own), |category| Category::parse("category", category).map(|_| category))?,
        reason: given.reason.map_or(Ok::<_, Failure>(REASON), check_reason)?,
    })
}
