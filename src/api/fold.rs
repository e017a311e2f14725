//! es_register_fold, es_register_upcaster and their opposites.
use super::asks;
use crate::access::{Access, authorize, authorize_all, authorize_tenant};
use crate::command::{agreement, protect, tried};
use crate::log::target::Target;
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::function::{Args, Returned};
use crate::pg::value::datum::from_text;
use crate::present::{protected, upcasters};
use crate::projection::refold;
use crate::state::fold::{self, Definition, UpcasterDefinition};
use crate::state::folds;
use eventstream_core::argument::Argument;
use eventstream_core::error::Error;
use eventstream_core::name::Category;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use eventstream_core::word::Order;
use std::rc::Rc;

asks!(
    Manage,
    "eventstream_register_fold",
    "text, text, regprocedure, jsonb, jsonb, bigint, text, boolean",
    register_fold
);
asks!(Manage, "eventstream_unregister_fold", "text", unregister_fold);
asks!(Manage, "eventstream_register_upcaster", "text, integer, regprocedure, text", register_upcaster);
asks!(Manage, "eventstream_unregister_upcaster", "text, integer", unregister_upcaster);

/// A fold of that name, if there is one, may be of another category.
fn may_replace(tenant_id: i64, name: &str) -> Result<()> {
    match folds::named(tenant_id, name)? {
        Some(fold) => {
            authorize(Privilege::Manage, &fold.category)?;
            authorize(Privilege::Read, &fold.category).map(drop)
        }
        None => Ok(()),
    }
}

/// An upcaster is shown the payloads of every category, and changes what everybody reads.
fn manage_what_all_read() -> Result<Rc<Access>> {
    authorize_all(Privilege::Read, None)?;
    authorize_all(Privilege::Manage, None)
}

fn register_fold(args: &Args) -> Returned {
    let category = args.text_opt(1)?;
    let definition = Definition {
        name: args.text(0, "name")?,
        category: category.unwrap_or_default(),
        handler: args.oid_opt(2),
        rules: args.jsonb_opt(3)?,
        initial_state: args.jsonb(4, "initial_state")?,
        snapshot_every: args.int8(5, "snapshot_every")?,
        order: Order::parse("fold_order", args.text(6, "fold_order")?)?,
        is_default: args.boolean(7, "is_default")? && category.is_some(),
    };
    // A handler is shown the events, and can say them.
    let access = match category {
        Some(category) => {
            if category.is_empty() {
                Category::parse("category", category)?;
            }
            let access = authorize(Privilege::Manage, category)?;
            authorize(Privilege::Read, category)?;
            access
        }
        None => manage_what_all_read()?,
    };
    may_replace(access.tenant_id, definition.name)?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    if category.is_none() {
        must_read_nothing_protected(target, &definition)?;
        // No table follows it.
        fold::register(access.tenant_id, &definition)?;
        tried::of_fold(target, definition.name)?;
        return from_text(definition.name).map(Some);
    }
    refold::prepare(target, Some(definition.category))?;
    must_read_nothing_protected(target, &definition)?;
    let before = folds::named(target.id, definition.name)?.map(|fold| fold.fingerprint);
    if !definition.is_default {
        keep_default(target.id, definition.name)?;
    }
    let default_before = fold::register(access.tenant_id, &definition)?;
    let changed = refold::refold(target)?;
    let after = folds::named(target.id, definition.name)?.map(|fold| fold.fingerprint);
    tried::of_fold(target, definition.name)?;
    let name = shown(definition.name);
    if before.is_some() && before != after {
        say_replaced(&format!("fold {name}"), &changed)?;
    }
    if let Some(other) = default_before {
        report::notice(&format!(
            "fold {name} is the default one of category {} now, and {} is not any more",
            shown(definition.category),
            shown(&other)
        ))?;
    }
    from_text(definition.name).map(Some)
}

/// Errors: ES005 where a rule of the fold reads what is protected.
fn must_read_nothing_protected(target: Target, definition: &Definition) -> Result<()> {
    // What is being protected meanwhile is waited for.
    agreement::begin(target, c"es_register_fold")?;
    let Some(rules) = definition.rules else { return Ok(()) };
    let protected = protected::of(target.id)?;
    if protected.events.is_empty() {
        return Ok(());
    }
    protect::must_not_read(&protected, "rules", definition.name, &String::from_utf8_lossy(rules.text()?))
}

/// Where state tables follow the default fold of a category, it must not cease to be one without another in its place.
fn keep_default(tenant_id: i64, name: &str) -> Result<()> {
    let tables = refold::tables_of(tenant_id, name, true)?;
    if tables.is_empty() {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: "is_default".into(),
        reason: format!("must be true: fold {} fills {} as the category's default one", shown(name), listed(&tables)),
        hint: Some("Register the fold that is to be the default one instead, with is_default => true.".into()),
    }
    .into())
}

/// `state table "a"`, `state tables "a", "b"`.
fn listed(tables: &[String]) -> String {
    let names: Vec<_> = tables.iter().map(|name| shown(name)).collect();
    format!("state table{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// A NOTICE: whoever took the name for a new one learns of it.
fn say_replaced(what: &str, changed: &[String]) -> Result<()> {
    let filled = match changed.len() {
        0 => String::new(),
        1 => format!("; {} is filled again", listed(changed)),
        _ => format!("; {} are filled again", listed(changed)),
    };
    report::notice(&format!("{what} was registered already, and is another one now{filled}"))
}

fn unregister_fold(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    // As who registers one: what others read changes.
    authorize_tenant(None, Privilege::Read)?;
    may_replace(access.tenant_id, name)?;
    let tables = refold::tables_of(access.tenant_id, name, false)?;
    if !tables.is_empty() {
        let users = tables.iter().map(|table| format!("state table {}", shown(table))).collect();
        return Err(Error::InUse {
            command: "es_unregister_fold".into(),
            object: format!("fold {}", shown(name)),
            users,
            is_table: true,
        }
        .into());
    }
    fold::unregister(access.tenant_id, name)?;
    from_text(name).map(Some)
}

fn register_upcaster(args: &Args) -> Returned {
    let definition = UpcasterDefinition {
        event_type: args.text(0, "event_type")?,
        from_schema_version: args.int4(1, "from_schema_version")?,
        handler: args.oid(2, "handler")?,
        to_event_type: args.text_opt(3)?,
    };
    let access = manage_what_all_read()?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    refold::prepare(target, None)?;
    agreement::begin(target, c"es_register_upcaster")?;
    let key = (definition.event_type, definition.from_schema_version);
    let before = upcasters::of(target.id)?;
    fold::register_upcaster(access.tenant_id, &definition)?;
    agreement::must_lead(target, definition.event_type, "to_event_type")?;
    agreement::must_agree(target, definition.event_type)?;
    let changed = refold::refold(target)?;
    if before.has(key.0, key.1) && before.definition(None) != upcasters::of(target.id)?.definition(None) {
        say_replaced(&format!("the upcaster of {} from schema version {}", shown(key.0), key.1), &changed)?;
    }
    from_text(definition.event_type).map(Some)
}

fn unregister_upcaster(args: &Args) -> Returned {
    let event_type = args.text(0, "event_type")?;
    let from_schema_version = args.int4(1, "from_schema_version")?;
    let access = manage_what_all_read()?;
    let target = Target { id: access.tenant_id, name: &access.tenant };
    refold::prepare(target, None)?;
    agreement::begin(target, c"es_unregister_upcaster")?;
    agreement::must_not_rest(target.id, event_type, from_schema_version)?;
    fold::unregister_upcaster(access.tenant_id, event_type, from_schema_version)?;
    refold::refold(target)?;
    from_text(event_type).map(Some)
}
