//! What es_protect says beside: what a rule that takes another's place no longer protects, which is shown from then on, in what is stored already, too; and that nothing has the name yet.
use super::{counted, deciders, operation};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use eventstream_core::protect::Given;
use eventstream_core::shown;
use eventstream_core::word::Protects;
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTOID};

thread_local! {
    static RULE: Plan = const { Plan::new(
        "select pointers, clear_pointers, metadata_pointers from _eventstream.protections \
         where tenant_id = $1 and kind = $2 and event_type = $3 and schema_version = $4",
        &[INT8OID, TEXTOID, TEXTOID, INT4OID],
    ) };
}

/// The rule that stands now.
pub fn rule(target: Target, kind: Protects, name: &str, schema_version: i32) -> Result<Option<Given>> {
    let key = [
        Some(Datum::from(target.id)),
        Some(from_text(kind.as_str())?),
        Some(from_text(name)?),
        Some(Datum::from(schema_version)),
    ];
    as_owner(Planning::ByIndex, |db, _| {
        RULE.with(|plan| {
            plan.first(db, View::Latest, &key, |row| {
                Ok(Given {
                    pointers: row.text_array_opt(0)?,
                    clear_pointers: row.text_array_opt(1)?,
                    metadata_pointers: row.text_array_opt(2)?.unwrap_or_default(),
                })
            })
        })
    })
}

/// A WARNING of what the rule before protected, and this one does not.
pub fn say(name: &str, schema_version: i32, before: &Given, now: &Given) -> Result<()> {
    let gone = before.uncovered_by(now)?;
    if gone.is_empty() {
        return Ok(());
    }
    report::warning(&format!(
        "of {} version {schema_version} no longer protected, in what is stored already, too: {}",
        shown(name),
        gone.join(", ")
    ))
}

/// A NOTICE where nothing has that name: a name that is misspelt protects nothing.
pub fn say_unknown(target: Target, kind: Protects, name: &str) -> Result<()> {
    let (is_known, what) = match kind {
        Protects::Event => {
            let is_declared = !super::schemas::versions(target.id, name)?.is_empty();
            (
                is_declared || counted::counts(target.id, None)?.of.contains_key(name),
                "event of that type is declared, or stored",
            )
        }
        Protects::Command => (
            deciders::is_taken(target.id, name)? || operation::is_known(target.id, name)?,
            "decider takes such a command, and no operation has that name",
        ),
    };
    if is_known {
        return Ok(());
    }
    report::notice(&format!(
        "{}: no {what}, by now: it is protected from its first one on, if that is how it is spelt",
        shown(name)
    ))
}
