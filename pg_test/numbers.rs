//! A JSON number is a PostgreSQL numeric from end to end (invariant 7): value and scale stay, whatever way an event takes.
use crate::pg_test::sql::{rows, run, value};

/// A number as the caller writes it, and as PostgreSQL's own jsonb prints it.
const NUMBERS: &[(&str, &str)] = &[
    ("1234567890123456.78", "1234567890123456.78"),
    ("1.00", "1.00"),
    ("1.0", "1.0"),
    ("0.10", "0.10"),
    ("-0", "0"),
    ("-0.0", "0.0"),
    ("1e2", "100"),
    ("1.50e1", "15.0"),
    ("1e-3", "0.001"),
    ("9007199254740993", "9007199254740993"),
    ("18446744073709551617", "18446744073709551617"),
    ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
];

fn documents() -> impl Iterator<Item = (String, String)> {
    let e400 = format!("1{}", "0".repeat(400));
    NUMBERS
        .iter()
        .map(|(given, kept)| ((*given).to_owned(), (*kept).to_owned()))
        .chain([("1e400".to_owned(), e400.clone()), (e400.clone(), e400)])
        .collect::<Vec<_>>()
        .into_iter()
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn numbers_keep_value_and_scale_in_payload_and_metadata() {
        for (place, (given, kept)) in documents().enumerate() {
            run(&format!(
                "select es_append('a-{place}', 'T', '{{\"n\": {given}}}', metadata => '{{\"m\": [{given}]}}')"
            ));
            for source in [
                format!("es_read('a-{place}')"),
                format!("(select * from eventstream.events where stream = 'a-{place}') e"),
                "es_read_backward(max_count => 1)".to_owned(),
                "es_event((es_last_append()).event_ids[1])".to_owned(),
            ] {
                assert_eq!(
                    value(&format!("select payload::text || ' ' || metadata::text from {source}")),
                    format!("{{\"n\": {kept}}} {{\"m\": [{kept}]}}"),
                    "{given} by {source}"
                );
            }
        }
    }

    #[pg_test]
    fn numbers_keep_value_and_scale_in_batches() {
        for (place, (given, kept)) in documents().enumerate() {
            let event = format!(r#"{{"type": "T", "payload": {{"n": {given}}}, "metadata": {{"n": {given}}}}}"#);
            run(&format!("select es_append_events('a-{place}', '[{event}]')"));
            run(&format!(
                r#"select stream, version from es_append_streams('[{{"stream": "b-{place}", "events": [{event}]}}]')"#
            ));
            for stream in ["a", "b"] {
                assert_eq!(
                    rows(&format!("select payload ->> 'n', metadata ->> 'n' from es_read('{stream}-{place}')")),
                    format!("({kept},{kept})"),
                    "{given}"
                );
            }
        }
    }

    #[pg_test]
    fn a_number_alone_is_a_payload_too() {
        for (place, (given, kept)) in documents().enumerate() {
            run(&format!("select es_append('a-{place}', 'T', '{given}')"));
            run(&format!(r#"select es_append_events('a-{place}', '[{{"type": "T", "payload": {given}}}]')"#));
            assert_eq!(rows(&format!("select payload from es_read('a-{place}')")), format!("({kept}) ({kept})"));
        }
    }

    #[pg_test]
    fn a_number_of_1000_digits_comes_back_digit_for_digit() {
        let digits = "1234567890".repeat(100);
        run(&format!("select es_append('a-1', 'T', '{{\"n\": {digits}}}')"));
        assert_eq!(value("select payload ->> 'n' from es_read('a-1')"), digits);
    }

    #[pg_test]
    fn sums_over_events_are_exact() {
        run("select es_append('a-1', 'Paid', '{\"amount\": 0.10}') from generate_series(1, 1000)");
        assert_eq!(value("select sum((payload ->> 'amount')::numeric) from es_read('a-1')"), "100.00");
    }

    #[pg_test]
    fn the_chain_covers_the_text_with_its_scale() {
        run("select es_append('a-1', 'T', '{\"n\": 1.00}')");
        run("set eventstream.allow_drop = on");
        run("alter table _eventstream.events_1 disable trigger all");
        // The same number to jsonb's own comparison.
        run("update _eventstream.events_1 set payload = '{\"n\": 1.0}' where payload = '{\"n\": 1.00}'");
        assert_eq!(rows("select version from es_verify_stream('a-1')"), "(1)");
    }
}
