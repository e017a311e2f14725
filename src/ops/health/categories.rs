//! Categories that nothing can be appended to, because they ask that their default fold can take it, and have none.
use super::check::{Check, Level, Writing};
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use eventstream_core::quote_literal;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static WITHOUT_FOLD: Plan = const { Plan::new(
        "select t.name, c.category from _eventstream.category_rules c join _eventstream.tenants t on t.id = c.tenant_id \
         where c.settings ->> 'foldable' = 'required' and ($1 is null or c.tenant_id = $1) \
           and not exists (select from _eventstream.folds f where f.tenant_id = c.tenant_id and f.category = c.category and f.is_default) \
         order by t.name collate \"C\", c.category collate \"C\"",
        &[INT8OID],
    ) };
}

/// A row for each of a tenant, or (None) of every one.
pub fn checks(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    as_owner(Planning::ByIndex, |db, _| {
        WITHOUT_FOLD.with(|plan| {
            plan.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                let (tenant, category) = (row.text(0)?, row.text(1)?);
                let literal = quote_literal(category);
                let detail = "takes no events (ES017): its rule foldable asks for a default fold, and it has none. Register one, or take the rule back".to_owned();
                let fix =
                    format!("{}select es_alter_category({literal}, '{{\"foldable\": null}}');", writing.choice(Some(tenant)));
                Ok(Check::bad(format!("category {category}"), Level::Critical, "no default fold", detail, fix).of(tenant))
            })
        })
    })
}
