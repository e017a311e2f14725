//! es_use_token, es_require_token, es_add_token_key, es_revoke_token_key.
use super::{asks, warn_if_alone};
use crate::access;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::value::datum::from_text;

sql_function!("eventstream_use_token", "text", use_token);
asks!(Admin, "eventstream_require_token", "name, boolean", require_token);
asks!(Admin, "eventstream_add_token_key", "text, bytea, text, text", add_key);
asks!(Admin, "eventstream_revoke_token_key", "text, text", revoke_key);

fn use_token(args: &Args) -> Returned {
    let tenant = access::use_token(args.text(0, "token")?)?;
    warn_if_alone(args, "es_use_token", "A token counts for the transaction that it is brought in.")?;
    from_text(&tenant).map(Some)
}

fn require_token(args: &Args) -> Returned {
    let (role, is_required) = (args.name(0, "role")?, args.boolean(1, "required")?);
    access::require_token(role, is_required)?;
    from_text(&format!("{role} needs {} token", if is_required { "a" } else { "no" })).map(Some)
}

fn add_key(args: &Args) -> Returned {
    let kid = args.text(0, "kid")?;
    access::add_key(kid, args.bytes(1, "public_key")?, args.text_opt(2)?, args.text(3, "issuer")?)?;
    from_text(kid).map(Some)
}

fn revoke_key(args: &Args) -> Returned {
    let kid = args.text(0, "kid")?;
    access::revoke_key(kid, args.text_opt(1)?)?;
    from_text(kid).map(Some)
}
