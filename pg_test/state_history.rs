//! es_history and es_timeline: the state after each version and at each moment, as es_state_at_version and es_state_at give them, in
//! both orders of folding.
use crate::pg_test::read::to_the_edge;
use crate::pg_test::sql::{refused, rows, run, value};

/// Folds `by_version` (the default one) and `by_time` of category `account`: a sum, and the versions in the order in which they were
/// folded, which do not commute.
pub fn folds() {
    run(
        "create function tests.fold_account(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$ \
         begin \
             return jsonb_build_object('balance', (state ->> 'balance')::numeric + (event.payload ->> 'amount')::numeric, \
                                       'folded', state -> 'folded' || to_jsonb(event.version)); \
         end $$",
    );
    for (name, order) in [("by_time", "occurred_at"), ("by_version", "version")] {
        run(&format!(
            "select es_register_fold('{name}', 'account', 'tests.fold_account(jsonb, eventstream.event)', \
             initial_state => '{{\"balance\": 0.00, \"folded\": []}}', fold_order => '{order}')"
        ));
    }
}

/// account-1: January, March, late for February, March again at the same moment, late for before January, April.
pub fn account() {
    folds();
    for (day, amount) in [
        ("2024-01-01", "1.00"),
        ("2024-03-01", "2.50"),
        ("2024-02-01", "4"),
        ("2024-03-01", "8"),
        ("2023-12-01", "16"),
        ("2024-04-01", "32"),
    ] {
        run(&format!(
            "select es_append('account-1', 'Credited', '{{\"amount\": {amount}}}', occurred_at => '{day} 00:00:00+00')"
        ));
    }
}

/// A stream of random amounts, about one in seven of them late, with equal times among them.
pub fn random_stream(name: &str, events: u32) {
    run(&format!(
        "select es_append('{name}', 'Credited', jsonb_build_object('amount', (random() * 1000)::int / 100.0), \
             occurred_at => timestamptz '2024-01-01 00:00:00+00' \
                 + (case when random() < 0.15 then (random() * i)::int else i + (random() * 2)::int end) * interval '1 day') \
         from generate_series(1, {events}) i"
    ));
}

/// A fold of category `doc` whose state is the event's payload.
fn documents() {
    run("create function tests.document(state jsonb, event eventstream.event) returns jsonb immutable \
         begin atomic select (event).payload; end");
    run(
        "select es_register_fold('document', 'doc', 'tests.document(jsonb, eventstream.event)', initial_state => 'null')",
    );
}

/// What changes between two documents.
fn changes(from: &str, to: &str) -> String {
    let id = value("select 'doc-' || nextval('tests.documents')");
    run(&format!("select es_append('{id}', 'Set', '{from}'), es_append('{id}', 'Set', '{to}')"));
    value(&format!("select changes from es_history('{id}', from_version => 2)"))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn es_history_shows_the_state_after_each_version_and_what_changed() {
        account();
        assert_eq!(
            rows("select version, state, changes from es_history('account-1', max_count => 3)"),
            r#"(1,"{""folded"": [1], ""balance"": 1.00}","{""/balance"": {""to"": 1.00, ""from"": 0.00}, ""/folded/0"": {""to"": 1}}") (2,"{""folded"": [1, 2], ""balance"": 3.50}","{""/balance"": {""to"": 3.50, ""from"": 1.00}, ""/folded/1"": {""to"": 2}}") (3,"{""folded"": [1, 2, 3], ""balance"": 7.50}","{""/balance"": {""to"": 7.50, ""from"": 3.50}, ""/folded/2"": {""to"": 3}}")"#
        );
        assert_eq!(
            rows(
                "select version, event_type, occurred_at = (es_read('account-1', 6, 1)).occurred_at, \
                  recorded_at = (es_read('account-1', 6, 1)).recorded_at from es_history('account-1', from_version => 6)"
            ),
            "(6,Credited,t,t)"
        );
    }

    #[pg_test]
    fn es_history_puts_late_events_in_their_place_where_the_fold_does() {
        account();
        assert_eq!(
            rows(
                "select version, state -> 'folded' as folded, changes -> '/folded' as changes from es_history('account-1', fold => 'by_time')"
            ),
            r#"(1,[1],) (2,"[1, 2]",) (3,"[1, 3, 2]","{""to"": [1, 3, 2], ""from"": [1, 2]}") (4,"[1, 3, 2, 4]",) (5,"[5, 1, 3, 2, 4]","{""to"": [5, 1, 3, 2, 4], ""from"": [1, 3, 2, 4]}") (6,"[5, 1, 3, 2, 4, 6]",)"#
        );
    }

    #[pg_test]
    fn es_history_is_es_state_at_version_row_by_row() {
        folds();
        run("select setseed(0.3)");
        for (stream, events) in [("account-2", 7), ("account-3", 40), ("account-4", 300)] {
            // The longest one lies in two partitions.
            to_the_edge(150);
            random_stream(stream, events);
            for fold in ["by_version", "by_time"] {
                for (from, count) in [(1, "null"), (events / 2, "5"), (events - 1, "null")] {
                    let differing = rows(&format!(
                        "select h.version from es_history('{stream}', {from}, {count}, '{fold}') h \
                         where state::text <> es_state_at_version('{stream}', version, '{fold}')::text"
                    ));
                    assert_eq!(differing, "", "{stream} by {fold} from {from}");
                }
                let versions = format!(
                    "select array_agg(version) = array(select generate_series(1, {events}))::bigint[] from es_history('{stream}', fold => '{fold}')"
                );
                assert_eq!(value(&versions), "true");
                let quiet = rows(&format!(
                    "select version from (select version, changes, state, lag(state) over (order by version) as before \
                     from es_history('{stream}', fold => '{fold}')) h \
                     where version > 1 and (changes = '{{}}') <> (state::text = before::text)"
                ));
                assert_eq!(quiet, "");
            }
        }
    }

    #[pg_test]
    fn es_history_starts_and_stops_where_it_is_told() {
        account();
        let versions = |arguments: &str| rows(&format!("select version from es_history('account-1'{arguments})"));
        assert_eq!(versions(", from_version => 4"), "(4) (5) (6)");
        assert_eq!(versions(", 2, 2"), "(2) (3)");
        assert_eq!(versions(", max_count => 0"), "");
        assert_eq!(versions(", from_version => 7"), "");
        assert_eq!(versions(", 9223372036854775807, 9223372036854775807"), "");
        assert_eq!(versions(", 5, 9223372036854775807"), "(5) (6)");
        assert_eq!(versions(", 5, 9223372036854775807, 'by_time'"), "(5) (6)");
    }

    #[pg_test]
    fn es_history_shows_event_types_as_upcast() {
        account();
        run("create function tests.doubled(payload jsonb, metadata jsonb) returns jsonb immutable \
             begin atomic select jsonb_build_object('amount', (payload ->> 'amount')::numeric * 2); end");
        run("select es_register_upcaster('Credited', 1, 'tests.doubled(jsonb, jsonb)', 'CreditedTwice')");
        assert_eq!(
            rows(
                "select version, event_type, state ->> 'balance' as balance from es_history('account-1', max_count => 2)"
            ),
            "(1,CreditedTwice,2.00) (2,CreditedTwice,7.00)"
        );
        assert_eq!(
            rows("select distinct event_type from es_history('account-1', fold => 'by_time')"),
            "(CreditedTwice)"
        );
    }

    #[pg_test]
    fn changes_name_each_place_by_its_pointer() {
        documents();
        run("create sequence tests.documents");
        for (from, to, expected) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#, "{}"),
            (r#"{"a": 1}"#, r#"{"a": 2}"#, r#"{"/a": {"to": 2, "from": 1}}"#),
            (r#"{"a": 1.0}"#, r#"{"a": 1.00}"#, r#"{"/a": {"to": 1.00, "from": 1.0}}"#),
            (r#"{"a": 1}"#, r#"{"b": 1}"#, r#"{"/a": {"from": 1}, "/b": {"to": 1}}"#),
            (r#"{"a": null}"#, "{}", r#"{"/a": {"from": null}}"#),
            (r#"{"z": 1, "aa": 1}"#, r#"{"aa": 1}"#, r#"{"/z": {"from": 1}}"#),
            (r#"{"a": null}"#, r#"{"a": false}"#, r#"{"/a": {"to": false, "from": null}}"#),
            (
                r#"{"a": {"b": {"c": "x", "d": 1}}}"#,
                r#"{"a": {"b": {"c": "y", "d": 1}}}"#,
                r#"{"/a/b/c": {"to": "y", "from": "x"}}"#,
            ),
            (r#"{"a": {}}"#, r#"{"a": {"b": {"c": 1}}}"#, r#"{"/a/b": {"to": {"c": 1}}}"#),
            (r#"{"a": {"b": 1}}"#, r#"{"a": [1]}"#, r#"{"/a": {"to": [1], "from": {"b": 1}}}"#),
            (r#"{"a": [1]}"#, r#"{"a": [1, {"b": 2}, 3]}"#, r#"{"/a/1": {"to": {"b": 2}}, "/a/2": {"to": 3}}"#),
            (r#"{"a": []}"#, r#"{"a": [0]}"#, r#"{"/a/0": {"to": 0}}"#),
            (r#"{"a": [1, 2]}"#, r#"{"a": [1]}"#, r#"{"/a": {"to": [1], "from": [1, 2]}}"#),
            (r#"{"a": [1, 2]}"#, r#"{"a": [1, 3]}"#, r#"{"/a": {"to": [1, 3], "from": [1, 2]}}"#),
            (
                r#"{"": 1, "a/b": 1, "m~n": 1}"#,
                r#"{"": 2, "a/b": 2, "m~n": 2}"#,
                r#"{"/": {"to": 2, "from": 1}, "/a~1b": {"to": 2, "from": 1}, "/m~0n": {"to": 2, "from": 1}}"#,
            ),
            ("1", "2", r#"{"": {"to": 2, "from": 1}}"#),
            (r#""x""#, r#"{"x": 1}"#, r#"{"": {"to": {"x": 1}, "from": "x"}}"#),
            ("[1]", "[1, 2]", r#"{"/1": {"to": 2}}"#),
            ("[]", "{}", r#"{"": {"to": {}, "from": []}}"#),
            (
                r#"{"long": 1, "b": 1}"#,
                r#"{"long": 1, "c": 1, "bb": 1}"#,
                r#"{"/b": {"from": 1}, "/c": {"to": 1}, "/bb": {"to": 1}}"#,
            ),
            (
                "123456789012345678901234567890.10",
                "123456789012345678901234567890.11",
                r#"{"": {"to": 123456789012345678901234567890.11, "from": 123456789012345678901234567890.10}}"#,
            ),
        ] {
            assert_eq!(changes(from, to), expected, "{from} to {to}");
        }
    }

    #[pg_test]
    fn changes_show_the_whole_where_too_many_places_changed() {
        documents();
        run("create sequence tests.documents");
        let members = |count: usize, all: &str| {
            let members: Vec<String> = (0..count).map(|key| format!("\"k{key}\": {all}")).collect();
            format!("{{{}}}", members.join(", "))
        };
        let keys = |from: &str, to: &str| {
            let found: serde_json::Value = serde_json::from_str(&changes(from, to)).expect("changes are JSON");
            found.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&members(1000, "1"), &members(1000, "2")).len(), 1000);
        assert_eq!(keys(&members(1001, "1"), &members(1001, "2")), [""]);
        assert_eq!(keys("{}", &members(1001, "2")), [""]);
        let array = |count: usize| format!("[{}]", vec!["0"; count].join(", "));
        assert_eq!(keys("[]", &array(1000)).len(), 1000);
        assert_eq!(keys("[]", &array(1001)), [""]);
        let key = "k".repeat(1030);
        let within = |value: u32| format!("{{\"{key}\": {{\"a\": {value}}}}}");
        assert_eq!(keys(&within(1), &within(2)), [format!("/{key}")]);
    }

    #[pg_test]
    fn changes_of_a_state_5000_levels_deep_do_not_overflow_the_stack() {
        run(
            "create function tests.deep(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$ \
             begin return (repeat('{\"a\":', 5000) || event.version || repeat('}', 5000))::jsonb; end $$",
        );
        run("select es_register_fold('deep', 'deep', 'tests.deep(jsonb, eventstream.event)')");
        run("select es_append('deep-1', 'T', '{}'), es_append('deep-1', 'T', '{}')");
        let place = "/a".repeat(64);
        assert_eq!(
            value("select string_agg(key, ' ') from es_history('deep-1', 2), jsonb_object_keys(changes) key"),
            place
        );
        assert_eq!(
            value(&format!("select length(changes #>> '{{{place},to}}') from es_history('deep-1', 2)")),
            value("select length((repeat('{\"a\": ', 5000 - 64) || 2 || repeat('}', 5000 - 64))::text)")
        );
    }

    #[pg_test]
    fn es_timeline_has_a_row_for_each_moment() {
        account();
        run("set time zone 'UTC'");
        let expected = [
            ("2023-12-01", "2024-01-01", "5", "16.00"),
            ("2024-01-01", "2024-02-01", "5", "17.00"),
            ("2024-02-01", "2024-03-01", "5", "21.00"),
            ("2024-03-01", "2024-04-01", "5", "31.50"),
            ("2024-04-01", "", "6", "63.50"),
        ];
        let expected: Vec<String> =
            expected.iter().map(|(from, to, version, balance)| format!("({from},{to},{version},{balance})")).collect();
        for fold in ["by_version", "by_time"] {
            assert_eq!(
                rows(&format!(
                    "select valid_from::date, valid_to::date, version, state ->> 'balance' from es_timeline('account-1', fold => '{fold}')"
                )),
                expected.join(" ")
            );
        }
        assert_eq!(
            rows("select state -> 'folded' from es_timeline('account-1')"),
            r#"([5]) ("[1, 5]") ("[1, 3, 5]") ("[1, 2, 3, 4, 5]") ("[1, 2, 3, 4, 5, 6]")"#
        );
        assert_eq!(
            rows("select state -> 'folded' from es_timeline('account-1', fold => 'by_time')"),
            r#"([5]) ("[5, 1]") ("[5, 1, 3]") ("[5, 1, 3, 2, 4]") ("[5, 1, 3, 2, 4, 6]")"#
        );
    }

    #[pg_test]
    fn es_timeline_is_es_state_at_row_by_row() {
        folds();
        run("select setseed(0.4)");
        for (stream, events) in [("account-2", 1), ("account-3", 40), ("account-4", 200)] {
            to_the_edge(150);
            random_stream(stream, events);
            let middle = format!("(select recorded_at from es_read('{stream}', {}, 1))", events.div_ceil(2));
            for known_at in ["null", "'infinity'", &middle] {
                for fold in ["by_version", "by_time"] {
                    let events = format!(
                        "(select * from es_read('{stream}') where recorded_at <= coalesce({known_at}::timestamptz, 'infinity'))"
                    );
                    let differing = rows(&format!(
                        "select valid_from from (select *, lead(valid_from) over (order by valid_from) as next \
                                                 from es_timeline('{stream}', {known_at}, '{fold}')) t \
                         where state::text <> es_state_at('{stream}', valid_from, {known_at}, '{fold}')::text \
                            or valid_to is distinct from next \
                            or version <> (select max(version) from {events} e where occurred_at <= valid_from)"
                    ));
                    assert_eq!(differing, "", "{stream} by {fold} at {known_at}");
                    assert_eq!(
                        rows(&format!("select valid_from from es_timeline('{stream}', {known_at}, '{fold}')")),
                        rows(&format!("select distinct occurred_at from {events} e order by 1"))
                    );
                }
            }
        }
    }

    #[pg_test]
    fn es_timeline_is_empty_before_anything_was_known() {
        account();
        for fold in ["by_version", "by_time"] {
            assert_eq!(rows(&format!("select * from es_timeline('account-1', '-infinity', '{fold}')")), "");
            assert_eq!(
                rows(&format!("select * from es_timeline('account-1', '2000-01-01 00:00:00+00', '{fold}')")),
                ""
            );
        }
    }

    #[pg_test]
    fn history_passes_a_handlers_error_on() {
        account();
        run("select es_append('account-1', 'Credited', '{\"amount\": \"much\"}')");
        for call in
            ["es_history('account-1')", "es_timeline('account-1')", "es_history('account-1', fold => 'by_time')"]
        {
            let error = refused("22P02", &format!("select * from {call}"));
            assert!(error.context.contains("stream \"account-1\" at version 7"), "{}", error.context);
        }
    }
}
