//! es_register_invariant and its opposite.
use super::{asks, target};
use crate::access::{authorize_all, authorize_tenant};
use crate::command::invariant::{self, Definition};
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned};
use crate::pg::value::datum::from_text;
use eventstream_core::privilege::Privilege;

asks!(Manage, "eventstream_register_invariant", "text, text[], regprocedure, text, jsonb, text[]", register);
asks!(Manage, "eventstream_unregister_invariant", "text", unregister);

/// An invariant of that name, if there is one, may be of other categories.
fn may_replace(tenant_id: i64, name: &str) -> Result<()> {
    match invariant::categories_of(tenant_id, name)? {
        Some(categories) => authorize_all(Privilege::Manage, Some(&categories)).map(drop),
        None => Ok(()),
    }
}

fn register(args: &Args) -> Returned {
    let mut definition = Definition {
        name: args.text(0, "name")?,
        categories: args.text_array_opt(1, "categories")?.unwrap_or_default(),
        handler: args.oid_opt(2),
        fold: args.text_opt(3)?,
        require: args.jsonb_opt(4)?,
        event_types: args.text_array_opt(5, "event_types")?,
    };
    definition.check()?;
    let access = authorize_all(Privilege::Manage, Some(&definition.categories))?;
    // A handler is shown the events, and can say them; what breaks a requirement tells of the state.
    authorize_all(Privilege::Read, Some(&definition.categories))?;
    may_replace(access.tenant_id, definition.name)?;
    invariant::register(target(&access), &definition)?;
    from_text(definition.name).map(Some)
}

fn unregister(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    may_replace(access.tenant_id, name)?;
    invariant::unregister(access.tenant_id, name)?;
    from_text(name).map(Some)
}
