//! Bad input to what reads and verifies, and to the small functions around names and ids.
use super::{BAD_STREAM_NAMES, Bad, Call, argument_refuses, fault};

const READ: Call = Call { function: "es_read", good: &[("stream", "'kept-1'")] };

const READ_ALL: Call = Call { function: "es_read_all", good: &[] };

const READ_BACKWARD: Call = Call { function: "es_read_backward", good: &[] };

const READ_SUBJECT: Call = Call { function: "es_read_subject", good: &[("subject", "'person-1'")] };

const EVENT: Call = Call { function: "es_event", good: &[("event_id", "gen_random_uuid()")] };

const STREAM_VERSION: Call = Call { function: "es_stream_version", good: &[("stream", "'kept-1'")] };

const STREAM: Call = Call { function: "es_stream", good: &[("stream", "'kept-1'")] };

const ULID: Call = Call { function: "es_ulid", good: &[("id", "gen_random_uuid()")] };

const ULID_TO_UUID: Call = Call { function: "es_ulid_to_uuid", good: &[("ulid", "'01H455VB4PEX5VSKNK084SN02Q'")] };

const STREAM_NAME: Call = Call { function: "es_stream_name", good: &[("category", "'a'"), ("id", "'1'")] };

const VERIFY_STREAM: Call = Call { function: "es_verify_stream", good: &[("stream", "'kept-1'")] };

const VERIFY: Call = Call { function: "es_verify", good: &[] };

const CHAIN_HEADS: Call = Call { function: "es_chain_heads", good: &[] };

const BAD_MAX_COUNT_OF_LOG: &[Bad<'static>] = &[
    ("null", "ES005", "max_count|must not be NULL"),
    ("0", "ES005", "max_count|100000"),
    ("-1", "ES005", "max_count|100000"),
    ("-2147483648", "ES005", "max_count|100000"),
    ("100001", "ES005", "max_count|100000|100001"),
    ("2147483647", "ES005", "max_count|100000"),
];

const BAD_AFTER_POSITION: &[Bad<'static>] = &[
    ("null", "ES005", "after_position|must not be NULL"),
    ("-1", "ES005", "after_position|-1"),
    ("-9223372036854775808", "ES005", "after_position"),
];

const BAD_CATEGORIES: &[Bad<'static>] = &[
    ("'{a,null}'", "ES005", "categories|NULL"),
    ("'{a,a-b}'", "ES005", "categories"),
    ("'{\"\"}'", "ES005", "categories|empty"),
    ("array[E'a\\n']", "ES005", "categories|control"),
    ("array[repeat('x', 511)]", "ES005", "categories|510"),
];

const BAD_EVENT_TYPES: &[Bad<'static>] = &[
    ("'{A,null}'", "ES005", "event_types|NULL"),
    ("'{\"\"}'", "ES005", "event_types|empty"),
    ("array[E'A\\n']", "ES005", "event_types|control"),
    ("array[repeat('x', 256)]", "ES005", "event_types|255"),
];

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use crate::pg_test::sql::{rows, run};
    use pgrx::pg_test;

    /// PostgreSQL says no type of an array by its dimensions, and its elements would be taken as a flat list.
    #[pg_test]
    fn a_list_of_lists_is_no_list() {
        run("create function h(eventstream.event) returns void language sql as 'select'");
        let calls = [
            ("es_append", "tags", "'kept-1', 'T', '{}'"),
            ("es_make_event", "tags", "'T', '1'"),
            ("es_read", "event_types", "'kept-1'"),
            ("es_read_all", "categories", ""),
            ("es_read_all", "event_types", ""),
            ("es_read_all", "tags", ""),
            ("es_read_backward", "categories", ""),
            ("es_read_backward", "event_types", ""),
            ("es_read_backward", "tags", ""),
            ("es_close_period", "categories", "closed_until => now(), reason => 'r'"),
            ("es_reopen_period", "categories", "closed_until => now(), reason => 'r'"),
            ("es_protect", "pointers", "'T'"),
            ("es_protect", "clear_pointers", "'T'"),
            ("es_protect", "metadata_pointers", "'T', pointers => '{}'"),
            ("es_register_invariant", "categories", "'i'"),
            ("es_register_invariant", "event_types", "'i', '{account}'"),
            ("es_create_subscription", "categories", "'s'"),
            ("es_create_subscription", "event_types", "'s'"),
            ("es_create_projection", "categories", "'p', 'h(eventstream.event)'"),
            ("es_create_projection", "event_types", "'p', 'h(eventstream.event)'"),
        ];
        let named: Vec<_> = calls.iter().map(|(function, argument, _)| format!("({function},{argument})")).collect();
        let there = "select p.proname, a.name from pg_proc p, unnest(proargtypes, proargnames[1:pronargs]) a (type, name) \
                     where p.proname like 'es\\_%' and a.type = 'text[]'::regtype";
        let mut there: Vec<_> = rows(there).split_inclusive(')').map(|row| row.trim().to_owned()).collect();
        there.sort();
        let mut sorted = named.clone();
        sorted.sort();
        assert_eq!(there, sorted);
        for (function, argument, before) in calls {
            let comma = if before.is_empty() { "" } else { ", " };
            let call = format!("select {function}({before}{comma}{argument} => '{{{{a,b}},{{c,d}}}}')");
            assert_eq!(fault(&call, "ES005", &format!("{argument}|flat list|2 dimensions")), None);
        }
    }

    #[pg_test]
    fn es_read_refuses_bad_input() {
        argument_refuses(&READ, "stream", BAD_STREAM_NAMES);
        for (argument, expression, code, named) in [
            ("from_version", "0", "ES005", "from_version|0"),
            ("from_version", "-1", "ES005", "from_version|-1"),
            ("from_version", "-9223372036854775808", "ES005", "from_version"),
            ("max_count", "-1", "ES005", "max_count|-1"),
            ("max_count", "-9223372036854775808", "ES005", "max_count"),
            ("backward", "null", "ES005", "backward|must not be NULL"),
            ("raw", "null", "ES005", "raw|must not be NULL"),
        ] {
            assert_eq!(fault(&READ.with(argument, expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_accepts_enormous_versions_and_counts() {
        run("select es_append('kept-1', 'T', '{}')");
        assert_eq!(rows("select version from es_read('kept-1', from_version => 9223372036854775807)"), "");
        assert_eq!(rows("select version from es_read('kept-1', max_count => 9223372036854775807)"), "(1)");
        assert_eq!(
            rows("select version from es_read('kept-1', from_version => 9223372036854775807, backward => true)"),
            "(1)"
        );
        assert_eq!(rows("select version from es_read('kept-1', max_count => 0)"), "");
        assert_eq!(rows("select version from es_read('kept-1', until => 'infinity')"), "(1)");
        assert_eq!(rows("select version from es_read('kept-1', until => '-infinity')"), "");
    }

    #[pg_test]
    fn es_read_all_refuses_bad_input() {
        argument_refuses(&READ_ALL, "after_position", BAD_AFTER_POSITION);
        let beyond = "(select last_value + 1000000 from _eventstream.positions)";
        assert_eq!(fault(&READ_ALL.with("after_position", beyond), "ES025", "after_position|beyond"), None);
        assert_eq!(
            fault(&READ_ALL.with("after_position", "9223372036854775807"), "ES025", "after_position|beyond"),
            None
        );
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_ALL.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_all_refuses_bad_filters() {
        argument_refuses(&READ_ALL, "categories", BAD_CATEGORIES);
        for (expression, code, named) in BAD_EVENT_TYPES {
            assert_eq!(fault(&READ_ALL.with("event_types", expression), code, named), None);
        }
        assert_eq!(fault(&READ_ALL.with("up_to", "-1"), "ES005", "up_to|-1"), None);
    }

    #[pg_test]
    fn es_read_backward_refuses_bad_input() {
        argument_refuses(
            &READ_BACKWARD,
            "before_position",
            &[("-1", "ES005", "before_position|-1"), ("-9223372036854775808", "ES005", "before_position")],
        );
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_BACKWARD.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_backward_refuses_bad_filters() {
        argument_refuses(&READ_BACKWARD, "categories", BAD_CATEGORIES);
        for (expression, code, named) in BAD_EVENT_TYPES {
            assert_eq!(fault(&READ_BACKWARD.with("event_types", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_read_subject_refuses_bad_input() {
        argument_refuses(
            &READ_SUBJECT,
            "subject",
            &[
                ("null", "ES005", "subject|must not be NULL"),
                ("''", "ES005", "subject|empty"),
                ("repeat('x', 256)", "ES005", "subject|255"),
                ("E'a\\nb'", "ES005", "subject|control"),
                ("' a'", "ES005", "subject|blank"),
            ],
        );
        for (expression, code, named) in BAD_AFTER_POSITION {
            assert_eq!(fault(&READ_SUBJECT.with("after_position", expression), code, named), None);
        }
        for (expression, code, named) in BAD_MAX_COUNT_OF_LOG {
            assert_eq!(fault(&READ_SUBJECT.with("max_count", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_event_refuses_null() {
        argument_refuses(&EVENT, "event_id", &[("null", "ES005", "event_id|must not be NULL")]);
    }

    #[pg_test]
    fn es_stream_version_refuses_bad_stream_names() {
        argument_refuses(&STREAM_VERSION, "stream", BAD_STREAM_NAMES);
    }

    #[pg_test]
    fn es_stream_refuses_bad_stream_names() {
        argument_refuses(&STREAM, "stream", BAD_STREAM_NAMES);
        assert_eq!(fault(&STREAM.with("stream", "'none-1'"), "ES002", "none-1"), None);
    }

    #[pg_test]
    fn es_ulid_and_es_ulid_to_uuid_refuse_bad_input() {
        argument_refuses(&ULID, "id", &[("null", "ES005", "id|must not be NULL")]);
        for (expression, named) in [
            ("null", "ulid|must not be NULL"),
            ("''", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02'", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02QQ'", "ulid|26"),
            ("'01H455VB4PEX5VSKNK084SN02U'", "ulid|Crockford"),
            ("'81H455VB4PEX5VSKNK084SN02Q'", "ulid|7ZZZ"),
            ("E'01H455VB4PEX5VSKNK084SN02\\n'", "ulid"),
            ("'01890a5d-ac96-774b-bcce-b302099a8057'", "ulid|26"),
            ("repeat('é', 13)", "ulid"),
            ("repeat('0', 1000000)", "ulid|26"),
            ("repeat('0', 10000000)", "ulid|must be shorter|10000000"),
        ] {
            assert_eq!(fault(&ULID_TO_UUID.with("ulid", expression), "ES005", named), None);
        }
    }

    #[pg_test]
    fn es_stream_name_refuses_bad_parts() {
        argument_refuses(
            &STREAM_NAME,
            "category",
            &[
                ("null", "ES005", "category|must not be NULL"),
                ("''", "ES004", "category|empty"),
                ("'a-b'", "ES004", "category|-"),
                ("' a'", "ES004", "category|blank"),
                ("E'a\\n'", "ES004", "category|control"),
                ("repeat('x', 511)", "ES004", "512"),
                ("repeat('x', 1000000)", "ES004", "512"),
                ("repeat('x', 10000000)", "ES005", "category|must be shorter|10000000"),
            ],
        );
        for (expression, code, named) in [
            ("null", "ES005", "id|must not be NULL"),
            ("''", "ES004", "id|empty"),
            ("'1 '", "ES004", "id|blank"),
            ("E'1\\n'", "ES004", "id|control"),
            ("repeat('x', 511)", "ES004", "512"),
        ] {
            assert_eq!(fault(&STREAM_NAME.with("id", expression), code, named), None);
        }
    }

    #[pg_test]
    fn es_verify_stream_refuses_bad_stream_names() {
        argument_refuses(&VERIFY_STREAM, "stream", BAD_STREAM_NAMES);
        assert_eq!(fault(&VERIFY_STREAM.with("stream", "'none-1'"), "ES002", "none-1"), None);
    }

    #[pg_test]
    fn es_verify_and_es_chain_heads_refuse_bad_positions() {
        argument_refuses(
            &VERIFY,
            "from_position",
            &[
                ("null", "ES005", "from_position|must not be NULL"),
                ("-1", "ES005", "from_position|-1"),
                ("-9223372036854775808", "ES005", "from_position"),
            ],
        );
        assert_eq!(fault(&VERIFY.with("to_position", "-1"), "ES005", "to_position|-1"), None);
        assert_eq!(
            fault("select * from es_verify(from_position => 10, to_position => 9)", "ES005", "to_position|10|9"),
            None
        );
        assert_eq!(fault(&CHAIN_HEADS.with("up_to", "-1"), "ES005", "up_to|-1"), None);
        assert_eq!(fault(&CHAIN_HEADS.with("up_to", "-9223372036854775808"), "ES005", "up_to"), None);
    }
}
