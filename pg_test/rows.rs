//! es_read to callers that take rows one by one (in a target list, by COPY, from a cursor): the same rows, page after page, whatever
//! happens between two of them.
use crate::pg_test::read::to_the_edge;
use crate::pg_test::sql::{caught, refused, rows, run, value};

/// A stream of `count` events, whose payload is the version.
fn stream_of(count: u32) {
    run(&format!(
        "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i, \
         'occurred_at', timestamptz '2024-01-01 00:00:00+00' + i * interval '1 minute') order by i) from generate_series(1, {count}) i))"
    ));
}

/// What a call in the target list gives: how many rows, the first and the last version, whether each is whole, and none twice. The
/// versions are gathered by an aggregate alone: beside count(distinct …), newer planners sort what it gets.
fn by_rows(call: &str) -> String {
    rows(&format!(
        "select cardinality(versions), versions[1], versions[cardinality(versions)], whole, \
                (select count(distinct version) from unnest(versions) version) = cardinality(versions) \
         from (select coalesce(array_agg((e).version), '{{}}') as versions, \
                      coalesce(bool_and(((e).payload)::bigint = (e).version), true) as whole \
               from (select {call} as e offset 0) e) gathered"
    ))
}

#[pgrx::pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_call_in_the_target_list_gives_every_row_once() {
        for (more, count) in [(1, 1), (498, 499), (1, 500), (1, 501), (498, 999), (1, 1000), (1, 1001), (299, 1300)] {
            stream_of_more(more);
            assert_eq!(by_rows("es_read('a-1')"), format!("({count},1,{count},t,t)"));
            assert_eq!(
                by_rows("es_read('a-1', from_version => null, backward => true)"),
                format!("({count},{count},1,t,t)")
            );
        }
    }

    /// Appends more events to the same stream.
    fn stream_of_more(count: u32) {
        run(&format!(
            "select es_append_events('a-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i + es_stream_version('a-1')) \
             order by i) from generate_series(1, {count}) i))"
        ));
    }

    #[pg_test]
    fn ranges_hold_across_pages() {
        stream_of(1300);
        assert_eq!(by_rows("es_read('a-1', max_count => 500)"), "(500,1,500,t,t)");
        assert_eq!(by_rows("es_read('a-1', max_count => 501)"), "(501,1,501,t,t)");
        assert_eq!(by_rows("es_read('a-1', from_version => 300, max_count => 1000)"), "(1000,300,1299,t,t)");
        assert_eq!(by_rows("es_read('a-1', from_version => 700, backward => true)"), "(700,700,1,t,t)");
        assert_eq!(
            by_rows("es_read('a-1', from_version => 700, backward => true, max_count => 600)"),
            "(600,700,101,t,t)"
        );
        assert_eq!(by_rows("es_read('a-1', until => '2024-01-01 15:00:00+00')"), "(900,1,900,t,t)");
        assert_eq!(by_rows("es_read('a-1', max_count => 0)"), "(0,,,t,t)");
        assert_eq!(by_rows("es_read('none-1')"), "(0,,,t,t)");
    }

    #[pg_test]
    fn pages_go_on_over_edges_of_partitions() {
        to_the_edge(700);
        stream_of(1300);
        assert_eq!(value("select count(distinct tableoid) from _eventstream.events"), "2");
        assert_eq!(by_rows("es_read('a-1')"), "(1300,1,1300,t,t)");
        assert_eq!(by_rows("es_read('a-1', from_version => 600, max_count => 600)"), "(600,600,1199,t,t)");
        assert_eq!(by_rows("es_read('a-1', backward => true)"), "(1300,1300,1,t,t)");
        assert_eq!(
            by_rows("es_read('a-1', from_version => 800, backward => true, max_count => 200)"),
            "(200,800,601,t,t)"
        );
        assert_eq!(by_rows("es_read('a-1', until => '2024-01-01 15:00:00+00')"), "(900,1,900,t,t)");
    }

    #[pg_test]
    fn stopping_early_leaves_nothing_behind() {
        stream_of(1300);
        for _ in 0..50 {
            assert_eq!(value("select (e).version from (select es_read('a-1') as e offset 0) e limit 1"), "1");
        }
        assert_eq!(value("select es_append('a-1', 'T', '1301', 1300)"), "1301");
    }

    #[pg_test]
    fn several_reads_run_side_by_side_and_again() {
        stream_of(700);
        run("select es_append('b-1', 'T', to_jsonb(i)) from generate_series(1, 600) i");
        assert_eq!(
            rows(
                "select count((a).version), count((b).version), sum((a).version - (b).version) \
                  from (select es_read('a-1') as a, es_read('b-1') as b offset 0) both_of_them"
            ),
            "(700,600,0)"
        );
        assert_eq!(
            rows(
                "select stream, count(*) from unnest(array['a-1', 'b-1', 'a-1', 'none-1']) name, \
                  lateral (select (es_read(name)).stream) e group by stream order by stream"
            ),
            "(a-1,1400) (b-1,600)"
        );
    }

    #[pg_test]
    fn a_cursor_keeps_what_it_saw_while_the_stream_goes_on() {
        stream_of(1300);
        run("do $$ \
             declare c cursor for select (e).version as version from (select es_read('a-1') as e offset 0) e; r record; seen bigint := 0; \
             begin \
                 open c; \
                 loop \
                     fetch c into r; exit when not found; \
                     seen := seen + 1; \
                     if r.version <> seen then raise 'version % after %', r.version, seen; end if; \
                     if seen % 400 = 0 then perform es_append('a-1', 'T', '0'); end if; \
                     begin \
                         perform es_append('b-1', 'T', '0'); \
                         raise 'undone'; \
                     exception when raise_exception then null; \
                     end; \
                 end loop; \
                 if seen <> 1300 then raise 'saw %', seen; end if; \
             end $$");
        assert_eq!(rows("select es_stream_version('a-1'), es_stream_version('b-1')"), "(1303,0)");
    }

    #[pg_test]
    fn an_error_between_two_rows_ends_it_cleanly() {
        stream_of(1300);
        for at in [1, 499, 500, 501, 1299] {
            let divide = format!("select 1 / ((e).version - {at}) from (select es_read('a-1') as e offset 0) e");
            refused("22012", &divide);
        }
        assert_eq!(by_rows("es_read('a-1')"), "(1300,1,1300,t,t)");
    }

    #[pg_test]
    fn a_cursor_over_a_stream_that_is_rolled_back_is_no_danger() {
        stream_of(700);
        let error = caught(
            "do $$ declare c refcursor; r record; begin \
                 begin \
                     perform es_append('a-1', 'T', to_jsonb(i)) from generate_series(701, 1400) i; \
                     open c for select (e).version from (select es_read('a-1') as e offset 0) e; \
                     fetch c into r; \
                     raise 'undone'; \
                 exception when raise_exception then null; \
                 end; \
                 fetch c into r; \
             end $$",
        );
        assert_eq!(error.map(|error| error.code).as_deref(), Some("34000"));
        assert_eq!(by_rows("es_read('a-1')"), "(700,1,700,t,t)");
    }

    #[pg_test]
    fn an_append_made_by_the_reading_statement_is_not_read_by_it() {
        stream_of(600);
        run("select es_append('a-1', 'T', (e).payload) from (select es_read('a-1') as e offset 0) e");
        assert_eq!(value("select es_stream_version('a-1')"), "1200");
        run("select es_append('a-1', 'T', e.payload) from es_read('a-1') e");
        assert_eq!(value("select es_stream_version('a-1')"), "2400");
    }
}
