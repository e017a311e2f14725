//! The settings: limits that a session cannot talk itself out of.
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::sql::{refused, run};
    use pgrx::pg_test;

    #[pg_test]
    fn limits_and_durability_belong_to_the_superuser() {
        run("create role t_pusher");
        run("set local role t_pusher");
        for setting in [
            "durability = session",
            "partition_size = 1000",
            "max_payload_bytes = '10MB'",
            "max_batch_events = 20000",
            "max_json_depth = 100",
            "max_number_digits = 5000",
            "max_future_skew = '10d'",
        ] {
            refused("42501", &format!("set local eventstream.{setting}"));
        }
        run("set local eventstream.tenant = 'any'");
    }

    #[pg_test]
    fn settings_take_only_values_that_make_sense() {
        for setting in [
            "durability = 'none'",
            "partition_size = 0",
            "partition_size = 99",
            "max_payload_bytes = 0",
            "max_payload_bytes = '1GB'",
            "max_batch_events = 0",
            "max_json_depth = 0",
            "max_json_depth = 100000",
            "max_number_digits = 0",
            "max_number_digits = 131072",
            "max_future_skew = -1",
        ] {
            refused("22023", &format!("set local eventstream.{setting}"));
        }
    }

    #[pg_test]
    fn limits_are_settings() {
        run("set local eventstream.max_payload_bytes = '2kB'");
        refused("ES007", "select es_append('a-1', 'T', to_jsonb(repeat('x', 3000)))");
        run("set local eventstream.max_payload_bytes = '2MB'");
        run("select es_append('a-1', 'T', to_jsonb(repeat('x', 2000000)))");
        run("set local eventstream.max_batch_events = 2");
        let batch = |count: u32| {
            format!(
                "select es_append_events('a-1', (select jsonb_agg('{{\"type\": \"T\", \"payload\": {{}}}}'::jsonb) from generate_series(1, {count})))"
            )
        };
        refused("ES007", &batch(3));
        run(&batch(2));
        run("set local eventstream.max_json_depth = 2");
        refused("ES007", "select es_append('a-1', 'T', '[[[]]]')");
        run("select es_append('a-1', 'T', '[[]]')");
        run("set local eventstream.max_number_digits = 20");
        refused("ES007", "select es_append('a-1', 'T', '123456789012345678901')");
        run("select es_append('a-1', 'T', '12345678901234567890')");
        run("set local eventstream.max_future_skew = 0");
        refused("ES007", "select es_append('a-1', 'T', '{}', occurred_at => now() + interval '1 minute')");
        run("set local eventstream.max_future_skew = '10d'");
        run("select es_append('a-1', 'T', '{}', occurred_at => now() + interval '9 days')");
    }
}
