//! Tests inside a backend (tier 2): one behaviour a test, and the test's name is the promise it checks. Each runs in a
//! transaction of its own, which is rolled back; one after the other (RUST_TEST_THREADS=1), because some lock tables or move
//! the sequence of positions. What takes a commit or a crash is tested in tests/isolation and tests/cluster; the pure rules in
//! crates/core.
mod access;
mod append_rules;
mod bad_input;
mod border;
mod catalog;
mod errors;
mod idempotence;
mod immutable;
mod numbers;
mod read;
mod rows;
mod settings;
mod snapshots;
mod sql;
mod state;
mod state_history;
mod state_simulate;
mod temporal;
mod upcasters;
mod user_code;

/// Called by `#[pg_test]` before the server starts.
#[cfg(test)]
pub fn setup(_options: Vec<&str>) {}

/// Lines for postgresql.conf.
#[cfg(test)]
#[must_use]
pub fn postgresql_conf_options() -> Vec<&'static str> {
    // Upkeep by a worker would come in between.
    vec!["shared_preload_libraries = 'eventstream'", "eventstream.max_workers = 0"]
}
