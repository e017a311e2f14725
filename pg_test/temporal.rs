//! Temporal views: typed columns over states, at the session's moment or at a given one; whose view it is, who may read it, and that no
//! name or type smuggles SQL in.
use crate::pg_test::sql::{refused, rows, run, value};

/// Three accounts, and the view `tests.balances` over them.
fn accounts() {
    run("select es_register_fold('account', 'account', initial_state => '{\"balance\": 0}', \
         rules => '{\"on\": {\"Credited\": [{\"add\": {\"/balance\": \"/amount\"}}, {\"set\": {\"/last\": \"event:/occurred_at\"}}]}}')");
    for (stream, day, amount) in [
        ("account-1", "2024-01-01", "1.00"),
        ("account-2", "2024-01-02", "20.00"),
        ("account-1", "2024-01-03", "2.50"),
        ("account-3", "2024-01-04", "300.00"),
    ] {
        run(&format!(
            "select es_append('{stream}', 'Credited', '{{\"amount\": {amount}}}', occurred_at => '{day} 12:00:00+00')"
        ));
    }
    run("select es_create_temporal_view('tests.balances', 'account', '[ \
             {\"name\": \"balance\", \"type\": \"numeric\", \"path\": \"/balance\"}, \
             {\"name\": \"last\", \"type\": \"timestamptz\", \"path\": \"/last\"}, \
             {\"name\": \"missing\", \"type\": \"int\", \"path\": \"/not/there\"}, \
             {\"name\": \"state\", \"type\": \"jsonb\", \"path\": \"\"}]')");
}

fn create(name: &str, columns: &str) -> String {
    format!("select es_create_temporal_view('{name}', 'account', '{columns}')")
}

const BALANCE: &str = "[{\"name\": \"balance\", \"type\": \"numeric\", \"path\": \"/balance\"}]";

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_view_shows_the_states_of_the_sessions_moment() {
        accounts();
        let shown = || rows("select stream, version, balance, missing from tests.balances order by stream");
        assert_eq!(shown(), "(account-1,2,3.50,) (account-2,1,20.00,) (account-3,1,300.00,)");
        run("set local eventstream.as_of = '2024-01-02 23:59:59.999999Z'");
        assert_eq!(shown(), "(account-1,1,1.00,) (account-2,1,20.00,)");
        run("set local eventstream.as_of = '2024-01-03T14:00+02:00'");
        assert_eq!(shown(), "(account-1,2,3.50,) (account-2,1,20.00,)");
        run("set local eventstream.as_of = ''");
        run("set local eventstream.known_at = '2000-01-01 00:00Z'");
        assert_eq!(shown(), "");
        run("set local eventstream.known_at = 'infinity'");
        assert_eq!(
            value("select state from tests.balances where stream = 'account-2'"),
            "{\"last\": \"2024-01-02T12:00:00+00:00\", \"balance\": 20.00}"
        );
        assert_eq!(
            value("select last at time zone 'UTC' from tests.balances where stream = 'account-2'"),
            "2024-01-02 12:00:00"
        );
    }

    #[pg_test]
    fn the_function_beside_it_takes_its_moment_as_an_argument() {
        accounts();
        run("set local eventstream.as_of = '2000-01-01 00:00Z'");
        let shown = |arguments: &str| {
            rows(&format!("select stream, balance from tests.balances_at({arguments}) order by stream"))
        };
        assert_eq!(shown("null"), "(account-1,3.50) (account-2,20.00) (account-3,300.00)");
        assert_eq!(shown("'2024-01-02 23:00Z'"), "(account-1,1.00) (account-2,20.00)");
        assert_eq!(shown("null, '2000-01-01 00:00Z'"), "");
        assert_eq!(shown("null, stream => 'account-2'"), "(account-2,20.00)");
        assert_eq!(shown("null, stream => 'account-9'"), "");
    }

    #[pg_test]
    fn one_streams_row_folds_no_other() {
        accounts();
        run(
            "create function tests.failing(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as \
             $$ begin if event.stream <> 'account-2' then raise 'folded %', event.stream; end if; return event.payload; end $$",
        );
        run("select es_register_fold('account', 'account', 'tests.failing(jsonb, eventstream.event)')");
        let error = refused("ES013", "select * from tests.balances");
        assert!(error.message.starts_with("2 streams") && error.message.contains("(P0001)"), "{error:?}");
        assert_eq!(value("select state ->> 'amount' from tests.balances where stream = 'account-2'"), "20.00");
        assert_eq!(
            value("select state ->> 'amount' from tests.balances where stream in ('account-2', 'account-7')"),
            "20.00"
        );
        assert_eq!(value("select state ->> 'amount' from tests.balances_at(null, null, 'account-2')"), "20.00");
    }

    #[pg_test]
    fn a_moment_without_time_or_zone_is_refused_and_names_the_setting() {
        for (setting, moment) in [
            ("as_of", "2024-10-31"),
            ("as_of", "2024-10-31 23:59:59"),
            ("known_at", "yesterday"),
            ("known_at", "31.10.2024 23:59Z"),
            ("as_of", "2024-02-31 00:00Z"),
            ("as_of", "2024-10-31 23:59 UTC+2"),
        ] {
            let error = refused("ES005", &format!("set eventstream.{setting} = '{moment}'"));
            assert!(error.message.starts_with(&format!("eventstream.{setting} must be a moment")), "{error:?}");
            assert!(error.hint.contains("es_day_end"), "{error:?}");
        }
        accounts();
        run("set local eventstream.as_of = '2024-02-01 00:00 Nowhere/Land'");
        refused("22023", "select * from tests.balances");
    }

    #[pg_test]
    fn names_and_types_cannot_smuggle_sql_in() {
        accounts();
        run("create table tests.treasure (x int)");
        run(&create("tests.\"b\"\"; drop table tests.treasure; --\"", BALANCE));
        run(&create(
            "tests.b1",
            "[{\"name\": \"x\\\"; drop table tests.treasure; --\", \"type\": \"text\", \"path\": \"/a''b}{\\\"%s~1~0\"}]",
        ));
        assert_eq!(value("select count(*) from tests.b1"), "3");
        for columns in [
            "[{\"name\": \"x\", \"type\": \"int); drop table tests.treasure; --\", \"path\": \"/a\"}]",
            "[{\"name\": \"x\", \"type\": \"int --\", \"path\": \"/a\"}]",
            "[{\"name\": \"x\", \"type\": \"nothing\", \"path\": \"/a\"}]",
            "[{\"name\": \"x\", \"type\": \"anyelement\", \"path\": \"/a\"}]",
            "[{\"name\": \"x\", \"type\": \"int\", \"path\": \"a\"}]",
            "[{\"name\": \"x\", \"type\": \"int\"}]",
            "[{\"name\": \"x\", \"type\": \"int\", \"path\": \"/a\", \"more\": 1}]",
            "[{\"name\": 1, \"type\": \"int\", \"path\": \"/a\"}]",
            "[{\"name\": \"\", \"type\": \"int\", \"path\": \"/a\"}]",
            "[{\"name\": \"stream\", \"type\": \"int\", \"path\": \"/a\"}]",
            "[{\"name\": \"a\", \"type\": \"int\", \"path\": \"/a\"}, {\"name\": \"a\", \"type\": \"int\", \"path\": \"/b\"}]",
            "[]",
            "{}",
            "[1]",
        ] {
            refused("ES005", &create("tests.b2", columns));
        }
        for name in ["", "a.b.c", "b; drop table tests.treasure", "tests.balances", &"x".repeat(61), "\"\""] {
            refused("ES005", &create(name, BALANCE));
        }
        assert_eq!(value("select to_regclass('tests.treasure') is not null"), "true");
    }

    #[pg_test]
    fn a_view_is_its_makers_and_a_reader_sees_what_it_may() {
        accounts();
        run("create role maker");
        run("create role reader");
        run("select es_grant('reader', 'read', category => 'account')");
        run("set local role maker");
        refused("42501", &create("tests.theirs", BALANCE));
        run("reset role");
        run("select es_grant('maker', 'manage')");
        run("set local role maker");
        refused("42501", &create("tests.theirs", BALANCE));
        run("reset role");
        run("grant create on schema tests to maker");
        run("set local role maker");
        run(&create("tests.theirs", BALANCE));
        refused("42501", "select * from tests.theirs");
        run("reset role");
        assert_eq!(value("select relowner::regrole from pg_class where oid = 'tests.theirs'::regclass"), "maker");
        run("set local role reader");
        refused("42501", "select * from tests.theirs");
        run("reset role");
        run("grant select on tests.theirs to reader");
        run("set local role reader");
        assert_eq!(value("select count(*) from tests.theirs"), "3");
        run("reset role");
        run("select es_revoke('reader', 'read', category => 'account')");
        run("select es_grant('reader', 'read', category => 'other')");
        run("set local role reader");
        assert_eq!(value("select count(*) from tests.theirs"), "0");
    }

    #[pg_test]
    fn a_value_that_does_not_fit_is_told_with_its_types_own_error() {
        accounts();
        run(&create("tests.wrong", "[{\"name\": \"x\", \"type\": \"int\", \"path\": \"/balance\"}]"));
        let error = refused("ES013", "select * from tests.wrong");
        assert!(error.message.starts_with("3 streams") && error.message.contains("(22P02)"), "{error:?}");
    }
}
