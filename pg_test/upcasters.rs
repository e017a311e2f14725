//! Upcasters: old payloads are read and folded in their newest shape; what is stored stays, and can be seen as it is.
use crate::pg_test::sql::{refused, rows, run, value};

/// Credited events of three schema versions: in cents; with a currency; renamed to MoneyReceived.
fn upcasters() {
    run("create function tests.to_2(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as \
         $$ begin return jsonb_build_object('amount', (payload ->> 'cents')::numeric / 100); end $$");
    run("create function tests.to_3(payload jsonb, metadata jsonb) returns jsonb immutable language sql as \
         $$ select payload || jsonb_build_object('currency', coalesce(metadata ->> 'currency', 'EUR')) $$");
    run("select es_register_upcaster('Credited', 1, 'tests.to_2(jsonb, jsonb)')");
    run("select es_register_upcaster('Credited', 2, 'tests.to_3(jsonb, jsonb)', 'MoneyReceived')");
}

fn events() {
    run("select es_append('a-1', 'Credited', '{\"cents\": 250}', metadata => '{\"currency\": \"USD\"}')");
    run("select es_append('a-1', 'Credited', '{\"amount\": 1.00}', schema_version => 2)");
    run(
        "select es_append('a-1', 'MoneyReceived', '{\"amount\": 4.00, \"currency\": \"CHF\"}', schema_version => 3, subject => 'ann')",
    );
}

const UPCAST: &str =
    "(1,MoneyReceived,3,2.5000000000000000,USD) (2,MoneyReceived,3,1.00,EUR) (3,MoneyReceived,3,4.00,CHF)";

fn shown(from: &str) -> String {
    rows(&format!(
        "select version, event_type, schema_version, payload ->> 'amount', payload ->> 'currency' from {from} order by version"
    ))
}

/// A fold whose state is the sum, by rules that know the newest shape only.
fn sum() {
    run("select es_register_fold('sum', 'a', initial_state => '{\"sum\": 0}', \
         rules => '{\"on\": {\"MoneyReceived\": [{\"add\": {\"/sum\": \"/amount\"}}]}, \"otherwise\": \"error\"}')");
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn every_way_of_reading_gives_the_newest_shape_and_raw_gives_what_is_stored() {
        events();
        let stored = shown("es_read('a-1')");
        upcasters();
        for from in [
            "es_read('a-1')",
            "(select (e).* from (select es_read('a-1') as e) r) r",
            "es_read_backward()",
            "(select e.* from es_read('a-1', raw => true) r, es_event(r.event_id) e) e",
        ] {
            assert_eq!(shown(from), UPCAST, "{from}");
        }
        assert_eq!(rows("select version, schema_version from es_read_subject('ann')"), "(3,3)");
        for from in [
            "es_read('a-1', raw => true)",
            "(select (e).* from (select es_read('a-1', raw => true) as e) r) r",
            "eventstream.events",
        ] {
            assert_eq!(shown(from), stored, "{from}");
        }
        assert_eq!(value("select count(*) from es_verify()"), "0");
    }

    #[pg_test]
    fn a_stream_that_is_read_row_by_row_is_upcast_a_page_at_a_time() {
        run("create sequence tests.calls");
        run(
            "create function tests.counting(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as \
             $$ begin perform nextval('tests.calls'); return payload; end $$",
        );
        run(
            "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) from generate_series(1, 1700) i))",
        );
        run("select es_register_upcaster('T', 1, 'tests.counting(jsonb, jsonb)')");
        for (call, order) in [("es_read('a-1')", ""), ("es_read('a-1', backward => true)", "desc")] {
            let told = value(&format!(
                "select string_agg((e).version || ':' || (e).schema_version, ' ') from (select {call} as e) r"
            ));
            let expected =
                value(&format!("select string_agg(i || ':2', ' ' order by i {order}) from generate_series(1, 1700) i"));
            assert_eq!(told, expected);
        }
        run("select setval('tests.calls', 1)");
        run("select es_read('a-1') limit 1");
        assert_eq!(
            value("select last_value <= 501 from tests.calls"),
            "true",
            "more than a page was upcast for one row"
        );
    }

    #[pg_test]
    fn filters_by_type_see_stored_names() {
        events();
        upcasters();
        assert_eq!(
            rows("select version, event_type from es_read_backward(event_types => '{Credited}') order by version"),
            "(1,MoneyReceived) (2,MoneyReceived)"
        );
    }

    #[pg_test]
    fn a_fold_sees_upcast_events_and_states_follow_the_upcasters() {
        events();
        sum();
        refused("ES013", "select es_state('a-1')");
        upcasters();
        assert_eq!(value("select es_state('a-1') ->> 'sum' = '7.5000000000000000'"), "true");
        run("select es_snapshot('a-1')");
        run(
            "create or replace function tests.to_2(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as \
             $$ begin return jsonb_build_object('amount', (payload ->> 'cents')::numeric); end $$",
        );
        assert_eq!(
            value("select es_state('a-1') ->> 'sum'"),
            "255.00",
            "neither the cache nor a snapshot of the old step"
        );
        run("select es_unregister_upcaster('Credited', 2)");
        refused("ES013", "select es_state('a-1')");
    }

    #[pg_test]
    fn what_an_upcaster_raises_arrives_whole_with_a_line_that_says_where() {
        events();
        run(
            "create function tests.raising(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as $$ begin \
                 raise exception using errcode = 'GL042', message = 'no rate', detail = 'CHF', hint = 'add one', \
                     constraint = 'rates', table = 'rate', schema = 'ledger'; \
             end $$",
        );
        run("select es_register_upcaster('MoneyReceived', 3, 'tests.raising(jsonb, jsonb)')");
        sum();
        for statement in ["select * from es_read('a-1')", "select es_read('a-1')"] {
            let error = refused("GL042", statement);
            assert_eq!(
                [&error.message, &error.detail, &error.hint, &error.constraint, &error.table, &error.schema],
                ["no rate", "CHF", "add one", "rates", "rate", "ledger"]
            );
            assert!(
                error
                    .context
                    .contains("upcaster of \"MoneyReceived\" from schema version 3 for stream \"a-1\" at version 3"),
                "{error:?}"
            );
        }
    }

    #[pg_test]
    fn a_step_that_gives_null_or_is_gone_is_es014() {
        events();
        run(
            "create function tests.null(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select null::jsonb'",
        );
        run("select es_register_upcaster('Credited', 1, 'tests.null(jsonb, jsonb)')");
        let error = refused("ES014", "select * from es_read('a-1')");
        assert!(error.message.contains("upcaster of \"Credited\" from schema version 1 failed on stream \"a-1\" at version 1: its function returned NULL"), "{error:?}");
        run("set eventstream.allow_drop = on");
        run("drop function tests.null");
        let error = refused("ES014", "select * from es_read('a-1')");
        assert!(error.message.contains("does not exist any more"), "{error:?}");
        assert_eq!(value("select count(*) from es_read('a-1', raw => true)"), "3");
    }

    #[pg_test]
    fn a_failing_step_can_be_skipped_and_no_such_state_is_kept() {
        events();
        upcasters();
        sum();
        run(
            "create or replace function tests.to_3(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as \
             $$ begin if metadata ? 'currency' then raise 'broken'; end if; return payload || '{\"currency\": \"EUR\"}'; end $$",
        );
        refused("P0001", "select * from es_read('a-1')");
        run("set local eventstream.on_upcast_error = skip");
        assert_eq!(
            shown("es_read('a-1')"),
            "(1,Credited,2,2.5000000000000000,) (2,MoneyReceived,3,1.00,EUR) (3,MoneyReceived,3,4.00,CHF)"
        );
        run("select es_register_fold('lenient', 'a', initial_state => '{\"sum\": 0}', \
             rules => '{\"on\": {\"MoneyReceived\": [{\"add\": {\"/sum\": \"/amount\"}}]}}')");
        assert_eq!(value("select es_state('a-1')"), "{\"sum\": 5.00}");
        refused("ES013", "select es_snapshot('a-1')");
        run("set local eventstream.on_upcast_error = fail");
        refused("P0001", "select es_state('a-1')");
    }

    #[pg_test]
    fn upcasters_of_one_tenant_leave_another_alone() {
        run("select es_create_tenant('other')");
        run("select es_use_tenant('default')");
        upcasters();
        run("select es_use_tenant('other')");
        events();
        assert_eq!(value("select payload from es_read('a-1', max_count => 1)"), "{\"cents\": 250}");
    }

    #[pg_test]
    fn wrong_upcasters_are_refused() {
        upcasters();
        for statement in [
            "select es_register_upcaster('T', 0, 'tests.to_2(jsonb, jsonb)')",
            "select es_register_upcaster('T', -1, 'tests.to_2(jsonb, jsonb)')",
            "select es_register_upcaster('T', 2147483647, 'tests.to_2(jsonb, jsonb)')",
            "select es_register_upcaster('', 1, 'tests.to_2(jsonb, jsonb)')",
            "select es_register_upcaster('T', 1, null)",
            "select es_register_upcaster(null, 1, 'tests.to_2(jsonb, jsonb)')",
            "select es_register_upcaster('T', 1, 'tests.to_2(jsonb, jsonb)', '')",
            "select es_register_upcaster('T', 1, 'jsonb_path_query(jsonb, jsonpath, jsonb, boolean)')",
            "select es_register_upcaster('T', 1, 'clock_timestamp()')",
            "select es_unregister_upcaster('Credited', 3)",
            "select es_unregister_upcaster('Nothing', 1)",
        ] {
            refused("ES005", statement);
        }
    }
}
