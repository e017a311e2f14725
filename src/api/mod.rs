//! What SQL can call, one file for each step of the flow. A function here reads its arguments, asks `access`, calls one
//! function and returns. Nobody uses this module.
mod announce;
mod append;
mod day;
mod fold;
pub(crate) mod guard;
mod history;
mod maintain;
mod operate;
mod projection;
mod read;
mod snapshot;
mod state;
mod stats;
mod subscription;
mod temporal;
mod tenant;
mod trigger;
mod verify;
mod view;

use crate::access::Access;
use crate::log::append::Target;

/// The tenant as `log` knows it.
fn target(access: &Access) -> Target<'_> {
    Target { id: access.tenant_id, name: &access.tenant }
}
