//! What the server's log is told of protected fields, which nothing else shows: values that a statement is given, and literals in statements that fail.
use super::check::{Check, Level};
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT8OID};

thread_local! {
    static IS_ANY: Plan = const { Plan::new(
        "select exists (select from _eventstream.protections where $1 is null or tenant_id = $1)",
        &[INT8OID],
    ) };
}

/// Settings under which the log holds no values, and what each of them is otherwise.
const DEMANDED: [(&std::ffi::CStr, &str, &[&str]); 3] = [
    (c"log_parameter_max_length", "log_parameter_max_length = 0", &["0"]),
    (c"log_parameter_max_length_on_error", "log_parameter_max_length_on_error = 0", &["0"]),
    (c"log_min_error_statement", "log_min_error_statement = panic", &["panic", "fatal", "log"]),
];

/// None where nothing is protected.
pub fn check(tenant_id: Option<i64>) -> Result<Option<Check>> {
    let is_any = as_owner(Planning::ByIndex, |db, _| {
        IS_ANY.with(|plan| plan.first(db, View::Latest, &[tenant_id.map(Datum::from)], |row| row.boolean(0)))
    })?;
    if is_any != Some(true) {
        return Ok(None);
    }
    let mut others = Vec::new();
    for (name, demanded, good) in DEMANDED {
        if !good.contains(&&*server::setting(name)?) {
            others.push(demanded);
        }
    }
    if others.is_empty() {
        return Ok(Some(Check::ok("protected fields", "the server's log is given no values of statements")));
    }
    let detail = format!(
        "the server's log may hold values of protected fields, with statements that are slow or fail: {} is not set. What clients send as literals, and not as parameters, stands in such statements whatever is set but \
         log_min_error_statement; log_statement and log_min_duration_statement write them, too",
        others.join(", ")
    );
    let set: Vec<_> = others.iter().map(|setting| format!("alter system set {setting};")).collect();
    let fix = format!("{}\nselect pg_reload_conf();", set.join("\n"));
    Ok(Some(Check::bad("protected fields", Level::Warning, "values in the log", detail, fix)))
}
