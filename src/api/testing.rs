//! es_definitions.
use super::asks;
use crate::access::authorize_tenant;
use crate::pg::function::{Args, Returned};
use crate::pg::query::store::Store;
use crate::proof;
use eventstream_core::name::Category;
use eventstream_core::privilege::Privilege;

asks!(Read, "eventstream_definitions", "text", definitions);

fn definitions(args: &Args) -> Returned {
    let category = args.text_opt(0)?;
    if let Some(category) = category {
        Category::parse("category", category)?;
    }
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    proof::definitions::list(access.tenant_id, category, &scope, &Store::begin(args)?)?;
    Ok(None)
}
