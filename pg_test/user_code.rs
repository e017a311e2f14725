//! Folds are other people's code: they run with their registrant's rights and names, whoever asks; what they raise arrives whole; and
//! what they must not be or do is refused, at registration or when they are called.
use crate::pg_test::sql::{refused, run, value};

/// A function `tests.<name>` with the signature of a fold's handler.
fn handler(name: &str, volatility: &str, body: &str) {
    run(&format!(
        "create or replace function tests.{name}(state jsonb, event eventstream.event) returns jsonb \
         language plpgsql {volatility} as $body$ {body} $body$"
    ));
}

/// Registers it as the default fold of category `a`, by the current role, and appends an event to a-1.
fn registered(name: &str) {
    run(&format!(
        "select es_register_fold('{name}', 'a', 'tests.{name}(jsonb, eventstream.event)', initial_state => '{{\"n\": 0}}')"
    ));
}

fn event() {
    run("select es_append('a-1', 'Happened', '{\"amount\": 1.50}')");
}

/// A role that may read, append and manage, and nothing else; it may make functions in the schema `weak`.
fn weak_role() {
    run("create role weak");
    for privilege in ["read", "append", "manage"] {
        run(&format!("select es_grant('weak', '{privilege}')"));
    }
    run("create schema weak authorization weak");
    run("grant usage, create on schema tests to weak");
    run("create table tests.secret (secret text)");
    run("insert into tests.secret values ('the superuser''s')");
}

/// Runs statements as the weak role.
fn as_weak(statements: &[&str]) {
    run("set local role weak");
    for statement in statements {
        run(statement);
    }
    run("reset role");
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn what_a_fold_raises_arrives_whole_with_a_line_that_says_where() {
        handler(
            "raising",
            "immutable",
            "begin raise exception using errcode = 'GL042', message = 'period is closed', detail = 'October 2024', \
                 hint = 'post to November', constraint = 'open_periods', column = 'period', datatype = 'month', \
                 table = 'journal', schema = 'ledger'; end",
        );
        registered("raising");
        event();
        let error = refused("GL042", "select es_state('a-1')");
        assert_eq!(
            [
                &error.message,
                &error.detail,
                &error.hint,
                &error.constraint,
                &error.column,
                &error.data_type,
                &error.table,
                &error.schema
            ],
            [
                "period is closed",
                "October 2024",
                "post to November",
                "open_periods",
                "period",
                "month",
                "journal",
                "ledger"
            ]
        );
        let lines: Vec<_> = error.context.lines().collect();
        assert!(lines[0].starts_with("PL/pgSQL function tests.raising(jsonb,eventstream.event) line 1"), "{lines:?}");
        assert_eq!(lines[1], "fold \"raising\" of stream \"a-1\" at version 1");
    }

    #[pg_test]
    fn only_an_immutable_function_of_the_right_signature_can_be_registered() {
        event();
        let register = |signature: &str| refused("ES005", &format!("select es_register_fold('f', 'a', '{signature}')"));
        handler("stable", "stable", "begin return state; end");
        handler("volatile", "volatile", "begin return state; end");
        for (name, says) in [("stable", "STABLE"), ("volatile", "VOLATILE")] {
            let error = register(&format!("tests.{name}(jsonb, eventstream.event)"));
            assert!(
                error.message.contains(&format!("is {says}: a state is a function of the stream's events alone")),
                "{error:?}"
            );
        }
        run("create function tests.one(state jsonb) returns jsonb immutable language sql as 'select state'");
        run(
            "create function tests.text(state jsonb, event eventstream.event) returns text immutable language sql as 'select ''x'''",
        );
        run(
            "create function tests.any(state anyelement, event eventstream.event) returns anyelement immutable language sql as 'select state'",
        );
        run(
            "create function tests.set(state jsonb, event eventstream.event) returns setof jsonb immutable language sql as 'select state'",
        );
        run("create procedure tests.procedure(state jsonb, event eventstream.event) language sql as 'select 1'");
        for (signature, says) in [
            ("tests.one(jsonb)", "must have the signature (state jsonb, event eventstream.event) returns jsonb"),
            ("tests.text(jsonb, eventstream.event)", "must have the signature"),
            ("tests.any(anyelement, eventstream.event)", "must have the signature"),
            ("tests.set(jsonb, eventstream.event)", "must be a plain function that returns one value"),
            ("tests.procedure(jsonb, eventstream.event)", "must be a plain function that returns one value"),
        ] {
            let error = register(signature);
            assert!(error.message.contains(says), "{signature}: {error:?}");
        }
        refused("ES005", "select es_register_fold('f', 'a', 999999999::oid::regprocedure)");
        refused("ES005", "select es_register_fold('f', 'a')");
        refused("ES005", "select es_register_fold('f', 'a', 'tests.one(jsonb)', '{\"on\": {}}')");
    }

    #[pg_test]
    fn a_handler_that_is_no_longer_what_it_was_is_an_error_that_says_so() {
        handler("kept", "immutable", "begin return state; end");
        registered("kept");
        event();
        assert_eq!(value("select es_state('a-1')"), "{\"n\": 0}");
        run("alter function tests.kept volatile");
        let error = refused("ES013", "select es_state('a-1')");
        assert!(error.message.contains("must be IMMUTABLE, and tests.kept is VOLATILE"), "{error:?}");
        run("alter function tests.kept immutable");
        assert_eq!(value("select es_state('a-1')"), "{\"n\": 0}");
        run("set eventstream.allow_drop = on");
        run("alter function tests.kept rename to gone");
        let error = refused("ES013", "select es_state('a-1')");
        assert!(error.message.contains("tests.kept(jsonb, eventstream.event) does not exist any more"), "{error:?}");
        run("drop function tests.gone");
        refused("ES013", "select es_state('a-1')");
        handler("kept", "immutable", "begin return state || '{\"n\": 7}'; end");
        assert_eq!(value("select es_state('a-1')"), "{\"n\": 7}");
    }

    #[pg_test]
    fn a_state_made_by_a_replaced_handler_is_not_given_again() {
        handler("changing", "immutable", "begin return state || '{\"n\": 1}'; end");
        registered("changing");
        event();
        assert_eq!(value("select es_state('a-1')"), "{\"n\": 1}");
        handler("changing", "immutable", "begin return state || '{\"n\": 2}'; end");
        assert_eq!(value("select es_state('a-1')"), "{\"n\": 2}");
        run(
            "select es_register_fold('changing', 'a', 'tests.changing(jsonb, eventstream.event)', initial_state => '{\"m\": 0}')",
        );
        assert_eq!(value("select es_state('a-1')"), "{\"m\": 0, \"n\": 2}");
    }

    #[pg_test]
    fn a_handler_that_returns_null_fails_and_one_that_returns_too_much_as_well() {
        handler("null", "immutable", "begin return null; end");
        registered("null");
        event();
        let error = refused("ES013", "select es_state('a-1')");
        assert!(error.message.contains("at version 1: its handler returned NULL"), "{error:?}");
        handler("large", "immutable", "begin return jsonb_build_object('x', repeat('x', 2000)); end");
        registered("large");
        run("set local eventstream.max_state_bytes = 1024");
        let error = refused("ES007", "select es_state('a-1')");
        assert!(error.message.contains("eventstream.max_state_bytes"), "{error:?}");
    }

    #[pg_test]
    fn a_fold_cannot_call_back_not_even_where_it_catches_the_error() {
        for (name, call) in [
            ("appending", "perform es_append('b-1', 'Happened', '{}')"),
            ("asking", "perform es_state('a-1')"),
            ("reading", "perform count(*) from es_read('a-1')"),
            ("viewing", "perform count(*) from eventstream.events"),
            ("naming", "perform es_new_event_id()"),
            ("remembering", "perform es_last_append()"),
        ] {
            handler(name, "immutable", &format!("begin {call}; return state; end"));
            registered(name);
            event();
            run("select count(*) from eventstream.events"); // rights are known by now, and kept
            let error = refused("0A000", "select es_state('a-1')");
            assert!(error.message.contains("cannot be called by a fold or an upcaster"), "{error:?}");
            handler(
                name,
                "immutable",
                &format!(
                    "begin begin {call}; return '{{\"n\": 1}}'; exception when others then return '{{\"n\": 2}}'; end; end"
                ),
            );
            assert_eq!(value("select es_state('a-1')"), "{\"n\": 2}", "{name}");
        }
        assert_eq!(value("select es_stream_version('b-1')"), "0");
        event();
    }

    #[pg_test]
    fn a_weak_roles_fold_can_do_no_more_for_a_superuser_than_for_itself() {
        weak_role();
        event();
        as_weak(&[
            "create table weak.queue (id int)",
            "create function weak.steal() returns trigger language plpgsql as $$ begin perform secret from tests.secret; return new; end $$",
            "create constraint trigger later after insert on weak.queue deferrable initially deferred \
             for each row execute function weak.steal()",
        ]);
        // What PL/pgSQL itself refuses in an IMMUTABLE function, a VOLATILE one that it calls may do.
        for (body, says) in [
            ("perform secret from tests.secret", "permission denied for table secret"),
            ("perform set_config('role', 'none', false)", "within security-restricted operation"),
            ("perform set_config('session_authorization', 'default', false)", "within security-restricted operation"),
            ("create temp table mine (x int)", "within security-restricted operation"),
            (
                "execute 'declare stolen cursor with hold for select * from weak.queue'",
                "within security-restricted operation",
            ),
            ("insert into weak.queue values (1)", "within security-restricted operation"),
            ("perform es_append('a-1', 'Happened', '{}')", "cannot be called by a fold or an upcaster"),
        ] {
            as_weak(&[
                &format!(
                    "create or replace function weak.deed() returns void language plpgsql volatile as $$ begin {body}; end $$"
                ),
                "create or replace function weak.fold(state jsonb, event eventstream.event) returns jsonb \
                 language plpgsql immutable as $$ begin perform weak.deed(); return state; end $$",
                "select es_register_fold('weak', 'a', 'weak.fold(jsonb, eventstream.event)')",
            ]);
            for statement in
                ["select es_state('a-1')", "select es_snapshot('a-1')", "select * from es_category_state('a')"]
            {
                let error = crate::pg_test::sql::caught(statement).expect(body);
                assert!(error.message.contains(says), "{body}: {statement}: {error:?}");
            }
        }
        assert_eq!(value("select count(*) from weak.queue"), "0");
        as_weak(&[
            "create or replace function weak.fold(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as \
             $$ begin return jsonb_build_object('who', current_user); end $$",
            "select es_register_fold('weak', 'a', 'weak.fold(jsonb, eventstream.event)')",
        ]);
        assert_eq!(value("select es_state('a-1')"), "{\"who\": \"weak\"}");
        run(
            "select es_create_temporal_view('tests.who', 'a', '[{\"name\": \"who\", \"type\": \"text\", \"path\": \"/who\"}]')",
        );
        assert_eq!(value("select who from tests.who"), "weak");
    }

    #[pg_test]
    fn a_fold_runs_in_utc_whatever_the_callers_zone_is() {
        handler(
            "dated",
            "immutable",
            "begin return jsonb_build_object('day', event.occurred_at::date, 'at', event.occurred_at::text); end",
        );
        registered("dated");
        run("select es_append('a-1', 'Happened', '{}', occurred_at => '2024-01-31 23:30:00Z')");
        run("set local timezone = 'Asia/Tokyo'");
        run("set local datestyle = 'German'");
        run("set local eventstream.state_cache_size = 0");
        assert_eq!(value("select es_state('a-1')"), "{\"at\": \"2024-01-31 23:30:00+00\", \"day\": \"2024-01-31\"}");
        assert_eq!(
            value("select current_setting('timezone') || current_setting('datestyle')"),
            "Asia/TokyoGerman, DMY"
        );
    }

    #[pg_test]
    fn a_fold_finds_its_names_where_its_registrant_did_and_leaves_no_setting_behind() {
        weak_role();
        run("create schema mine");
        run("create function mine.amount() returns int immutable language sql as 'select 5'");
        run("set local search_path = mine, tests, public");
        handler(
            "looking",
            "immutable",
            "begin perform set_config('work_mem', '123kB', false); \
                 return jsonb_build_object('n', amount(), 'path', current_setting('search_path')); end",
        );
        registered("looking");
        event();
        // A caller's own function, and a temporary one's namesake, in front of everything.
        run("create schema theirs");
        run("create function theirs.amount() returns int immutable language sql as 'select 666'");
        run("set local search_path = theirs, mine, public");
        assert_eq!(
            value("select es_state('a-1')"),
            "{\"n\": 5, \"path\": \"mine, tests, public, pg_temp, eventstream_pinned\"}"
        );
        assert_ne!(value("select current_setting('work_mem')"), "123kB");
        assert_eq!(value("select current_setting('search_path')"), "theirs, mine, public");
    }

    #[pg_test]
    fn a_callers_temporary_table_does_not_stand_in_for_a_folds() {
        run("create table tests.rates (rate numeric)");
        run("insert into tests.rates values (2)");
        run("set local search_path = tests, public");
        handler("rating", "immutable", "begin return jsonb_build_object('rate', (select rate from rates)); end");
        registered("rating");
        event();
        run("create temp table rates (rate numeric)");
        run("insert into pg_temp.rates values (666)");
        assert_eq!(value("select es_state('a-1')"), "{\"rate\": 2}");
    }

    #[pg_test]
    fn a_fold_whose_registrant_may_no_longer_call_its_function_is_an_error() {
        weak_role();
        event();
        run(
            "create function tests.lent(state jsonb, event eventstream.event) returns jsonb immutable language sql as 'select state'",
        );
        run("revoke execute on function tests.lent from public");
        run("set local role weak");
        let error = refused("ES005", "select es_register_fold('lent', 'a', 'tests.lent(jsonb, eventstream.event)')");
        assert!(error.message.contains("role weak may execute"), "{error:?}");
        run("reset role");
        run("grant execute on function tests.lent to weak");
        as_weak(&["select es_register_fold('lent', 'a', 'tests.lent(jsonb, eventstream.event)')"]);
        assert_eq!(value("select es_state('a-1')"), "{}");
        run("revoke execute on function tests.lent from weak");
        let error = refused("ES013", "select es_state('a-1')");
        assert!(error.message.contains("may not execute tests.lent any more"), "{error:?}");
    }

    #[pg_test]
    fn documents_that_would_overflow_a_stack_or_a_disk_are_refused() {
        let register = |initial: &str| {
            format!(
                "select es_register_fold('f', 'a', rules => '{{\"on\": {{}}}}', initial_state => ({initial})::jsonb)"
            )
        };
        assert!(
            refused("ES007", &register("repeat('[', 5000) || repeat(']', 5000)"))
                .message
                .contains("initial_state is nested")
        );
        assert!(refused("ES007", &register("'{\"n\": 1e131071}'")).message.contains("initial_state has a number of"));
        handler(
            "printing",
            "immutable",
            "begin return (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 1000)); end",
        );
        registered("printing");
        event();
        refused("ES007", "select es_snapshot('a-1')");
    }

    #[pg_test]
    fn only_who_may_manage_registers() {
        run("create role reader");
        run("select es_grant('reader', 'read')");
        run("set local role reader");
        for statement in [
            "select es_register_fold('f', 'a', rules => '{\"on\": {}}')",
            "select es_unregister_fold('f')",
            "select es_register_upcaster('T', 1, 'jsonb_concat(jsonb, jsonb)')",
            "select es_unregister_upcaster('T', 1)",
        ] {
            refused("42501", statement);
        }
    }
}
