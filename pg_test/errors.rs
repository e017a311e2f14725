//! Errors on their way out: ours with all their parts, other people's whole and untouched (invariant 9), and neither costs the backend
//! anything, however many there are.
use crate::pg_test::sql::{Caught, caught, refused, rows, run, value};

/// A trigger that makes every new stream of category `gl` fail in the user's own words.
fn failing_trigger() {
    run("create function pg_temp.fail() returns trigger language plpgsql as $$ begin \
             if new.category = 'gl' then \
                 raise exception using errcode = 'GL042', message = 'period is closed', detail = 'October 2024', \
                     hint = 'post to November', constraint = 'open_periods', column = 'period', datatype = 'month', \
                     table = 'journal', schema = 'ledger'; \
             end if; \
             return new; \
         end $$");
    run("create trigger fail before insert on _eventstream.streams for each row execute function pg_temp.fail()");
}

fn gl042(error: &Caught) -> Caught {
    Caught {
        code: "GL042".to_owned(),
        message: "period is closed".to_owned(),
        detail: "October 2024".to_owned(),
        hint: "post to November".to_owned(),
        constraint: "open_periods".to_owned(),
        column: "period".to_owned(),
        data_type: "month".to_owned(),
        table: "journal".to_owned(),
        schema: "ledger".to_owned(),
        context: error.context.clone(),
    }
}

/// Bytes of memory that this process has, by its own account.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// Catches `count` errors of each kind in one transaction.
fn catch_many(count: u32) {
    run(&format!(
        "do $do$ declare conflicts int := 0; failures int := 0; begin \
             for i in 1..{count} loop \
                 begin perform es_append('a-1', 'T', '{{}}', 99); exception when sqlstate 'ES001' then conflicts := conflicts + 1; end; \
                 begin perform es_append('gl-1', 'T', '{{}}'); exception when sqlstate 'GL042' then failures := failures + 1; end; \
             end loop; \
             if conflicts <> {count} or failures <> {count} then raise 'caught % and %', conflicts, failures; end if; \
         end $do$"
    ));
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn an_error_of_a_users_trigger_arrives_whole_and_nothing_is_added() {
        // Rust's panic machinery would add a backtrace to DETAIL only where this is set: tools/test sets it.
        assert_eq!(std::env::var("RUST_BACKTRACE").as_deref(), Ok("1"));
        failing_trigger();
        for statement in [
            "select es_append('gl-1', 'T', '{}')",
            r#"select es_append_events('gl-1', '[{"type": "T", "payload": {}}]')"#,
            r#"select stream, version from es_append_streams('[{"stream": "a-1", "events": [{"type": "T", "payload": {}}]},
                                                 {"stream": "gl-1", "events": [{"type": "T", "payload": {}}]}]')"#,
        ] {
            let error = refused("GL042", statement);
            assert_eq!(error, gl042(&error), "{statement}");
            let context = &error.context;
            assert!(context.contains("function pg_temp") && context.contains("fail() line"), "{context}");
            for foreign in ["rust", "Rust", "backtrace", ".rs", "panic"] {
                assert!(!context.contains(foreign), "{context}");
            }
        }
        assert_eq!(rows("select stream from eventstream.streams"), "");
    }

    #[pg_test]
    fn our_own_errors_have_sqlstate_message_detail_and_hint_and_nothing_else() {
        run("select es_append('a-1', 'T', '{}')");
        let error = refused("ES001", "select es_append('a-1', 'T', '{}', 5)");
        assert_eq!(
            error,
            Caught {
                code: "ES001".to_owned(),
                message: "version conflict on stream \"a-1\": expected version 5, actual version 1".to_owned(),
                detail: r#"{"actual_version":1,"expected_version":5,"stream":"a-1"}"#.to_owned(),
                hint: error.hint.clone(),
                context: error.context.clone(),
                ..Caught::default()
            }
        );
        assert!(error.hint.contains("expected_version => 1"), "{}", error.hint);
        assert!(!error.context.contains(".rs") && !error.context.contains("_eventstream"), "{}", error.context);
    }

    #[pg_test]
    fn a_constraint_of_a_user_arrives_with_its_name() {
        run("set eventstream.allow_drop = on");
        run("alter table _eventstream.streams add constraint no_gl check (category <> 'gl')");
        let error = refused("23514", "select es_append('gl-1', 'T', '{}')");
        assert_eq!(
            (error.constraint.as_str(), error.table.as_str(), error.schema.as_str()),
            ("no_gl", "streams", "_eventstream")
        );
        assert!(error.detail.starts_with("Failing row contains"), "{}", error.detail);
    }

    #[pg_test]
    fn an_error_of_every_kind_leaves_the_session_as_it_was() {
        failing_trigger();
        run("select es_append('a-1', 'T', '{}')");
        run("create role t_errors");
        let session = "select current_user, session_user, current_setting('search_path'), current_setting('role')";
        let before = rows(session);
        for statement in [
            "select es_append('gl-1', 'T', '{}')",
            "select es_append('a-1', 'T', '{}', 5)",
            "select es_append('a', 'T', '{}')",
            "select es_append('a-1', 'T', to_jsonb(repeat('x', 2000000)))",
            "update _eventstream.events set salt = null",
            "select es_stream('none-1')",
            "select es_use_tenant('none')",
        ] {
            assert!(caught(statement).is_some(), "{statement}");
            assert_eq!(rows(session), before, "{statement}");
        }
        // Security restrictions of the owner's statements must be gone, too: this is refused under them.
        run("create temp table after_errors (n int)");
        assert_eq!(value("select es_append('a-1', 'T', '{}', 1)"), "2");
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn a_hundred_thousand_caught_errors_leave_memory_and_backend_well() {
        failing_trigger();
        run("select es_append('a-1', 'T', '{}')");
        catch_many(2_000);
        // What is in use: a context grows by blocks, each twice as large as the one before.
        let contexts = "select sum(used_bytes) from pg_backend_memory_contexts";
        let (bytes, resident) = (value(contexts), resident_bytes());
        catch_many(50_000);
        let grown: i64 = value(&format!("select ({contexts}) - {bytes}")).parse().expect("a number");
        assert!(grown < 4 << 20, "PostgreSQL's memory contexts grew by {grown} bytes");
        let grown = resident_bytes().saturating_sub(resident);
        assert!(grown < 32 << 20, "the process grew by {grown} bytes");
        assert_eq!(value("select es_append('a-1', 'T', '{}', 1)"), "2");
        assert_eq!(rows("select * from es_verify()"), "");
    }

    #[pg_test]
    fn thousands_of_calls_in_one_transaction_need_no_more_memory_than_a_few() {
        let calls = |count: u32| {
            run(&format!(
                "do $do$ begin for i in 1..{count} loop \
                     perform es_append('a-1', 'T', to_jsonb(repeat('x', 1000)), event_id => es_new_event_id()); \
                     perform es_append_events('b-' || i % 10, '[{{\"type\": \"T\", \"payload\": 1}}, {{\"type\": \"T\", \"payload\": 2}}]'); \
                     perform es_stream_version('a-1'), es_stream('b-1'), es_last_append(), es_horizon(); \
                     perform e.version from es_read('a-1', es_stream_version('a-1')) e; \
                     perform (es_read('a-1', es_stream_version('a-1'))).version; \
                     perform e.version from es_read_backward(max_count => 5) e; \
                     perform count(*) from eventstream.events e where e.stream = 'b-1' and e.version < 3; \
                 end loop; end $do$"
            ));
        };
        // What is in use: a context grows by blocks, each twice as large as the one before.
        let contexts = "select sum(used_bytes) from pg_backend_memory_contexts";
        calls(200);
        let (bytes, resident) = (value(contexts), resident_bytes());
        calls(2_000);
        let grown: i64 = value(&format!("select ({contexts}) - {bytes}")).parse().expect("a number");
        let largest = rows("select name, used_bytes from pg_backend_memory_contexts order by used_bytes desc limit 6");
        assert!(grown < 1 << 19, "PostgreSQL's memory contexts grew by {grown} bytes: {largest}");
        // Shared buffers that the backend touches for the first time count as its own.
        let grown = resident_bytes().saturating_sub(resident);
        assert!(grown < 32 << 20, "the process grew by {grown} bytes");
        assert_eq!(value("select es_stream_version('a-1')"), "2200");
    }

    #[pg_test]
    fn a_cancel_inside_an_append_is_57014() {
        run("create function pg_temp.dawdle() returns trigger language plpgsql as \
             $$ begin perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(10); return new; end $$");
        run(
            "create trigger dawdle before insert on _eventstream.streams for each row execute function pg_temp.dawdle()",
        );
        let error = refused("57014", "select es_append('a-1', 'T', '{}')");
        assert_eq!(error.message, "canceling statement due to user request");
        run("drop trigger dawdle on _eventstream.streams");
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "1");
    }

    #[pg_test]
    fn an_append_inside_a_users_trigger_joins_its_statement() {
        run("create temp table orders (id int, amount numeric)");
        run("create function pg_temp.note() returns trigger language plpgsql as \
             $$ begin perform es_append('order-' || new.id, 'Ordered', to_jsonb(new)); return new; end $$");
        run("create trigger note after insert on orders for each row execute function pg_temp.note()");
        run("insert into orders select i, 1.50 from generate_series(1, 100) i");
        assert_eq!(value("select sum((payload ->> 'amount')::numeric) from eventstream.events"), "150.00");
        refused("ES005", "insert into orders values (101, 1.50), (null, 1)");
        assert_eq!(value("select count(*) from orders"), "100");
        assert_eq!(value("select count(*) from eventstream.streams"), "100");
    }

    #[pg_test]
    fn an_error_in_the_middle_of_a_long_read_ends_it_cleanly() {
        run(
            "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) from generate_series(1, 1000) i))",
        );
        let statement = "select 1 / (version - 500) from es_read('a-1')";
        for _ in 0..200 {
            refused("22012", statement);
        }
        assert_eq!(value("select count(*) from es_read('a-1')"), "1000");
        assert_eq!(rows("select version from es_read('a-1') limit 2"), "(1) (2)");
    }

    #[pg_test]
    fn calls_from_a_hostile_search_path_do_what_they_say() {
        run("create schema evil");
        run("create function evil.nextval(regclass) returns bigint language sql as 'select 1 / 0'");
        run(
            "create function evil.es_equal(bigint, bigint) returns bool language plpgsql as $$ begin raise 'mine'; end $$",
        );
        run("create operator evil.= (leftarg = bigint, rightarg = bigint, function = evil.es_equal)");
        run(
            "create function evil.text_equal(text, text) returns bool language plpgsql as $$ begin raise 'mine'; end $$",
        );
        run("create operator evil.= (leftarg = text, rightarg = text, function = evil.text_equal)");
        run("create temp table pg_class (n int)");
        run("set local search_path = evil, pg_temp, public, pg_catalog");
        run("do $$ begin perform public.es_append('a-1', 'T', '{}', 0, subject => 'p'); end $$");
        run(
            "do $$ begin perform public.es_read('a-1'), public.es_stream_version('a-1'), public.es_read_subject('p'); end $$",
        );
        run("do $$ begin perform public.es_grant('public', 'read'), public.es_revoke('public', 'read'); end $$");
        run("do $$ begin perform public.es_verify(), public.es_chain_heads(), public.es_maintain(); end $$");
        run("set local search_path = public, pg_catalog");
        assert_eq!(value("select es_stream_version('a-1')"), "1");
    }
}

/// What takes a second session. Nothing is committed.
#[cfg(test)]
mod two_sessions {
    /// Starts the server of the tests, where this runs first.
    fn start() {
        crate::pg_test::setup(Vec::new());
        pgrx_tests::run_test("versions_count_from_one_without_gaps", None, crate::pg_test::postgresql_conf_options())
            .expect("a server");
    }

    #[test]
    fn a_timeout_in_a_lock_wait_is_57014_and_the_session_goes_on() {
        start();
        let (mut holder, _) = pgrx_tests::client().expect("a session");
        let (mut waiter, _) = pgrx_tests::client().expect("a session");
        holder.simple_query("begin; select es_append('lock-wait-1', 'T', '{}')").expect("the first append");
        waiter.simple_query("begin; set local statement_timeout = '300ms'; savepoint s").expect("a transaction");
        for _ in 0..3 {
            let error = waiter.simple_query("select es_append('lock-wait-1', 'T', '{}')").expect_err("a timeout");
            assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
            waiter.simple_query("rollback to s").expect("the savepoint");
        }
        waiter.simple_query("set local statement_timeout = 0; set local lock_timeout = '200ms'").expect("a setting");
        waiter.simple_query("savepoint s").expect("a savepoint");
        let error = waiter.simple_query("select es_append('lock-wait-1', 'T', '{}')").expect_err("a timeout");
        assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{error}");
        waiter.simple_query("rollback to s; set local lock_timeout = 0").expect("the savepoint");
        holder.simple_query("rollback").expect("a rollback");
        let versions = waiter.query("select es_append('lock-wait-1', 'T', '{}', 0)", &[]).expect("the append");
        assert_eq!(versions[0].get::<_, i64>(0), 1);
        waiter.simple_query("rollback").expect("a rollback");
    }

    #[test]
    fn a_cancel_in_a_lock_wait_is_57014() {
        start();
        let (mut holder, _) = pgrx_tests::client().expect("a session");
        let (mut waiter, _) = pgrx_tests::client().expect("a session");
        holder.simple_query("begin; select es_append('lock-cancel-1', 'T', '{}')").expect("the first append");
        let pid: i32 = waiter.query_one("select pg_backend_pid()", &[]).expect("a pid").get(0);
        let waiting = std::thread::spawn(move || {
            let error = waiter.simple_query("select es_append('lock-cancel-1', 'T', '{}')").expect_err("a cancel");
            (waiter, error)
        });
        let waits = "select count(*) from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'";
        while holder.query_one(waits, &[&pid]).expect("a count").get::<_, i64>(0) == 0 {
            assert!(!waiting.is_finished(), "it did not wait");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        holder.execute("select pg_cancel_backend($1)", &[&pid]).expect("a signal");
        let (mut waiter, error) = waiting.join().expect("the waiting session");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
        assert_eq!(error.as_db_error().and_then(|error| error.detail()), None);
        waiter
            .simple_query("begin; select es_append('lock-cancel-2', 'T', '{}'); rollback")
            .expect("the session goes on");
        holder.simple_query("rollback").expect("a rollback");
    }
}
