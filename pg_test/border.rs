//! What src/pg promises of itself, whoever uses it wrongly.

#[pgrx::pg_schema]
mod tests {
    use crate::pg::compat::{backend_number, is_backend};
    use crate::pg::error::failure::Failure;
    use crate::pg::process::latch::Latch;
    use crate::pg::process::server;
    use crate::pg::process::session::as_caller;
    use crate::pg::query::plan::{Plan, View};
    use pgrx::pg_sys::{Datum, INT8OID};
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

    #[pg_test(error = "column 0 is of the type 20, not [25]")]
    fn the_build_with_test_points_refuses_to_read_a_column_as_what_it_is_not() {
        let plan = Plan::new("select 1::bigint", &[]);
        let _ = as_caller(|db| plan.first(db, View::Caller, &[], |row| row.text(0).map(str::to_owned)));
    }
}
