//! eventstream: an event store inside PostgreSQL. ARCHITECTURE.md has the words, the data flow and the invariants; the
//! folders here are the steps of that flow.
#![deny(unsafe_code)]

mod access;
mod api;
mod log;
mod ops;
mod pg;
mod present;
mod projection;
mod proof;
mod shared;
mod state;
mod subscription;
mod usercode;
mod worker;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
mod pg_test;

::pgrx::pg_module_magic!(name, version);

// The schema, in the order in which it loads; `make install` concatenates the same files in the same order.
pgrx::extension_sql_file!("../sql/10_schemas.sql", name = "schemas", bootstrap);
pgrx::extension_sql_file!("../sql/20_types.sql", name = "types", requires = ["schemas"]);
pgrx::extension_sql_file!("../sql/30_tables.sql", name = "tables", requires = ["types"]);
pgrx::extension_sql_file!("../sql/35_state_tables.sql", name = "state_tables", requires = ["tables"]);
pgrx::extension_sql_file!("../sql/36_live_tables.sql", name = "live_tables", requires = ["state_tables"]);
pgrx::extension_sql_file!(
    "../sql/37_subscription_tables.sql",
    name = "subscription_tables",
    requires = ["live_tables"]
);
pgrx::extension_sql_file!("../sql/40_partitions.sql", name = "partitions", requires = ["subscription_tables"]);
pgrx::extension_sql_file!("../sql/50_append.sql", name = "append", requires = ["partitions"]);
pgrx::extension_sql_file!("../sql/51_read.sql", name = "read", requires = ["append"]);
pgrx::extension_sql_file!("../sql/52_verify.sql", name = "verify", requires = ["read"]);
pgrx::extension_sql_file!("../sql/53_access.sql", name = "access", requires = ["verify"]);
pgrx::extension_sql_file!("../sql/54_state.sql", name = "state", requires = ["access"]);
pgrx::extension_sql_file!("../sql/56_history.sql", name = "history", requires = ["state"]);
pgrx::extension_sql_file!("../sql/56_snapshots.sql", name = "snapshots", requires = ["history"]);
pgrx::extension_sql_file!("../sql/58_subscriptions.sql", name = "subscriptions", requires = ["snapshots"]);
pgrx::extension_sql_file!("../sql/59_operate.sql", name = "operate", requires = ["subscriptions"]);
pgrx::extension_sql_file!("../sql/60_view_functions.sql", name = "view_functions", requires = ["operate"]);
pgrx::extension_sql_file!(
    "../sql/61_state_view_functions.sql",
    name = "state_view_functions",
    requires = ["view_functions"]
);
pgrx::extension_sql_file!(
    "../sql/62_live_view_functions.sql",
    name = "live_view_functions",
    requires = ["state_view_functions"]
);
pgrx::extension_sql_file!("../sql/70_views.sql", name = "views", requires = ["live_view_functions"]);
pgrx::extension_sql_file!("../sql/71_state_views.sql", name = "state_views", requires = ["views"]);
pgrx::extension_sql_file!("../sql/72_temporal.sql", name = "temporal", requires = ["state_views"]);
pgrx::extension_sql_file!("../sql/73_live_views.sql", name = "live_views", requires = ["temporal"]);
pgrx::extension_sql_file!("../sql/74_projections.sql", name = "projections", requires = ["live_views"]);
pgrx::extension_sql_file!("../sql/76_column_comments.sql", name = "column_comments", requires = ["projections"]);
pgrx::extension_sql_file!("../sql/80_dump.sql", name = "dump", requires = ["column_comments"]);
pgrx::extension_sql_file!("../sql/85_workers.sql", name = "workers", requires = ["dump"]);
pgrx::extension_sql_file!("../sql/86_guard.sql", name = "guard", requires = ["workers"]);
pgrx::extension_sql_file!("../sql/90_privileges.sql", name = "privileges", requires = ["guard"], finalize);

/// Called by PostgreSQL when the library is loaded: by the postmaster where it is preloaded, else by a backend.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    shared::init();
    pg::pinned::init();
    api::guard::note_roles();
    api::guard::init();
    pg::query::planner::init();
    pg::query::estimate::init();
    pg::query::own_rows::init();
    pg::error::log_hook::init();
    worker::init();
}
