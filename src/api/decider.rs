//! es_register_decider and its opposite.
use super::asks;
use crate::access::{authorize, authorize_tenant};
use crate::command::decider::{self, Definition};
use crate::command::deciders;
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::function::{Args, Returned};
use crate::pg::value::datum::from_text;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;

asks!(Manage, "eventstream_register_decider", "text, text, regprocedure, jsonb, text, regprocedure, boolean", register);
asks!(Manage, "eventstream_unregister_decider", "text", unregister);

/// A decider of that name, if there is one, may be of another category.
fn may_replace(tenant_id: i64, name: &str) -> Result<()> {
    match deciders::named(tenant_id, name)? {
        Some(decider) => authorize(Privilege::Manage, &decider.category).map(drop),
        None => Ok(()),
    }
}

fn register(args: &Args) -> Returned {
    let definition = Definition {
        name: args.text(0, "name")?,
        category: args.text(1, "category")?,
        handler: args.oid(2, "handler")?,
        commands: args.jsonb_opt(3)?,
        fold: args.text_opt(4)?,
        boundary: args.oid_opt(5),
        is_default: args.boolean(6, "is_default")?,
    };
    let access = authorize(Privilege::Manage, definition.category)?;
    // A decider is shown the states, and can say them.
    authorize(Privilege::Read, definition.category)?;
    may_replace(access.tenant_id, definition.name)?;
    let default_before = decider::register(access.tenant_id, &definition)?;
    if let Some(other) = default_before {
        report::notice(&format!(
            "decider {} is the default one of category {} now, and {} is not any more",
            shown(definition.name),
            shown(definition.category),
            shown(&other)
        ))?;
    }
    if decider::is_without_fold(access.tenant_id, &definition)? {
        report::notice(&format!(
            "category {} has no default fold: commands for its streams are ES010 until es_register_fold registers one (rules => '{{\"on\": {{}}}}' where no state is needed)",
            shown(definition.category)
        ))?;
    }
    from_text(definition.name).map(Some)
}

fn unregister(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    may_replace(access.tenant_id, name)?;
    decider::unregister(access.tenant_id, name)?;
    from_text(name).map(Some)
}
