//! What src/pg promises of itself, whoever uses it wrongly.

#[pgrx::pg_schema]
mod tests {
    use crate::pg::compat::{backend_number, is_backend};
    use crate::pg::error::failure::Failure;
    use crate::pg::process::latch::Latch;
    use crate::pg::process::server;
    use crate::pg::process::session::as_caller;
    use crate::pg::query::plan::{Plan, View};
    use crate::pg::query::row::Row;
    use crate::pg_test::sql::{rows, run, value};
    use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};
    use pgrx::pg_test;

    #[pg_test]
    fn a_signal_is_for_the_process_that_is_meant() {
        let (pid, number) = (server::pid(), backend_number());
        assert!(is_backend(pid, number).unwrap());
        assert!(!is_backend(pid, number + 1).unwrap(), "it has another's place by now");
        assert!(!is_backend(std::os::unix::process::parent_id() as i32, number).unwrap(), "no backend");
        let latch = Latch::none();
        assert!(!latch.is_of(pid));
        latch.become_mine();
        assert!(latch.is_of(pid) && !latch.is_of(pid + 1));
    }

    #[pg_test]
    fn a_statement_takes_as_many_values_as_it_has_parameters() {
        let plan = Plan::new("select $1 + $2", &[INT8OID, INT8OID]);
        let sum = |args: &[Option<Datum>]| as_caller(|db| plan.first(db, View::Caller, args, |row| row.int8(0)));
        assert_eq!(sum(&[Some(Datum::from(1_i64)), Some(Datum::from(2_i64))]).unwrap(), Some(3));
        for few in [&[][..], &[Some(Datum::from(1_i64))][..]] {
            let refused = sum(few);
            assert!(
                matches!(&refused, Err(Failure::Rule(error)) if error.to_string().contains("for 2 parameters")),
                "{refused:?}"
            );
        }
    }

    static mut BELOW: pgrx::pg_sys::get_relation_stats_hook_type = None;

    /// What brincostestimate leaves as it was, as bad as it can be.
    #[allow(unsafe_code, ffi_unwind_calls)] // it stands where PostgreSQL calls
    unsafe extern "C-unwind" fn dirty(
        root: *mut pgrx::pg_sys::PlannerInfo,
        entry: *mut pgrx::pg_sys::RangeTblEntry,
        column: pgrx::pg_sys::AttrNumber,
        found: *mut pgrx::pg_sys::VariableStatData,
    ) -> bool {
        // SAFETY: called as the hook that it stands before.
        unsafe {
            let relation = (*found).rel;
            (*found).rel = std::ptr::without_provenance_mut(0x67f0_0000_0000);
            let is_known = BELOW.is_some_and(|below| below(root, entry, column, found));
            (*found).rel = relation;
            is_known
        }
    }

    #[pg_test]
    #[allow(unsafe_code)] // hooks are of the process, which has one thread
    fn an_estimate_follows_no_pointer_that_the_planner_has_not_made() {
        run("select es_append('account-1', 'T', '{}')");
        let asked = "select name from _eventstream.streams where tenant_id = 1 and category = 'account' and name > 'a'";
        // SAFETY: as above.
        unsafe {
            BELOW = pgrx::pg_sys::get_relation_stats_hook;
            pgrx::pg_sys::get_relation_stats_hook = Some(dirty);
        }
        let found = rows(asked);
        // SAFETY: as above.
        unsafe { pgrx::pg_sys::get_relation_stats_hook = BELOW };
        assert_eq!(found, "(account-1)");
    }

    #[pg_test(error = "column 0 is of the type 20, not [25]")]
    fn the_build_with_test_points_refuses_to_read_a_column_as_what_it_is_not() {
        let plan = Plan::new("select 1::bigint", &[]);
        let _ = as_caller(|db| plan.first(db, View::Caller, &[], |row| row.text(0).map(str::to_owned)));
    }

    #[pg_test(error = "column 1 is of the type 20, not [25]")]
    fn an_event_made_of_parts_is_not_read_as_what_it_is_not_either() {
        let values = [Datum::from(0_i64), Datum::from(1_i64)];
        let row = Row::of_parts(&values, &[true, false], &[TEXTOID, INT8OID]);
        assert_eq!(row.text_opt(0).unwrap(), None);
        let _ = row.text(1);
    }

    #[pg_test]
    fn tables_have_the_columns_that_are_read_by_number() {
        use crate::log::statements::{column, segment, stream_column, tag_column, tag_partition};
        for (table, columns) in [
            ("events", column::COLUMNS),
            ("events_1", column::COLUMNS),
            ("streams", stream_column::COLUMNS),
            ("stream_segments", segment::COLUMNS),
            ("event_tags", tag_column::COLUMNS),
            ("event_tags_1", tag_column::COLUMNS),
            ("tag_partitions", tag_partition::COLUMNS),
            ("snapshots", crate::state::snapshot::column::COLUMNS),
            ("command_answers", crate::command::answers::kept::COLUMNS),
            ("scheduled_commands", crate::command::scheduled::kept::scheduled::COLUMNS),
        ] {
            // By their numbers: a column that was dropped keeps its own.
            let there = value(&format!(
                "select string_agg(attname, ' ' order by attnum) from pg_attribute where attrelid = '_eventstream.{table}'::regclass and attnum > 0"
            ));
            assert_eq!(there, columns.join(" ").to_lowercase(), "{table}");
        }
    }

    #[pg_test]
    fn walls_are_columns_of_ours() {
        for wall in crate::log::planning::WALLS {
            let there = format!(
                "select count(*) > 0 from pg_attribute a join pg_class c on c.oid = a.attrelid \
                 where c.relnamespace = '_eventstream'::regnamespace and c.relkind = 'r' and a.attname = '{}'",
                wall.to_str().unwrap()
            );
            assert_eq!(value(&format!("select ({there})::text")), "true", "{wall:?}");
        }
    }
}
