//! es_create_tenant, es_close_tenant, es_rename_tenant, es_use_tenant, es_grant, es_revoke, es_rotate_page_key.
use super::{asks, must_have, reference, target, warn_if_alone};
use crate::access;
use crate::access::{Access, Grant};
use crate::command::ended;
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::value::datum::from_text;
use eventstream_core::argument::Argument;
use eventstream_core::privilege::Privilege;
use eventstream_core::quote_literal;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

asks!(Admin, "eventstream_create_tenant", "text, boolean", create_tenant);
sql_function!("eventstream_close_tenant", "text, text", close_tenant);
sql_function!("eventstream_rename_tenant", "text, text", rename_tenant);
sql_function!("eventstream_use_tenant", "text", use_tenant);
asks!(Admin, "eventstream_grant", "name, text, text, text", grant);
asks!(Admin, "eventstream_revoke", "name, text, text, text", revoke);
asks!(Admin, "eventstream_rotate_page_key", "", rotate_page_key);

fn create_tenant(args: &Args) -> Returned {
    let tenant = args.text(0, "tenant")?;
    access::create_tenant(tenant, args.boolean(1, "if_not_exists")?)?;
    from_text(tenant).map(Some)
}

fn close_tenant(args: &Args) -> Returned {
    let access = administered(args)?;
    let reason = reference(args, 1)?;
    ended::close(target(&access), reason).map(|closed_at| Some(Datum::from(closed_at)))
}

fn rename_tenant(args: &Args) -> Returned {
    let access = administered(args)?;
    let new_name = args.text(1, "new_name")?;
    access::rename_tenant(target(&access), new_name)?;
    from_text(new_name).map(Some)
}

/// The tenant that is named, where the role is its admin: that comes before whatever else is asked.
fn administered(args: &Args) -> Result<Rc<Access>> {
    let given = args.text(0, "tenant");
    if given.is_err() {
        must_have(Privilege::Admin)?;
    }
    Ok(access::authorize_tenant(Some(given?), Privilege::Admin)?.0)
}

fn use_tenant(args: &Args) -> Returned {
    let given = args.text(0, "tenant");
    if given.is_err() {
        access::must_have_any(None)?;
    }
    let tenant = given?;
    access::use_tenant(tenant)?;
    let hint = format!("For the whole session: set eventstream.tenant = {};", quote_literal(tenant));
    warn_if_alone(args, "es_use_tenant", hint)?;
    from_text(tenant).map(Some)
}

fn grant(args: &Args) -> Returned {
    let grant = read_grant(args)?;
    access::grant(&grant)?;
    from_text(&format!("granted {}", in_words(&grant, "to"))).map(Some)
}

fn revoke(args: &Args) -> Returned {
    let grant = read_grant(args)?;
    access::revoke(&grant)?;
    from_text(&format!("revoked {}", in_words(&grant, "from"))).map(Some)
}

fn rotate_page_key(_: &Args) -> Returned {
    access::page::rotate().map(|changed| Some(Datum::from(changed)))
}

fn read_grant<'a>(args: &Args<'a>) -> Result<Grant<'a>> {
    Ok(Grant {
        role: args.name(0, "role")?,
        privilege: Privilege::parse("privilege", args.text(1, "privilege")?)?,
        tenant: args.text_opt(2)?,
        category: args.text_opt(3)?,
    })
}

fn in_words(grant: &Grant, preposition: &str) -> String {
    let tenant = grant.tenant.map(|tenant| format!(" in tenant {tenant}")).unwrap_or_default();
    let category = grant.category.map(|category| format!(" for category {category}")).unwrap_or_default();
    format!("{}{tenant}{category} {preposition} {}", grant.privilege.as_str(), grant.role)
}
