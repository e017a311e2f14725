//! es_maintain.
use super::asks_outside_of_tests;
use crate::access::{Scope, everything_or, shown_in};
use crate::ops::maintain::step;
use crate::pg::function::{Args, Returned};
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::pg::{error::report, process::server};
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks_outside_of_tests!("es_maintain", Upkeep, "eventstream_maintain", "", maintain);

fn maintain(args: &Args) -> Returned {
    server::must_be_writable(c"es_maintain")?;
    let access = everything_or(Privilege::Upkeep)?;
    let store = Store::begin(args)?;
    // Users' code says payloads in its errors, and upkeep opens none.
    let mut failures = Vec::new();
    let sees_all = match &access {
        Some(access) => shown_in(Some(&access.tenant))? == Scope::All,
        None => true,
    };
    let mut run = || {
        step(access.as_ref().map(|access| access.tenant_id), &mut |failed| {
            let category = failed.category.map(|category| [category.to_owned()]);
            let is_shown = shown_in(Some(failed.tenant))?.covers(category.as_ref().map(|one| one.as_slice()));
            failures.push(failed.in_words(is_shown));
            Ok(())
        })
    };
    let done = if sees_all { run()? } else { report::silently(run)? };
    for failure in failures {
        report::warning(&failure)?;
    }
    let tasks = [
        ("partitions made ahead", done.partitions_made),
        ("tables analyzed", done.tables_analyzed),
        ("events counted", done.counted.events),
        ("answers forgotten", done.answers_forgotten),
        ("snapshots taken", done.snapshots.taken),
        ("snapshots failed", done.snapshots.failed),
        ("snapshots removed", done.snapshots.removed),
    ];
    for (task, done) in tasks {
        store.put(&[Some(from_text(task)?), Some(Datum::from(done))])?;
    }
    Ok(None)
}
