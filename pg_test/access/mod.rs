//! Tenants are walls, and grants the only doors in them: what a role may see and do, by functions and by views.
mod grants;
mod roles;
mod tenants;

use crate::pg_test::sql::{Caught, run};

/// Runs `work` as another role. The session user stays.
fn as_role<T>(role: &str, work: impl FnOnce() -> T) -> T {
    run(&format!("set local role {role}"));
    let done = work();
    run("reset role");
    done
}

fn detail(error: &Caught) -> serde_json::Value {
    serde_json::from_str(&error.detail).expect("DETAIL is JSON")
}

/// Everything that shows or writes something of a tenant, with the privilege that it needs, or of several the one that a refusal names first.
const CALLS: &[(&str, &str)] = &[
    ("append", "select es_append('a-1', 'T', '{}')"),
    ("append", r#"select es_append_events('a-1', '[{"type": "T", "payload": {}}]')"#),
    (
        "append",
        r#"select stream, version from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]}]')"#,
    ),
    ("append", r#"select es_condition('{"items": [{"tags": ["a"]}]}')"#),
    ("append", r#"select es_condition('{"all": true}')"#),
    ("append", "select es_close_stream('a-1', 'over')"),
    ("append", "select es_test('it', sql => 'select 1')"),
    ("read", "select * from es_definitions()"),
    ("read", "select * from es_read('a-1')"),
    ("read", "select * from es_read_all()"),
    ("read", "select * from es_read_backward()"),
    ("read", "select * from es_read_subject('p')"),
    ("read", "select * from es_query('{}')"),
    ("admin", "select es_rotate_page_key()"),
    (
        "admin",
        "select es_add_token_key('k', '\\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', null, 'iss')",
    ),
    ("admin", "select es_revoke_token_key('k')"),
    ("read", "select * from es_event('00000000-0000-0000-0000-000000000001')"),
    ("read", "select es_stream_version('a-1')"),
    ("read", "select es_stream('a-1')"),
    ("read", "select es_horizon()"),
    ("read", "select es_settled_until()"),
    ("read", "select es_log_info()"),
    ("read", "select * from eventstream.events"),
    ("read", "select * from eventstream.streams"),
    ("read", "select * from eventstream.folds"),
    ("read", "select * from eventstream.upcasters"),
    ("read", "select * from eventstream.snapshots"),
    ("read", "select * from eventstream.event_types"),
    ("read", "select * from es_check_event_types()"),
    ("manage", "select es_create_event_type('Declared', if_not_exists => true)"),
    ("read", "select * from eventstream.categories"),
    ("manage", "select es_alter_category('a', '{\"max_future\": \"24 hours\"}')"),
    ("read or audit", "select * from eventstream.protections"),
    ("admin", "select es_protect('Hidden', pointers => '{/a}')"),
    ("admin", "select es_unprotect('Hidden')"),
    ("read", "select * from eventstream.periods"),
    ("manage", "select es_close_period('{a}', '2024-01-01Z', 'CHG-1')"),
    ("admin", "select es_reopen_period('{a}', '2023-01-01Z', 'CHG-1')"),
    ("read", "select * from eventstream.invariants"),
    ("read", "select * from eventstream.commands"),
    ("read", "select * from eventstream.scheduled_commands"),
    ("command", "select es_unschedule_command('none', 'x')"),
    ("command", "select es_begin_command('charge', 'k', '{}')"),
    (
        "command",
        "select es_complete_command((es_begin_command('charge', md5(clock_timestamp()::text), '{}') ->> 'attempt_token')::uuid, '{}')",
    ),
    ("audit", "select * from eventstream.audit"),
    ("audit", "select * from eventstream.grants"),
    ("audit", "select * from es_verify_stream('a-1')"),
    ("audit", "select * from es_verify()"),
    ("audit", "select * from es_chain_heads()"),
    ("audit", "select * from es_verify_snapshots()"),
    ("upkeep", "select * from es_maintain()"),
    ("upkeep", "select es_prune_snapshots()"),
    ("admin", "select es_create_tenant('another')"),
    ("admin", "select es_close_tenant('default', 'CHG-1')"),
    ("admin", "select es_rename_tenant('default', 'x')"),
    ("admin", "select es_grant('public', 'read')"),
    ("admin", "select es_revoke('public', 'read')"),
];

fn one_event() {
    run(
        "select es_append('a-1', 'T', '{\"n\": 1}', event_id => '00000000-0000-0000-0000-000000000001', subject => 'p')",
    );
}

/// Tenants `x` and `y`, each with a stream a-1.
fn two_tenants() {
    for tenant in ["x", "y"] {
        run(&format!("select es_create_tenant('{tenant}')"));
        run(&format!("select es_use_tenant('{tenant}')"));
        run(&format!(
            "select es_append('a-1', 'T', '\"{tenant}\"', event_id => '00000000-0000-0000-0000-00000000000{}', subject => 'p')",
            if tenant == "x" { 1 } else { 2 }
        ));
    }
    run("set local eventstream.tenant = ''");
}
