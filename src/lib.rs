//! eventstream: an event store inside PostgreSQL. ARCHITECTURE.md has the words, the data flow (whose steps the folders here are) and the invariants.
#![deny(unsafe_code, ffi_unwind_calls)]

mod access;
mod api;
mod command;
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
pgrx::extension_sql_file!("../sql/schema/schemas.sql", name = "schema_schemas", bootstrap);
pgrx::extension_sql_file!("../sql/schema/types.sql", name = "schema_types", requires = ["schema_schemas"]);
pgrx::extension_sql_file!("../sql/log/tables.sql", name = "log_tables", requires = ["schema_types"]);
pgrx::extension_sql_file!("../sql/access/tables.sql", name = "access_tables", requires = ["log_tables"]);
pgrx::extension_sql_file!("../sql/state/tables.sql", name = "state_tables", requires = ["access_tables"]);
pgrx::extension_sql_file!("../sql/command/tables.sql", name = "command_tables", requires = ["state_tables"]);
pgrx::extension_sql_file!("../sql/projection/tables.sql", name = "projection_tables", requires = ["command_tables"]);
pgrx::extension_sql_file!(
    "../sql/subscription/tables.sql",
    name = "subscription_tables",
    requires = ["projection_tables"]
);
pgrx::extension_sql_file!("../sql/log/audit.sql", name = "log_audit", requires = ["subscription_tables"]);
pgrx::extension_sql_file!("../sql/log/partitions.sql", name = "log_partitions", requires = ["log_audit"]);
pgrx::extension_sql_file!("../sql/log/append.sql", name = "log_append", requires = ["log_partitions"]);
pgrx::extension_sql_file!("../sql/log/read.sql", name = "log_read", requires = ["log_append"]);
pgrx::extension_sql_file!("../sql/proof/verify.sql", name = "proof_verify", requires = ["log_read"]);
pgrx::extension_sql_file!("../sql/access/functions.sql", name = "access_functions", requires = ["proof_verify"]);
pgrx::extension_sql_file!("../sql/state/functions.sql", name = "state_functions", requires = ["access_functions"]);
pgrx::extension_sql_file!("../sql/command/functions.sql", name = "command_functions", requires = ["state_functions"]);
pgrx::extension_sql_file!("../sql/command/testing.sql", name = "command_testing", requires = ["command_functions"]);
pgrx::extension_sql_file!("../sql/state/history.sql", name = "state_history", requires = ["command_testing"]);
pgrx::extension_sql_file!("../sql/state/snapshots.sql", name = "state_snapshots", requires = ["state_history"]);
pgrx::extension_sql_file!(
    "../sql/subscription/functions.sql",
    name = "subscription_functions",
    requires = ["state_snapshots"]
);
pgrx::extension_sql_file!("../sql/ops/functions.sql", name = "ops_functions", requires = ["subscription_functions"]);
pgrx::extension_sql_file!(
    "../sql/access/view_functions.sql",
    name = "access_view_functions",
    requires = ["ops_functions"]
);
pgrx::extension_sql_file!(
    "../sql/ops/view_functions.sql",
    name = "ops_view_functions",
    requires = ["access_view_functions"]
);
pgrx::extension_sql_file!("../sql/log/views.sql", name = "log_views", requires = ["ops_view_functions"]);
pgrx::extension_sql_file!("../sql/access/views.sql", name = "access_views", requires = ["log_views"]);
pgrx::extension_sql_file!("../sql/proof/views.sql", name = "proof_views", requires = ["access_views"]);
pgrx::extension_sql_file!("../sql/state/views.sql", name = "state_views", requires = ["proof_views"]);
pgrx::extension_sql_file!("../sql/command/views.sql", name = "command_views", requires = ["state_views"]);
pgrx::extension_sql_file!("../sql/state/temporal.sql", name = "state_temporal", requires = ["command_views"]);
pgrx::extension_sql_file!("../sql/ops/views.sql", name = "ops_views", requires = ["state_temporal"]);
pgrx::extension_sql_file!("../sql/projection/functions.sql", name = "projection_functions", requires = ["ops_views"]);
pgrx::extension_sql_file!(
    "../sql/schema/column_comments.sql",
    name = "schema_column_comments",
    requires = ["projection_functions"]
);
pgrx::extension_sql_file!("../sql/schema/dump.sql", name = "schema_dump", requires = ["schema_column_comments"]);
pgrx::extension_sql_file!("../sql/ops/workers.sql", name = "ops_workers", requires = ["schema_dump"]);
pgrx::extension_sql_file!("../sql/proof/guard.sql", name = "proof_guard", requires = ["ops_workers"]);
pgrx::extension_sql_file!(
    "../sql/access/privileges.sql",
    name = "access_privileges",
    requires = ["proof_guard"],
    finalize
);

/// Called by PostgreSQL when the library is loaded: by the postmaster where it is preloaded, else by a backend.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::error::entry::init();
    shared::init();
    pg::pinned::init();
    command::init();
    api::guard::note_roles();
    api::guard::init();
    log::planning::init();
    pg::error::log_hook::init(shared::live_settings::are_conflicts_logged);
    worker::init();
}
