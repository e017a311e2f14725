//! es_test, es_tests_done, es_definitions.
use super::asks;
use crate::access::authorize_tenant;
use crate::command::compared::Expected;
use crate::command::reported;
use crate::command::tested::{self, Test};
use crate::pg::error::failure::invalid;
use crate::pg::function::{Args, Returned, call, sql_function};
use crate::pg::process::server;
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::proof;
use crate::shared::trial;
use eventstream_core::name::{Category, check_label};
use eventstream_core::privilege::Privilege;

asks!(
    Append,
    "eventstream_test",
    "text, jsonb, jsonb, jsonb, text, jsonb, jsonb, text, timestamp with time zone, name",
    test
);
sql_function!("eventstream_tests_done", "", tests_done);
asks!(Read, "eventstream_definitions", "text", definitions);

fn definitions(args: &Args) -> Returned {
    let category = args.text_opt(0)?;
    if let Some(category) = category {
        Category::parse("category", category)?;
    }
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    proof::definitions::list(access.tenant_id, category, &scope, &Store::begin(args)?)?;
    Ok(None)
}

fn test(args: &Args) -> Returned {
    // One within a test is a part of that one.
    if !trial::is_on() {
        reported::begin();
    }
    // Whoever appends, in any category: given events ask for each of theirs.
    authorize_tenant(None, Privilege::Append)?;
    let description = check_label("description", args.text(0, "description")?)?;
    let (command, sql) = (args.jsonb_opt(2)?, args.text_opt(7)?);
    if command.is_some() && sql.is_some() {
        return Err(invalid("sql", "must be NULL where there is a command: a test has one act"));
    }
    let expected = Expected::read(args.jsonb_opt(3)?, args.text_opt(4)?, args.jsonb_opt(5)?, args.jsonb_opt(6)?)?;
    let role = args.name_opt(9).map(server::role_to_become).transpose()?;
    let test = Test { given: args.jsonb(1, "given")?, command, sql, expected, at: args.timestamptz_opt(8), role };
    let differences = tested::run(&test)?;
    from_text(&reported::report(description, &differences)?).map(Some)
}

fn tests_done(_: &Args) -> Returned {
    call::refuse_in_user_code()?;
    trial::refuse("es_tests_done")?;
    from_text(&reported::done()?).map(Some)
}
