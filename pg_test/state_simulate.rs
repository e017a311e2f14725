//! es_simulate is an append and a look at the state, of which nothing stays; es_explain_state tells how a state came about.
use crate::pg_test::sql::{refused, rows, run, value};
use crate::pg_test::state_history::{account, folds, random_stream};

/// What no call may change.
fn log() -> String {
    rows(
        "select (select count(*) from _eventstream.events), (select count(*) from _eventstream.streams), \
          (select last_value from _eventstream.positions), es_last_append()",
    )
}

/// A member of es_explain_state's answer.
fn explained(arguments: &str, path: &str) -> String {
    value(&format!("select es_explain_state('account-1'{arguments}) #> '{{{path}}}'"))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn es_simulate_gives_the_state_that_an_append_would_lead_to() {
        account();
        let events = r#"'[{"type": "Credited", "payload": {"amount": 64}, "occurred_at": "2024-02-15T00:00:00Z"},
            {"type": "Credited", "payload": {"amount": 128}},
            {"type": "Credited", "payload": {"amount": 256}, "occurred_at": "2020-01-01T00:00:00Z"}]'"#;
        let before = log();
        assert_eq!(
            value(&format!("select es_simulate('account-1', {events})")),
            r#"{"folded": [1, 2, 3, 4, 5, 6, 7, 8, 9], "balance": 511.50}"#
        );
        assert_eq!(
            value(&format!("select es_simulate('account-1', {events}, 'by_time')")),
            r#"{"folded": [9, 5, 1, 3, 7, 2, 4, 6, 8], "balance": 511.50}"#
        );
        assert_eq!(log(), before);
    }

    #[pg_test]
    fn es_simulate_is_append_and_look() {
        folds();
        run("select setseed(0.5)");
        run("create function tests.imagined(events int, days int) returns jsonb volatile language sql as $$ \
             select jsonb_agg(jsonb_build_object('type', 'Credited', 'payload', jsonb_build_object('amount', i + 0.25), \
                 'occurred_at', case when random() < 0.8 then \
                     timestamptz '2024-01-01 00:00:00+00' + (random() * (days + 3))::int * interval '1 day' end)) \
             from generate_series(1, events) i $$");
        for round in 1..=15 {
            let (stream, events) = (format!("account-{}", 100 + round), round * 3);
            random_stream(&stream, events);
            run(&format!("create temp table imagined as select tests.imagined(1 + {round} % 6, {events}) as events"));
            let simulated =
                |fold: &str| value(&format!("select es_simulate('{stream}', events, '{fold}') from imagined"));
            let (by_version, by_time) = (simulated("by_version"), simulated("by_time"));
            run(&format!("select es_append_events('{stream}', events) from imagined"));
            assert_eq!(by_version, value(&format!("select es_state('{stream}', 'by_version')")));
            assert_eq!(by_time, value(&format!("select es_state('{stream}', 'by_time')")));
            run("drop table imagined");
        }
    }

    #[pg_test]
    fn es_simulate_begins_a_stream_that_does_not_exist() {
        folds();
        let events = r#"'[{"type": "Credited", "payload": {"amount": 1}, "occurred_at": "2024-02-15T00:00:00Z"},
                          {"type": "Credited", "payload": {"amount": 2}, "occurred_at": "2024-02-14T00:00:00Z"}]'"#;
        assert_eq!(
            value(&format!("select es_simulate('account-9', {events})")),
            r#"{"folded": [1, 2], "balance": 3.00}"#
        );
        assert_eq!(
            value(&format!("select es_simulate('account-9', {events}, 'by_time')")),
            r#"{"folded": [2, 1], "balance": 3.00}"#
        );
        assert_eq!(value("select es_stream_version('account-9')"), "0");
    }

    #[pg_test]
    fn simulated_events_are_what_an_append_would_make_of_them() {
        run(
            "create function tests.seen(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$ \
             begin return to_jsonb(event); end $$",
        );
        run("select es_register_fold('seen', 'seen', 'tests.seen(jsonb, eventstream.event)')");
        run("select es_append('seen-1', 'First', '{}')");
        let event = r#"[{"type": "Second", "payload": {"n": 1.50}, "metadata": {"actor": "me"}, "schema_version": 3, "subject": "p-1",
            "event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "occurred_at": "2024-02-15T00:00:00Z"}]"#;
        run(&format!("create temp table seen as select es_simulate('seen-1', '{event}') as event"));
        assert_eq!(
            value("select event - 'recorded_at' - 'occurred_at' - 'recorded_by' from seen"),
            r#"{"salt": null, "tags": null, "stream": "seen-1", "tenant": "default", "payload": {"n": 1.50}, "subject": "p-1", "version": 2, "category": "seen", "event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "metadata": {"actor": "me"}, "chain_hash": null, "event_type": "Second", "schema_version": 3, "global_position": null}"#
        );
        assert_eq!(
            rows(
                "select (event ->> 'occurred_at')::timestamptz = '2024-02-15 00:00:00+00', \
                  (event ->> 'recorded_at')::timestamptz between now() and clock_timestamp(), \
                  event ->> 'recorded_by' = session_user from seen"
            ),
            "(t,t,t)"
        );
        // What is not given: as an append has it.
        run(
            "update seen set event = es_simulate('seen-1', '[{\"type\": \"Second\", \"payload\": null}, {\"type\": \"Third\", \"payload\": null}]')",
        );
        assert_eq!(
            rows(
                "select event ->> 'version', event -> 'metadata', event ->> 'schema_version', event ->> 'subject', \
                  event ->> 'occurred_at' = event ->> 'recorded_at', length(event ->> 'event_id') from seen"
            ),
            "(3,{},1,,t,36)"
        );
    }

    #[pg_test]
    fn es_simulate_upcasts() {
        account();
        run("create function tests.doubled(payload jsonb, metadata jsonb) returns jsonb immutable \
             begin atomic select jsonb_build_object('amount', (payload ->> 'amount')::numeric * 2); end");
        run("select es_register_upcaster('Pledged', 1, 'tests.doubled(jsonb, jsonb)', 'Credited')");
        assert_eq!(
            value(
                r#"select es_simulate('account-1', '[{"type": "Pledged", "payload": {"amount": 10.00}}]') -> 'balance'"#
            ),
            "83.50"
        );
    }

    #[pg_test]
    fn es_simulate_refuses_what_an_append_would_refuse() {
        account();
        run(
            "select es_append('account-7', 'Credited', '{\"amount\": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8057')",
        );
        let with_id = |stream: &str, amount: u32| {
            format!(
                r#"select es_simulate('{stream}', '[{{"type": "Credited", "payload": {{"amount": {amount}}},
                    "event_id": "01890a5d-ac96-774b-bcce-b302099a8057"}}]') -> 'balance'"#
            )
        };
        // A retry writes nothing, so the state stays; the same id with other content is an error; in another stream it is new.
        assert_eq!(value(&with_id("account-7", 1)), "1.00");
        refused("ES006", &with_id("account-7", 2));
        assert_eq!(value(&with_id("account-1", 2)), "65.50");
        let twice = r#"{"type": "T", "payload": 1, "event_id": "01890a5d-ac96-774b-bcce-b302099a8058"}"#;
        refused("ES006", &format!("select es_simulate('account-1', '[{twice}, {twice}]')"));
        run("select es_close_stream('account-7', 'done')");
        refused("ES003", r#"select es_simulate('account-7', '[{"type": "Credited", "payload": {"amount": 1}}]')"#);
        // Still a retry, though the stream takes no more: the state is what it is (a closing event has no amount).
        assert_eq!(value(&with_id("account-7", 1)), "null");
        run("set local eventstream.max_batch_events = 1");
        refused(
            "ES007",
            r#"select es_simulate('account-1', '[{"type": "T", "payload": 1}, {"type": "T", "payload": 1}]')"#,
        );
    }

    #[pg_test]
    fn es_simulate_needs_only_the_privilege_read_and_no_writing() {
        account();
        run("create role reader");
        run("select es_grant('reader', 'read', category => 'account')");
        run("grant usage on schema tests to reader");
        run("set local role reader");
        run("set local transaction_read_only = on");
        let simulated =
            r#"select es_simulate('account-1', '[{"type": "Credited", "payload": {"amount": 1}}]') -> 'balance'"#;
        assert_eq!(value(simulated), "64.50");
        refused("42501", r#"select es_append('account-1', 'Credited', '{"amount": 1}')"#);
        refused("42501", "select es_simulate('item-1', '[{\"type\": \"T\", \"payload\": 1}]')");
        assert_eq!(value("select count(*) from es_history('account-1'), es_timeline('account-1')"), "30");
        assert_eq!(explained("", "state,balance"), "63.50");
        for call in ["es_history('item-1')", "es_timeline('item-1')", "es_explain_state('item-1')"] {
            refused("42501", &format!("select * from {call}"));
        }
    }

    #[pg_test]
    fn es_explain_state_tells_which_events_count() {
        account();
        let as_of = ", as_of => '2024-02-15 00:00:00+00'";
        assert_eq!(explained(as_of, "state"), value(&format!("select es_state_at('account-1'{as_of})")));
        assert_eq!(explained(as_of, "counted,events"), "3");
        assert_eq!(explained(as_of, "counted,all_up_to_version"), "1");
        assert_eq!(
            explained(as_of, "counted,late_ones_behind"),
            r#"{"count": 2, "first": [{"version": 3, "occurred_at": "2024-02-01T00:00:00+00:00"}, {"version": 5, "occurred_at": "2023-12-01T00:00:00+00:00"}]}"#
        );
        assert_eq!(explained(as_of, "version"), "5");
        assert_eq!(explained(as_of, "stream_version"), "6");
        assert_eq!(explained(as_of, "left_out,recorded_later"), r#"{"count": 0, "first": []}"#);
        assert_eq!(explained(as_of, "left_out,occurred_later,count"), "3");
        assert_eq!(
            rows(&format!(
                "select e ->> 'version', e ->> 'event_type', e ->> 'occurred_at' \
                 from jsonb_array_elements(es_explain_state('account-1'{as_of}) #> '{{left_out,occurred_later,first}}') e"
            )),
            "(2,Credited,2024-03-01T00:00:00+00:00) (4,Credited,2024-03-01T00:00:00+00:00) (6,Credited,2024-04-01T00:00:00+00:00)"
        );
        let known_at = ", known_at => (select recorded_at from es_read('account-1', 4, 1))";
        assert_eq!(explained(known_at, "left_out,recorded_later,count"), "2");
        assert_eq!(explained(known_at, "left_out,recorded_later,first,0,version"), "5");
        assert_eq!(explained(known_at, "left_out,occurred_later,count"), "0");
        assert_eq!(explained(known_at, "counted,events"), "4");
        assert_eq!(explained(", as_of => '-infinity'", "counted,events"), "0");
        assert_eq!(explained(", as_of => '-infinity'", "asked"), r#"{"as_of": "-infinity", "known_at": null}"#);
    }

    #[pg_test]
    fn es_explain_state_tells_what_was_folded_and_from_where() {
        account();
        let by_time = ", fold => 'by_time'";
        let told = || {
            rows(
                "select e -> 'started_from' ->> 'from', e -> 'started_from' ->> 'version', e -> 'folded' ->> 'events', \
                  e #>> '{folded,late_ones_put_in_place,count}' from es_explain_state('account-1', fold => 'by_time') e",
            )
        };
        assert_eq!(told(), "(initial_state,0,6,2)");
        // The explanation has kept the state.
        run("select es_append('account-1', 'Credited', '{\"amount\": 1}')");
        assert_eq!(told(), "(cache,6,1,0)");
        assert_eq!(explained(by_time, "fold,name"), "\"by_time\"");
        assert_eq!(explained(by_time, "fold,kind"), "\"handler\"");
        assert_eq!(explained(by_time, "fold,handler"), "\"tests.fold_account\"");
        assert_eq!(explained(by_time, "fold,order"), "\"occurred_at\"");
        assert_eq!(value("select length(es_explain_state('account-1') #>> '{fold,fingerprint}')"), "64");
        assert_eq!(
            value(
                "select bool_and(value::text::float >= 0) from jsonb_each(es_explain_state('account-1') -> 'milliseconds')"
            ),
            "true"
        );
    }

    #[pg_test]
    fn es_explain_state_tells_which_upcasters_were_used() {
        account();
        run("create function tests.doubled(payload jsonb, metadata jsonb) returns jsonb immutable \
             begin atomic select jsonb_build_object('amount', (payload ->> 'amount')::numeric * 2); end");
        run("select es_register_upcaster('Credited', 1, 'tests.doubled(jsonb, jsonb)', 'CreditedTwice')");
        run("select es_register_upcaster('CreditedTwice', 2, 'tests.doubled(jsonb, jsonb)')");
        assert_eq!(
            explained("", "folded,upcast"),
            r#"[{"events": 6, "handler": "tests.doubled", "event_type": "Credited", "to_event_type": "CreditedTwice", "from_schema_version": 1}, {"events": 6, "handler": "tests.doubled", "event_type": "CreditedTwice", "to_event_type": "CreditedTwice", "from_schema_version": 2}]"#
        );
    }

    #[pg_test]
    fn es_explain_state_tells_what_is_wrong_with_snapshots() {
        folds();
        random_stream("account-1", 120);
        run("insert into _eventstream.snapshots (stream_id, fold, version, chain_hash, fingerprint, checksum, state) \
             select e.stream_id, 'by_version', 100, e.chain_hash, decode(es_explain_state('account-1') #>> '{fold,fingerprint}', 'hex'), \
                    repeat('x', 32)::bytea, '{}' \
             from _eventstream.events e join _eventstream.streams s on s.id = e.stream_id where s.name = 'account-1' and e.version = 100");
        let as_known = ", known_at => (select recorded_at from es_read('account-1', 110, 1))";
        assert_eq!(explained(as_known, "snapshot_problems"), r#"["at version 100: its checksum is wrong"]"#);
        assert_eq!(explained(as_known, "state"), value("select es_state_at_version('account-1', 110)"));
    }
}
