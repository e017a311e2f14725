//! The streams of a category.
use super::stream::Stream;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Db;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::trial;
use pgrx::pg_sys::{Datum, INT8OID, TEXTOID};

thread_local! {
    static PAGE: Plan = const { Plan::new(
        "select id, first_position, name from _eventstream.streams \
         where tenant_id = $1 and category = $2 and id > $3 and first_position + 0 > $5 order by id limit $4",
        &[INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID],
    ) };
}

/// Those of a category by id after `after`, with their names.
pub fn page_of_category(
    db: &Db,
    view: View,
    tenant_id: i64,
    category: &str,
    after: i64,
    count: i64,
) -> Result<Vec<(Stream, String)>> {
    let numbers = [after, count, trial::after(0)].map(|number| Some(Datum::from(number)));
    let [after, count, begun] = numbers;
    let args = [Some(Datum::from(tenant_id)), Some(from_text(category)?), after, count, begun];
    PAGE.with(|page| {
        page.rows(db, view, 0, &args, |row| {
            Ok((Stream { id: row.int8(0)?, first_position: row.int8(1)? }, row.text(2)?.to_owned()))
        })
    })
}
