//! A decision on its way: the command, its decider, and how the decider's functions are called: as the registrant, in the command's tenant, and so that they may only read.
use super::commanded::Command;
use super::covered;
use super::deciders::{Decider, undecided};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::error::hushed::Hushing;
use crate::pg::function::call::{Code, Function, Position};
use crate::pg::jsonb::Jsonb;
use crate::pg::value::datum::Nullable;
use crate::shared::within;
use eventstream_core::error::Error;
use eventstream_core::undecided::Undecided;
use std::ffi::CString;

#[derive(Clone, Copy)]
pub struct Deciding<'a> {
    pub target: Target<'a>,
    pub command: &'a Command<'a>,
    pub decider: &'a Decider,
}

impl Deciding<'_> {
    /// What the function answers. `before` runs with the registrant's rights, too; `version`: of the command's stream. Errors: ES037 for NULL; whatever the function raises.
    pub fn call<'r>(
        &self,
        function: &mut Function,
        (what, version): (&str, i64),
        before: impl FnOnce() -> Result<()>,
        arguments: &[Nullable],
    ) -> Result<Jsonb<'r>> {
        let target = self.target;
        let where_it_stands = CString::new(self.place()).unwrap_or_default();
        let at = Position::version(&where_it_stands, version);
        let answer = self.hush(|is_hushed| {
            let _hushing = is_hushed.then(Hushing::begin);
            function.as_registrant(Code::Decider, &at, |calls| {
                within::during(target.id, target.name, || {
                    before()?;
                    calls.call(arguments)
                })
            })
        })?;
        match answer {
            Some(answer) => Jsonb::of_datum(answer),
            None => {
                let hint = match what {
                    "boundary" => "An empty object is: the command's own stream, and nothing else.",
                    _ => "An empty array of events is: nothing happens.",
                };
                Err(self.failed(format!("its {what} is NULL"), Some(hint)))
            }
        }
    }

    /// What is done with an answer of the decider's: what that fails with may repeat it, and is kept out of the server's log as the decider's own words are.
    pub fn after<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.hush(|_| work())
    }

    /// The same of what is done with its boundary; where it has none nothing was answered yet.
    pub fn after_boundary<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.decider.has_boundary() { self.after(work) } else { work() }
    }

    fn hush<T>(&self, work: impl FnOnce(bool) -> Result<T>) -> Result<T> {
        // Asked before: after an error nothing can be looked up.
        let is_hushed = covered::is_hushed(self.target.id, self.command.command_type)?;
        work(is_hushed).or_else(|failure| Err(if is_hushed { failure.hushed(&self.place())? } else { failure }))
    }

    fn place(&self) -> String {
        let Self { command, decider, .. } = self;
        format!(
            "decider \"{}\" of command \"{}\" for stream \"{}\"",
            decider.name, command.command_type, command.stream
        )
    }

    /// That the decider answered what is no answer. Errors: ES037.
    pub fn failed(&self, reason: String, hint: Option<&str>) -> Failure {
        undecided(Undecided::Failed {
            decider: self.decider.name.clone(),
            command_type: self.command.command_type.into(),
            stream: self.command.stream.as_str().into(),
            reason,
            hint: hint.map(Into::into),
        })
    }

    /// That the decider appends where it may not. Errors: ES034.
    pub fn beyond(&self, reason: String) -> Failure {
        undecided(Undecided::BeyondBoundary { decider: self.decider.name.clone(), reason })
    }

    /// What is wrong with a part of the answer is wrong with the decider, and not with an argument of the caller's.
    pub fn answered(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Rule(Error::InvalidArgument { argument, reason, hint }) => {
                self.failed(format!("its {argument} {reason}"), hint.as_deref())
            }
            Failure::Rule(error @ Error::InvalidStreamName { .. }) => {
                self.failed(format!("its answer has an {error}"), None)
            }
            other => other,
        }
    }
}
