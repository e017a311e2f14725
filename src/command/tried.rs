//! Folds that fail on what a rule of protected fields leaves of events, whichever of the two came later: whoever registers a fold does not forbid a rule, and is told that its states cannot be had.
//! Tried on examples, which are nobody's data, each as the only event of a stream: what fails on all of an example says nothing.
use super::agreement::{self, Example};
use super::counted;
use crate::log::target::Target;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::error::report;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
use crate::present::protected;
use crate::shared::session::as_owner;
use crate::state::folding::Folding;
use crate::state::folds::{self, How};
use eventstream_core::shown;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static NAMES: Plan = const { Plan::new(
        "select name from _eventstream.folds where tenant_id = $1 order by name collate \"C\"",
        &[INT8OID],
    ) };
}

/// Folds, and the examples that they are tried on.
struct Tried<'a> {
    target: Target<'a>,
    names: Vec<String>,
    examples: Vec<Example>,
}

/// A new rule of an event type: all folds of the tenant.
pub fn of_rule(target: Target, event_type: &str, schema_version: i32) -> Result<()> {
    let names = as_owner(Planning::ByIndex, |db, _| {
        NAMES.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| Ok(row.text(0)?.to_owned()))
        })
    })?;
    let tried = Tried { target, names, examples: agreement::examples(target, event_type)? };
    tried.say_failing()?;
    tried.say_untried(event_type, schema_version)
}

/// A fold that is registered under rules that are there: all of them.
pub fn of_fold(target: Target, name: &str) -> Result<()> {
    let protected = protected::of(target.id)?;
    let mut tried = Tried { target, names: vec![name.to_owned()], examples: Vec::new() };
    for event_type in protected.events.names() {
        for example in agreement::examples(target, event_type)? {
            // What upcasters turn into several is told once.
            if !tried.has_example(&example.0, example.1) {
                tried.examples.push(example);
            }
        }
    }
    tried.say_failing()?;
    for event_type in protected.events.names() {
        for (version, _) in protected.events.versions(event_type).filter(|(_, protection)| !protection.is_empty()) {
            tried.say_untried(event_type, version)?;
        }
    }
    Ok(())
}

impl Tried<'_> {
    fn has_example(&self, event_type: &str, schema_version: i32) -> bool {
        self.examples.iter().any(|one| one.0 == event_type && one.1 == schema_version)
    }

    /// A WARNING of each fold and each example that it takes, and does not take as it is shown.
    fn say_failing(&self) -> Result<()> {
        for name in &self.names {
            for example in &self.examples {
                let Err(caught) = self.fold(name, example, false)? else { continue };
                if self.fold(name, example, true)?.is_err() {
                    continue;
                }
                let message = format!(
                    "fold {} fails with null where a value of {} version {} is protected, as its example shows: {} ({})",
                    shown(name),
                    shown(&example.0),
                    example.1,
                    caught.message,
                    caught.sqlstate
                );
                report::warning_with(
                    &message,
                    "Until es_register_fold replaces it by one that takes null, streams with such events have no state: es_state, commands that are decided on it, and state tables fail for them.",
                )?;
            }
        }
        Ok(())
    }

    /// A NOTICE where functions fold stored events of that version, and there is no example of it.
    fn say_untried(&self, event_type: &str, schema_version: i32) -> Result<()> {
        if self.has_example(event_type, schema_version) || !self.is_folded_by_functions(event_type, schema_version)? {
            return Ok(());
        }
        report::notice(&format!(
            "{} version {schema_version} has no example (es_create_event_type): whether folds by functions take null in the place of what is protected was not tried",
            shown(event_type)
        ))
    }

    fn is_folded_by_functions(&self, event_type: &str, schema_version: i32) -> Result<bool> {
        let mut categories = Vec::new();
        for name in &self.names {
            let fold = folds::named(self.target.id, name)?.filter(|fold| matches!(fold.how, How::Handler(_)));
            categories.extend(fold.map(|fold| fold.category.clone()));
        }
        if categories.is_empty() {
            return Ok(false);
        }
        // One for queries may be given any.
        let of_some = categories.iter().all(|category| !category.is_empty()).then_some(&*categories);
        let counts = counted::counts(self.target.id, of_some)?.of;
        Ok(counts.get(event_type).is_some_and(|versions| versions.contains_key(&schema_version)))
    }

    /// The example as the only event of a stream: as it is shown, or `whole`.
    fn fold(&self, name: &str, example: &Example, whole: bool) -> Result<std::result::Result<(), Caught>> {
        let Some(fold) = folds::named(self.target.id, name)? else { return Ok(Ok(())) };
        let Example(event_type, version, example) = example;
        attempt(|| {
            let stream = if fold.category.is_empty() { "example-1".to_owned() } else { format!("{}-1", fold.category) };
            let event = agreement::imagined(self.target, &stream, event_type, *version, example)?;
            let mut folding = Folding::new(self.target, &fold)?;
            folding.imagine();
            if whole {
                folding.show_examples()?;
            }
            folding.run_events(&stream, &fold.initial_state, vec![event]).map(drop)
        })
    }
}
