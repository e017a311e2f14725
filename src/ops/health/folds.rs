//! Folds that were seen to fail: by whoever asked for a state, by upkeep, by a state table. Nothing is folded to find that out.
use super::check::{Check, Level, Writing};
use crate::log::delivery;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::failing::{self, Failing, Kind};
use crate::shared::session::as_owner;
use crate::state::folds;
use eventstream_core::quote_literal;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static FOLDS: Plan = const { Plan::new(
        "select f.tenant_id, t.name, f.name from _eventstream.folds f join _eventstream.tenants t on t.id = f.tenant_id \
         where $1 is null or f.tenant_id = $1 order by t.name collate \"C\", f.name collate \"C\"",
        &[INT8OID],
    ) };
}

/// A row for each fold of the tenant, or (None) of every one, that is noted as it is defined now and for an event that is in the log: what was
/// registered anew since, and what was rolled back, says nothing.
pub fn failing(tenant_id: Option<i64>, writing: &Writing) -> Result<Vec<Check>> {
    let noted = failing::noted(Kind::Fold);
    if noted.is_empty() {
        return Ok(Vec::new());
    }
    let folds = as_owner(Planning::ByIndex, |db, _| {
        FOLDS.with(|folds| {
            folds.rows(db, View::Latest, 0, &[tenant_id.map(Datum::from)], |row| {
                Ok((row.int8(0)?, row.text(1)?.to_owned(), row.text(2)?.to_owned()))
            })
        })
    })?;
    let mut checks = Vec::new();
    for (tenant_id, tenant, name) in folds {
        let Some(fold) = folds::named(tenant_id, &name)? else { continue };
        let key = fold.key(tenant_id);
        let Some(noted) = noted.iter().find(|noted| noted.key == key) else { continue };
        if let Some(stream) = stream_of(noted)? {
            checks.push(check(&tenant, &name, &fold.category, &stream, noted, writing));
        }
    }
    Ok(checks)
}

/// None where its event is not in the log (any more).
fn stream_of(noted: &Failing) -> Result<Option<String>> {
    let facts = as_owner(Planning::ByIndex, |db, catalog| delivery::facts(db, catalog, &[noted.position]))?;
    Ok(facts.into_iter().find(|facts| facts.stream_id == noted.stream_id).map(|facts| facts.stream))
}

fn check(tenant: &str, name: &str, category: &str, stream: &str, noted: &Failing, writing: &Writing) -> Check {
    let many = match noted.counted {
        0 => "streams of category".into(),
        1 => "1 stream of category".into(),
        counted => format!("{counted} streams of category"),
    };
    let detail = format!(
        "{many} {category} cannot be folded, so that questions for the whole category fail; the one seen last is {stream}, within its first {} events. \
         Ways out: an upcaster that mends such events as they are read, or a fold that takes them, registered again; the statement tells all, and \
         why, and counts them anew",
        noted.version
    );
    let fix = format!(
        "{}select stream, problem from {}es_category_state({}, fold => {}, on_error => 'report') where problem is not null;",
        writing.choice(Some(tenant)),
        writing.schema(),
        quote_literal(category),
        quote_literal(name)
    );
    Check::bad(format!("states by {name}"), Level::Warning, "failing", detail, fix).of(tenant)
}
