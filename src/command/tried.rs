//! Folds that a new rule of protected fields makes fail: whoever registers a fold does not forbid a rule, and learns here that its states cannot be had any more. Tried on examples, which are nobody's
//! data, each as the only event of a stream: what fails so before the rule as well says nothing.
use super::agreement::{self, Example};
use super::counted;
use crate::log::target::Target;
use crate::pg::error::failure::{Caught, Result};
use crate::pg::error::report;
use crate::pg::process::session::Planning;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::{Plan, View};
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

/// The folds of a tenant, and what comes of them with the examples of an event type.
pub struct Tried<'a> {
    target: Target<'a>,
    event_type: &'a str,
    examples: Vec<Example>,
    names: Vec<String>,
    /// Which of them take which example, by their places.
    taken: Vec<(usize, usize)>,
}

impl<'a> Tried<'a> {
    /// To be called before the rule is set.
    pub fn before(target: Target<'a>, event_type: &'a str) -> Result<Self> {
        let examples = agreement::examples(target, event_type)?;
        let names = as_owner(Planning::ByIndex, |db, _| {
            NAMES.with(|plan| {
                plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| Ok(row.text(0)?.to_owned()))
            })
        })?;
        let mut tried = Self { target, event_type, examples, names, taken: Vec::new() };
        for fold in 0..tried.names.len() {
            for example in 0..tried.examples.len() {
                if tried.fold(fold, example)?.is_ok() {
                    tried.taken.push((fold, example));
                }
            }
        }
        Ok(tried)
    }

    /// A WARNING of each that takes an example no more, and a NOTICE where functions fold stored events of that version, and there is no example of it.
    pub fn say(&self, schema_version: i32) -> Result<()> {
        let mut said = None;
        for &(fold, example) in &self.taken {
            let Err(caught) = self.fold(fold, example)? else { continue };
            let (Some(name), Some(Example(event_type, version, _))) =
                (self.names.get(fold), self.examples.get(example))
            else {
                continue;
            };
            if said.replace(fold) == Some(fold) {
                continue;
            }
            let message = format!(
                "fold {} fails with null where a value of {} version {version} is protected, as its example shows: {} ({})",
                shown(name),
                shown(event_type),
                caught.message,
                caught.sqlstate
            );
            report::warning_with(
                &message,
                "Until es_register_fold replaces it by one that takes null, streams with such events have no state: es_state, commands that are decided on it, and state tables fail for them.",
            )?;
        }
        let has_example = self.examples.iter().any(|one| one.0 == self.event_type && one.1 == schema_version);
        if has_example || !self.is_folded_by_functions(schema_version)? {
            return Ok(());
        }
        report::notice(&format!(
            "{} version {schema_version} has no example (es_create_event_type): whether folds by functions take null in the place of what is protected was not tried",
            shown(self.event_type)
        ))
    }

    fn is_folded_by_functions(&self, schema_version: i32) -> Result<bool> {
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
        Ok(counts.get(self.event_type).is_some_and(|versions| versions.contains_key(&schema_version)))
    }

    fn fold(&self, fold: usize, example: usize) -> Result<std::result::Result<(), Caught>> {
        let (Some(name), Some(Example(event_type, version, example))) =
            (self.names.get(fold), self.examples.get(example))
        else {
            return Ok(Ok(()));
        };
        let Some(fold) = folds::named(self.target.id, name)? else { return Ok(Ok(())) };
        attempt(|| {
            let stream = if fold.category.is_empty() { "example-1".to_owned() } else { format!("{}-1", fold.category) };
            let event = agreement::imagined(self.target, &stream, event_type, *version, example)?;
            let mut folding = Folding::new(self.target, &fold)?;
            folding.imagine();
            folding.run_events(&stream, &fold.initial_state, vec![event]).map(drop)
        })
    }
}
