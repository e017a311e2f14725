//! What an append promises to the one who calls it.
#[pgrx::pg_schema]
mod tests {
    use crate::pg_test::sql::{refused, rows, value};
    use pgrx::pg_test;

    #[pg_test]
    fn versions_count_from_one() {
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "1");
        assert_eq!(value("select es_append('a-1', 'T', '{}')"), "2");
        assert_eq!(rows("select version from es_read('a-1')"), "(1) (2)");
    }

    #[pg_test]
    fn a_conflict_is_es001_with_expected_and_actual() {
        value("select es_append('a-1', 'T', '{}')");
        let error = refused("ES001", "select es_append('a-1', 'T', '{}', 7)");
        assert_eq!(error.detail, r#"{"actual_version":1,"expected_version":7,"stream":"a-1"}"#);
    }
}
