//! Who may do what: tenants are walls, grants open them for roles. Every function of the API asks here first, with the
//! effective role; a setting of the session only chooses among what the role was granted, and where a token is needed (fixed.rs) it chooses nothing.
mod check;
mod fixed;
mod grant;
pub mod page;
mod rights;
mod tenant;
mod token;
mod token_key;
mod token_role;
mod verified;

pub use check::{
    authorize, authorize_all, authorize_all_in, authorize_one_of, authorize_reading, authorize_reading_log,
    authorize_tenant, everything_or, listed_tenant_ids, operated, operated_in, operated_tenant_ids, operated_tenants,
    shown_categories, shown_in,
};
pub use fixed::{
    init, is_held_to_one, may_go_on, must_be_everywhere, must_not_be_held, needs_token, tenant_id_of_token,
};
pub use grant::{Grant, create_tenant, grant, must_have_any, notice_of_new_categories, revoke, see_roles, use_tenant};
pub use rights::{Access, Scope};
pub use tenant::{Ended, end, ended, must_not_be_first, rename_tenant};
pub use token::use_token;
pub use token_key::{add_key, revoke_key};
pub use token_role::require_token;
