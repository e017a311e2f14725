//! The state of a stream, of a version, of a moment and of a category: which events count, in which order they are folded, and what cannot
//! be asked.
use crate::pg_test::sql::{refused, rows, run, value};

/// Folds `total` (a sum, in the order of versions, the default one) and `price` (the newest amount in valid time) of category `a`, and a-1.
fn prices() {
    run("select es_register_fold('price', 'a', initial_state => '{\"price\": null}', fold_order => 'occurred_at', \
         rules => '{\"on\": {\"Priced\": [{\"set\": {\"/price\": \"/amount\"}}]}}')");
    run("select es_register_fold('total', 'a', initial_state => '{\"sum\": 0}', \
         rules => '{\"on\": {\"Priced\": [{\"add\": {\"/sum\": \"/amount\"}}]}}')");
    for (day, amount) in [("2024-01-01", "10"), ("2024-03-01", "12"), ("2024-02-01", "11")] {
        run(&format!(
            "select es_append('a-1', 'Priced', '{{\"amount\": {amount}}}', occurred_at => '{day} 00:00:00+00')"
        ));
    }
}

fn at(moment: &str, fold: &str) -> String {
    value(&format!("select es_state_at('a-1', {moment}, fold => '{fold}')"))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_late_price_is_folded_where_it_belongs_in_time() {
        prices();
        assert_eq!(at("'2024-01-15Z'", "price"), "{\"price\": 10}");
        assert_eq!(at("'2024-02-15Z'", "price"), "{\"price\": 11}");
        assert_eq!(at("'2024-03-15Z'", "price"), "{\"price\": 12}");
        assert_eq!(value("select es_state('a-1', 'price')"), "{\"price\": 12}");
        assert_eq!(value("select es_state_at_version('a-1', 3, 'price')"), "{\"price\": 12}");
    }

    #[pg_test]
    fn a_moment_counts_what_occurred_and_was_known_by_then() {
        prices();
        assert_eq!(at("'-infinity'", "total"), "{\"sum\": 0}");
        assert_eq!(at("'2023-12-31Z'", "total"), "{\"sum\": 0}");
        assert_eq!(at("'2024-01-01Z'", "total"), "{\"sum\": 10}");
        assert_eq!(at("'2024-02-01Z'", "total"), "{\"sum\": 21}");
        assert_eq!(at("'2024-03-01Z'", "total"), "{\"sum\": 33}");
        assert_eq!(at("'infinity'", "total"), "{\"sum\": 33}");
        assert_eq!(value("select es_state_at('a-1', 'infinity', '-infinity')"), "{\"sum\": 0}");
        assert_eq!(value("select es_state_at('a-1', 'infinity', 'infinity')"), "{\"sum\": 33}");
        assert_eq!(value("select es_state_at('a-1', '2024-02-01Z', '2000-01-01Z')"), "{\"sum\": 0}");
        assert_eq!(value("select es_state_at_version('a-1', 0)"), "{\"sum\": 0}");
    }

    #[pg_test]
    fn a_category_shows_the_streams_of_which_an_event_counts() {
        prices();
        run("select es_append('a-2', 'Priced', '{\"amount\": 1.50}', occurred_at => '2024-02-10 00:00:00+00')");
        run("select es_append('b-1', 'Priced', '{\"amount\": 7}')");
        assert_eq!(
            rows("select * from es_category_state('a')"),
            "(a-1,3,\"{\"\"sum\"\": 33}\",) (a-2,1,\"{\"\"sum\"\": 1.50}\",)"
        );
        assert_eq!(rows("select stream, version from es_category_state('a', '2024-02-01Z')"), "(a-1,3)");
        assert_eq!(rows("select stream from es_category_state('a', '-infinity')"), "");
        assert_eq!(
            rows("select stream, state from es_category_state('a', '2024-02-15Z', fold => 'price')"),
            "(a-1,\"{\"\"price\"\": 11}\") (a-2,\"{\"\"price\"\": 1.50}\")"
        );
        refused("ES010", "select * from es_category_state('b')");
        refused("ES010", "select * from es_category_state('nothing')");
    }

    #[pg_test]
    fn a_command_loads_the_state_and_the_version_to_expect() {
        prices();
        assert_eq!(rows("select * from es_load('a-1')"), "(\"{\"\"sum\"\": 33}\",3)");
        assert_eq!(rows("select * from es_load('a-1', 'price', true)"), "(\"{\"\"price\"\": 12}\",3)");
        assert_eq!(rows("select * from es_load('a-9')"), "(\"{\"\"sum\"\": 0}\",0)");
        assert_eq!(rows("select * from es_load('a-9', for_update => true)"), "(\"{\"\"sum\"\": 0}\",0)");
        assert_eq!(value("select es_append('a-9', 'Priced', '{\"amount\": 1}', expected_version => 0)"), "1");
    }

    #[pg_test]
    fn what_cannot_be_asked_is_said_with_its_name() {
        prices();
        for (code, call) in [
            ("ES005", "es_state(null)"),
            ("ES004", "es_state('nothing')"),
            ("ES002", "es_state('a-9')"),
            ("ES010", "es_state('b-1')"),
            ("ES010", "es_state('a-1', 'nothing')"),
            ("ES005", "es_state_at('a-1', null)"),
            ("ES002", "es_state_at('a-9', 'infinity')"),
            ("ES005", "es_state_at_version('a-1', null)"),
            ("ES005", "es_state_at_version('a-1', -1)"),
            ("ES005", "es_state_at_version('a-1', 4)"),
            ("ES005", "es_state_at_version('a-1', 9223372036854775807)"),
            ("ES005", "es_load('a-1', for_update => null)"),
            ("ES005", "es_category_state(null)"),
            ("ES005", "es_category_state('a-1')"),
            ("ES005", "es_register_fold(null, 'a', rules => '{\"on\": {}}')"),
            ("ES005", "es_register_fold('', 'a', rules => '{\"on\": {}}')"),
            ("ES005", "es_register_fold('f', 'a-b', rules => '{\"on\": {}}')"),
            ("ES005", "es_register_fold('f', 'a', rules => '{\"on\": {}}', snapshot_every => 0)"),
            ("ES005", "es_register_fold('f', 'a', rules => '{\"on\": {}}', fold_order => 'random')"),
            ("ES005", "es_register_fold('f', 'a', rules => '{\"on\": {}}', initial_state => null)"),
            ("ES011", "es_register_fold('f', 'a', rules => '[]')"),
            ("ES011", "es_register_fold('f', 'a', rules => '{\"on\": {\"T\": [{\"power\": {\"/a\": \"/b\"}}]}}')"),
            ("ES010", "es_unregister_fold('nothing')"),
        ] {
            refused(code, &format!("select {call}"));
        }
        let error = refused("ES005", "select es_state_at_version('a-1', 4)");
        assert!(error.message.contains("must be 0 to 3"), "{error:?}");
    }

    #[pg_test]
    fn a_rule_that_meets_a_value_it_cannot_use_says_which_rule_event_and_value() {
        prices();
        run("select es_append('a-1', 'Priced', '{\"amount\": \"twelve\"}')");
        let error = refused("ES013", "select es_state('a-1')");
        for part in ["fold \"total\" failed on stream \"a-1\" at version 4", "/on/Priced/0", "twelve"] {
            assert!(error.message.contains(part), "{part}: {error:?}");
        }
        run("select es_append('a-2', 'Priced', '{}')");
        assert!(refused("ES013", "select es_state('a-2')").message.contains("missing"));
    }

    #[pg_test]
    fn the_last_fold_registered_as_default_is_the_one() {
        prices();
        assert_eq!(rows("select name from eventstream.folds where is_default"), "(total)");
        run("select es_register_fold('price', 'a', rules => '{\"on\": {}}')");
        assert_eq!(rows("select name from eventstream.folds where is_default"), "(price)");
        assert_eq!(value("select es_state('a-1')"), "{}");
        run("select es_unregister_fold('price')");
        refused("ES010", "select es_state('a-1')");
    }

    #[pg_test]
    fn folds_belong_to_their_tenant() {
        prices();
        run("select es_create_tenant('other')");
        run("select es_use_tenant('other')");
        run("select es_append('a-1', 'Priced', '{\"amount\": 5}')");
        refused("ES010", "select es_state('a-1')");
        run(
            "select es_register_fold('total', 'a', rules => '{\"on\": {\"Priced\": [{\"subtract\": {\"/sum\": \"/amount\"}}]}}')",
        );
        assert_eq!(value("select es_state('a-1')"), "{\"sum\": -5}");
        run("select es_use_tenant('default')");
        assert_eq!(value("select es_state('a-1')"), "{\"sum\": 33}");
    }

    #[pg_test]
    fn a_day_ends_with_its_last_instant_where_the_books_are_kept() {
        let end = |day: &str, zone: &str| value(&format!("select es_day_end('{day}', '{zone}') at time zone 'UTC'"));
        assert_eq!(end("2024-10-31", "UTC"), "2024-10-31 23:59:59.999999");
        assert_eq!(end("2024-10-31", "Europe/Vienna"), "2024-10-31 22:59:59.999999");
        assert_eq!(end("2024-10-27", "Europe/Vienna"), "2024-10-27 22:59:59.999999");
        assert_eq!(end("2024-03-31", "Europe/Vienna"), "2024-03-31 21:59:59.999999");
        refused("ES005", "select es_day_end('2024-10-31', 'Nowhere/Land')");
    }
}
