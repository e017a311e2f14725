//! Nothing is changed (invariant 6): UPDATE, DELETE and TRUNCATE of events are ES050 on the parent and on every partition, whoever asks.
use crate::pg_test::sql::{caught, refused, rows, run, value};

/// The parent and all partitions, a later one included.
fn tables() -> Vec<String> {
    run("select es_append('kept-1', 'T', '{}')");
    run("select * from es_maintain()");
    // Not with es_maintain's help, but as an append at the edge makes it.
    run("set eventstream.allow_drop = on");
    run("select _eventstream.make_partition(4611686018427387904, 4611686018427387914)");
    run("set eventstream.allow_drop = off");
    let tables = rows(
        "select oid::regclass::text from pg_class where oid = '_eventstream.events'::regclass or oid in \
         (select inhrelid from pg_inherits where inhparent = '_eventstream.events'::regclass) order by 1",
    );
    let tables: Vec<String> = tables.split(' ').map(|table| table.trim_matches(['(', ')']).to_owned()).collect();
    assert!(tables.len() >= 3, "{tables:?}");
    tables
}

fn statements(table: &str) -> [(&'static str, String); 7] {
    [
        ("UPDATE", format!("update {table} set payload = '{{}}'")),
        ("UPDATE", format!("update {table} set event_type = event_type where false")),
        ("UPDATE", format!("update only {table} set salt = null")),
        ("DELETE", format!("delete from {table}")),
        ("DELETE", format!("delete from {table} where false")),
        ("TRUNCATE", format!("truncate {table}")),
        ("TRUNCATE", format!("truncate {table} cascade")),
    ]
}

fn is_refused(operation: &str, statement: &str) {
    let error = refused("ES050", statement);
    let detail: serde_json::Value = serde_json::from_str(&error.detail).expect("JSON");
    assert_eq!(detail["operation"], operation, "{statement}");
    assert!(detail["table"].as_str().is_some_and(|table| table.starts_with("_eventstream.events")), "{statement}");
    assert!(error.message.contains(operation) && !error.hint.is_empty(), "{error:?}");
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn events_cannot_be_changed_on_the_parent_or_any_partition() {
        for table in tables() {
            for (operation, statement) in statements(&table) {
                is_refused(operation, &statement);
            }
        }
        assert_eq!(value("select count(*) from es_read('kept-1')"), "1");
    }

    #[pg_test]
    fn events_cannot_be_changed_under_session_replication_role_replica() {
        for table in tables() {
            run("set local session_replication_role = replica");
            for (operation, statement) in statements(&table) {
                is_refused(operation, &statement);
            }
            run("set local session_replication_role = origin");
        }
    }

    #[pg_test]
    fn events_cannot_be_changed_by_merge_or_on_conflict() {
        run("select es_append('kept-1', 'T', '{}')");
        let merge = "merge into _eventstream.events e using (select 1) s on e.version = 1 when matched then";
        is_refused("UPDATE", &format!("{merge} update set payload = '{{}}'"));
        is_refused("DELETE", &format!("{merge} delete"));
        let again = "insert into _eventstream.events_1 select e.* from _eventstream.events_1 e on conflict";
        // The statement's trigger for UPDATE comes before the row's for INSERT.
        is_refused("UPDATE", &format!("{again} (stream_id, version) do update set salt = null"));
        is_refused("INSERT", &format!("{again} do nothing"));
        is_refused(
            "INSERT",
            "merge into _eventstream.events_1 e using (select 7 as n) s on e.version = s.n when not matched then insert (version) values (s.n)",
        );
    }

    #[pg_test]
    fn the_triggers_on_every_partition_fire_always() {
        tables();
        assert_eq!(
            rows(
                "select c.relname, t.tgname, t.tgenabled from pg_class c join pg_trigger t on t.tgrelid = c.oid \
                 where c.relnamespace = '_eventstream'::regnamespace and t.tgenabled <> 'A' and not t.tgisinternal"
            ),
            ""
        );
        assert_eq!(
            rows(
                "select c.relname from pg_class c where c.relnamespace = '_eventstream'::regnamespace and c.relname ~ '^events' \
                 and c.relkind in ('r', 'p') and (select count(*) from pg_trigger t where t.tgrelid = c.oid and t.tgenabled = 'A') <> 3"
            ),
            ""
        );
    }

    #[pg_test]
    fn a_version_cannot_be_written_twice_into_a_partition() {
        run("select es_append('kept-1', 'T', '{}')");
        let again = "insert into _eventstream.events_1 select e.* from _eventstream.events_1 e";
        assert_eq!(caught(again).expect("refused").code, "ES050");
        run("set eventstream.allow_drop = on");
        run("alter table _eventstream.events_1 disable trigger all");
        let error = caught(again).expect("a duplicate");
        assert_eq!(error.code, "23505");
    }
}
