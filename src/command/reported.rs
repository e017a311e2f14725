//! How a test says what came of it: by pgTAP where the database has it, which counts its tests itself and would take a `not ok` of ours inside runtests() for a passed one; else in lines of TAP,
//! which are counted here, in the session.
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::spoken;
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use eventstream_core::command::trial::{Differences, line, plain, remark};
use eventstream_core::error::Error;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::{BOOLOID, Datum, TEXTOID};
use std::cell::RefCell;

/// So many of the tests that failed are named.
const MOST_NAMED: usize = 20;

/// The tests of this session since es_tests_done was called.
#[derive(Default)]
struct Counted {
    /// Calls that were begun and have not come to their end: the one that runs, and all that an error ended.
    raised: u64,
    of: u64,
    failed: u64,
    named: Vec<String>,
}

thread_local! {
    static COUNTED: RefCell<Counted> = RefCell::default();
    static PGTAP: Plan = const { Plan::new(
        "select quote_ident(n.nspname) from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pgtap'",
        &[],
    ) };
}

/// The schema of pgTAP, quoted, where this database has it.
fn pgtap() -> Result<Option<String>> {
    as_owner(Planning::ByCost, |db, _| {
        PGTAP.with(|plan| plan.first(db, View::Latest, &[], |row| Ok(row.text(0)?.to_owned())))
    })
}

/// A call of es_test begins. Counted before anything can go wrong with it: no abort takes that back.
pub fn begin() {
    COUNTED.with_borrow_mut(|counted| counted.raised += 1);
}

/// The lines of a test, which is over.
pub fn report(description: &str, differences: &Differences) -> Result<String> {
    let is_ok = differences.is_empty();
    if let Some(schema) = pgtap()? {
        let args = [Some(Datum::from(is_ok)), Some(from_text(&plain(description))?)];
        let said =
            spoken::text(&format!("select {schema}.ok($1, $2)"), &[BOOLOID, TEXTOID], &args)?.unwrap_or_default();
        let said = if is_ok {
            said
        } else {
            let why = [Some(from_text(&differences.text())?)];
            let why = spoken::text(&format!("select {schema}.diag($1)"), &[TEXTOID], &why)?.unwrap_or_default();
            format!("{said}\n{why}")
        };
        COUNTED.with_borrow_mut(|counted| counted.raised = counted.raised.saturating_sub(1));
        return Ok(said);
    }
    let number = COUNTED.with_borrow_mut(|counted| {
        counted.raised = counted.raised.saturating_sub(1);
        counted.of += 1;
        if !is_ok {
            counted.failed += 1;
            if counted.named.len() < MOST_NAMED {
                counted.named.push(format!("{} - {description}", counted.of));
            }
        }
        counted.of
    });
    let said = line(number, is_ok, description);
    Ok(if is_ok { said } else { format!("{said}\n{}", remark(&differences.text())) })
}

/// The plan of the tests since it was asked for last. Errors: ES038 where one of them failed, or ended in an error.
pub fn done() -> Result<String> {
    let Counted { raised, of, failed: count, named: failed } = COUNTED.take();
    if count + raised > 0 {
        return Err(Error::Undecided(Box::new(Undecided::TestsFailed { count, of, failed, raised })).into());
    }
    if of == 0 && pgtap()?.is_some() {
        return Ok(remark("pgTAP has counted them: select * from finish();"));
    }
    Ok(format!("1..{of}"))
}
