//! What is protected: rules set and taken back. What a rule means is decided in crates/core; what it hides is hidden by the door (src/present).
//!
//! Promises: from the commit of es_protect on, nobody is shown what a rule names, by whatever way, and every append that follows is judged by it (covered.rs). A rule that upcasters or folds could
//! not live with is refused, and so is an upcaster or a fold that could not live with a rule.
use super::scheduled::ends;
use super::{agreement, counted, tried, uncovered};
use crate::log::dead_letters;
use crate::log::gate;
use crate::log::target::Target;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::error::report;
use crate::pg::process::session::Planning;
use crate::pg::process::{lock, server, xact};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text, text_array_of};
use crate::present::protected::{self, Protected, WITHHELD};
use crate::present::upcasters;
use crate::projection::{progress, refold};
use crate::shared::catalog::announce_protection_change;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::shared::transaction::{self, Due, End};
use eventstream_core::error::Error;
use eventstream_core::name::EventType;
use eventstream_core::protect::{Cover, Given, Protection};
use eventstream_core::rules::Rules;
use eventstream_core::word::Protects;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT4OID, INT8OID, TEXTARRAYOID, TEXTOID};
use std::cell::RefCell;

thread_local! {
    static PROTECT: Plan = const { Plan::new(
        "insert into _eventstream.protections as p (tenant_id, kind, event_type, schema_version, pointers, clear_pointers, metadata_pointers) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict on constraint protections_pkey do update \
         set created_at = clock_timestamp(), pointers = excluded.pointers, clear_pointers = excluded.clear_pointers, metadata_pointers = excluded.metadata_pointers \
         where (p.pointers, p.clear_pointers, p.metadata_pointers) is distinct from (excluded.pointers, excluded.clear_pointers, excluded.metadata_pointers)",
        &[INT8OID, TEXTOID, TEXTOID, INT4OID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID],
    ) };
    static UNPROTECT: Plan = const { Plan::new(
        "delete from _eventstream.protections where tenant_id = $1 and kind = $2 and event_type = $3",
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static RULES: Plan = const { Plan::new(
        "select name, rules::text from _eventstream.folds where tenant_id = $1 and rules is not null order by name collate \"C\"",
        &[INT8OID],
    ) };
    /// Tenants whose rules this transaction takes back, or changes.
    static TAKEN_BACK: RefCell<Vec<(i64, String)>> = const { RefCell::new(Vec::new()) };
    // Of columns that hold what events say; statistics of a partition of another version's dump may be there.
    static FORGET: Plan = const { Plan::new("select _eventstream.forget_values()", &[]) };
}

/// What es_protect is given.
pub struct Definition<'a> {
    pub kind: Protects,
    pub event_type: &'a str,
    pub schema_version: i32,
    pub given: Given,
}

/// Whether it is another rule than there was. Errors: ES005, 55P03.
pub fn protect(target: Target, definition: &Definition) -> Result<bool> {
    lock::within(settings::gate_timeout(), || set(target, definition))
}

fn set(target: Target, definition: &Definition) -> Result<bool> {
    let Definition { kind, event_type, schema_version, ref given } = *definition;
    let (pointers, clear) = (given.pointers.as_deref(), given.clear_pointers.as_deref());
    let protection = Protection::new(pointers, clear, &given.metadata_pointers)?;
    check_name(kind, event_type)?;
    check_version(kind, schema_version)?;
    if kind == Protects::Command && !protection.metadata.is_empty() {
        return Err(invalid(
            "metadata_pointers",
            "must be empty for commands, whose metadata are those of their events",
        ));
    }
    begin(target, c"es_protect")?;
    must_follow(target, definition)?;
    let before = uncovered::rule(target, kind, event_type, schema_version)?;
    if protected::of(target.id)?.hides_some(kind, event_type) {
        keep_until_commit(target)?;
    }
    let array = |list: Option<&[String]>| list.map(text_array_of).transpose();
    let row: [Nullable; 7] = [
        Some(Datum::from(target.id)),
        Some(from_text(kind.as_str())?),
        Some(from_text(event_type)?),
        Some(Datum::from(schema_version)),
        array(pointers)?,
        array(clear)?,
        Some(text_array_of(&given.metadata_pointers)?),
    ];
    let is_new = as_owner(Planning::ByIndex, |db, catalog| {
        if PROTECT.with(|plan| plan.write(db, &row))? == 0 {
            return Ok(false);
        }
        FORGET.with(|plan| plan.first(db, View::Write, &[], |_| Ok(())))?;
        announce_protection_change(catalog).map(|()| true)
    })?;
    if !is_new {
        report::notice(&format!("{} version {schema_version} is protected so already", shown(event_type)))?;
        return Ok(false);
    }
    match before {
        Some(before) => uncovered::say(event_type, schema_version, &before, given)?,
        None => uncovered::say_unknown(target, kind, event_type)?,
    }
    if kind == Protects::Event {
        agreement::must_agree(target, event_type)?;
        must_not_be_folded(target)?;
        let names = becoming(target, event_type)?;
        withhold(target, &names)?;
        let refolded = refold::refold_hiding(target, &names)?;
        say_refolded("filled again", &refolded.filled)?;
        say_refolded("emptied, and filled when they go on", &refolded.emptied)?;
        tried::of_rule(target, event_type, schema_version)?;
        say_uncovered(target, event_type)?;
    }
    Ok(true)
}

/// The type, and what upcasters turn its protected versions into.
fn becoming(target: Target, event_type: &str) -> Result<Vec<String>> {
    let upcasters = upcasters::of(target.id)?;
    let mut names = vec![event_type.to_owned()];
    for (version, _) in upcasters.protected.events.versions(event_type) {
        let mut at = (event_type, version);
        while let Some(next) = upcasters.step(at.0, at.1) {
            at = (next, at.1 + 1);
            names.push(next.to_owned());
        }
    }
    Ok(names)
}

/// Texts that failures have left may repeat what an event said, or a state that is made of it.
fn withhold(target: Target, event_types: &[String]) -> Result<()> {
    as_owner(Planning::ByCost, |db, _| {
        dead_letters::withhold(db, target.id, event_types, WITHHELD)?;
        ends::withhold(db, target.id, WITHHELD)?;
        progress::withhold(db, target.id, WITHHELD)
    })
}

/// How many rules there were. Errors: ES005, 55P03.
pub fn unprotect(target: Target, kind: Protects, event_type: &str) -> Result<i64> {
    check_name(kind, event_type)?;
    lock::within(settings::gate_timeout(), || take_back(target, kind, event_type))
}

fn take_back(target: Target, kind: Protects, event_type: &str) -> Result<i64> {
    begin(target, c"es_unprotect")?;
    keep_until_commit(target)?;
    let key = [Some(Datum::from(target.id)), Some(from_text(kind.as_str())?), Some(from_text(event_type)?)];
    let gone = as_owner(Planning::ByIndex, |db, catalog| {
        let gone = UNPROTECT.with(|plan| plan.write(db, &key))?;
        announce_protection_change(catalog).map(|()| gone)
    })?;
    if gone == 0 {
        return Err(Error::InvalidArgument {
            argument: "event_type".into(),
            reason: format!("must be one that a rule names: {} is not protected", shown(event_type)),
            hint: Some("Which are: select kind, event_type from eventstream.protections;".into()),
        }
        .into());
    }
    if kind == Protects::Event {
        agreement::must_agree(target, event_type)?;
    }
    Ok(gone as i64)
}

/// Alone: no append that was judged by other rules is under way, nor a batch that was shown events under them, and nobody else declares anything of the tenant. The gate last: while
/// others are waited for, appends go on. Errors: 0A000 where the transaction keeps its snapshot.
fn begin(target: Target, call: &std::ffi::CStr) -> Result<()> {
    server::must_be_writable(call)?;
    if server::keeps_its_snapshot() {
        let what =
            format!("{} cannot be called in a REPEATABLE READ or SERIALIZABLE transaction", call.to_string_lossy());
        let hint = "It would not see rows of state tables that came since, which may repeat what is to be protected: call it in a READ COMMITTED one.";
        return Err(Error::FeatureNotSupported { what, hint: Some(hint.into()) }.into());
    }
    refold::rest(target)?;
    agreement::begin(target, call)?;
    gate::close(target)
}

/// What was protected is, for this transaction, until its end: whatever code it runs, a trigger of a state table at the commit too, could tell what it is shown (by a sequence, a lock, an SQLSTATE), and a
/// rollback would leave no trace of that. What others will be shown is looked up last, and by no code of users'.
fn keep_until_commit(target: Target) -> Result<()> {
    protected::keep_until_commit(target.id)?;
    TAKEN_BACK.with_borrow_mut(|all| {
        if all.iter().all(|(tenant_id, _)| *tenant_id != target.id) {
            all.push((target.id, target.name.to_owned()));
        }
    });
    let on_end = |end| {
        if !matches!(end, End::SubtransactionRolledBack(_)) {
            TAKEN_BACK.take();
            protected::unveil();
        }
    };
    transaction::call_unveiled_before_commit(Due { before_commit: note_unveiled, on_end });
    Ok(())
}

fn note_unveiled() -> Result<()> {
    // Whatever eventstream.durability leaves to the session: a crash, too, would leave no trace of who looked.
    xact::wait_for_flush();
    protected::unveil();
    for (id, name) in TAKEN_BACK.take() {
        let refolded = refold::refold_showing(Target { id, name: &name })?;
        say_refolded("filled again", &refolded.filled)?;
        say_refolded("rows of before, until es_rebuild_projection fills them by what is shown now", &refolded.left)?;
    }
    Ok(())
}

fn check_name(kind: Protects, event_type: &str) -> Result<()> {
    EventType::parse_as("event_type", event_type)?;
    if kind == Protects::Event && event_type == EventType::STREAM_CLOSED {
        return Err(invalid("event_type", format!("must not be {event_type}, which is eventstream's own")));
    }
    Ok(())
}

fn check_version(kind: Protects, version: i32) -> Result<()> {
    if version < 1 {
        return Err(invalid("schema_version", format!("must be 1 or more, not {version}")));
    }
    if kind == Protects::Command && version != 1 {
        return Err(invalid("schema_version", format!("must be 1 for commands, which have none, not {version}")));
    }
    Ok(())
}

/// What no rule names is not shown: so the versions are named from the first on, and none is forgotten.
fn must_follow(target: Target, definition: &Definition) -> Result<()> {
    let Definition { event_type, schema_version, .. } = *definition;
    let protected = protected::of(target.id)?;
    let named: Vec<i32> = protected.events.versions(event_type).map(|(version, _)| version).collect();
    let highest = named.last().copied().unwrap_or_default();
    if definition.kind == Protects::Command || schema_version <= highest + 1 {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: "schema_version".into(),
        reason: format!("must not leave out version {} of {}, which no rule names", highest + 1, shown(event_type)),
        hint: Some(format!(
            "Protect it first; where nothing of it is to be: select es_protect({}, {}, pointers => '{{}}');",
            quote_literal(event_type),
            highest + 1
        )),
    }
    .into())
}

fn must_not_be_folded(target: Target) -> Result<()> {
    let protected = protected::of(target.id)?;
    let all = as_owner(Planning::ByIndex, |db, _| {
        RULES.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(target.id))], |row| {
                Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))
            })
        })
    })?;
    all.iter().try_for_each(|(name, rules)| must_not_read(&protected, "pointers", name, rules))
}

/// Errors: ES005 for that argument where a rule of the fold reads what is protected.
pub fn must_not_read(protected: &Protected, argument: &str, fold: &str, rules: &str) -> Result<()> {
    if protected.events.is_empty() {
        return Ok(());
    }
    let rules = Rules::parse(rules)?;
    let Some((place, event_type, read)) = protected.events.read_by(&rules) else { return Ok(()) };
    Err(Error::InvalidArgument {
        argument: argument.into(),
        reason: format!(
            "must not let a fold compute on what is protected: rule {} of fold {} reads {} of {}, which is null there",
            shown(place),
            shown(fold),
            shown(&read),
            shown(event_type)
        ),
        hint: Some("Register the fold without that rule: what is protected is in no state.".into()),
    }
    .into())
}

fn say_refolded(what: &str, changed: &[String]) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let tables: Vec<_> = changed.iter().map(|name| shown(name)).collect();
    report::notice(&format!("{what}: state tables {}", tables.join(", ")))
}

/// A NOTICE where versions are declared, or stored, that no rule names: folds of their events fail.
fn say_uncovered(target: Target, event_type: &str) -> Result<()> {
    let protected = protected::of(target.id)?;
    let versions = super::schemas::versions(target.id, event_type)?;
    let is_missing = |version: &&i32| matches!(protected.events.of(event_type, **version), Cover::Missing { .. });
    let declared: Vec<_> = versions.keys().filter(is_missing).collect();
    let stored = counted::counts(target.id, None)?.of.remove(event_type).unwrap_or_default();
    let stored: Vec<_> = stored.keys().filter(is_missing).filter(|version| !declared.contains(version)).collect();
    for (missing, what) in [(declared, "which is declared"), (stored, "of which there are events")] {
        if missing.is_empty() {
            continue;
        }
        let missing: Vec<_> = missing.into_iter().map(ToString::to_string).collect();
        report::notice(&format!(
            "of {} no rule names version {}, {what}: nothing that such an event says is shown, and none is appended, until es_protect covers it",
            shown(event_type),
            missing.join(", ")
        ))?;
    }
    Ok(())
}
