//! Who may do what: tenants are walls, grants open them for roles. Every function of the API asks here first, with the
//! effective role; a setting of the session only chooses among what the role was granted.
mod check;
mod grant;
pub mod page;
mod tenant;

pub use check::{
    Access, Scope, authorize, authorize_all, authorize_all_in, authorize_reading, authorize_reading_log,
    authorize_tenant, everything_or, operated_categories, operated_tenant, operated_tenant_ids, operated_tenants,
    shown_categories, shown_in,
};
pub use grant::{Grant, create_tenant, grant, must_have_any, notice_of_new_categories, revoke, see_roles, use_tenant};
pub use tenant::{Ended, end, ended, must_not_be_first, rename_tenant};
