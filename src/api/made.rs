//! es_create_state_table, es_create_temporal_view, es_drop_projection: what is made, and dropped, with the caller's rights, in the caller's name.
use super::{asks, projection};
use crate::pg::error::failure::{self, invalid_with};
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::process::server;
use crate::pg::process::session::as_current;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::store::Store;
use crate::pg::value::datum::{from_text, text_array_of};
use crate::state::columns;
use eventstream_core::column::Over;
use pgrx::pg_sys::{BOOLOID, Datum, JSONBOID, TEXTOID};
use std::thread::LocalKey;

sql_function!("eventstream_create_state_table", "text, text, jsonb, text, text, boolean", create_state_table);
sql_function!("eventstream_create_temporal_view", "text, text, jsonb, text, boolean", create_temporal_view);
asks!(Manage, "eventstream_drop_projection", "text, boolean", drop_projection);
sql_function!("eventstream_read_columns", "jsonb, boolean", read_columns);
sql_function!("eventstream_refuse", "text, text, text", refuse);

thread_local! {
    static STATE_TABLE: Plan = const { Plan::new(
        "select eventstream.make_state_table($1, $2, $3, $4, $5, $6, pg_catalog.current_schemas(false))",
        &[TEXTOID, TEXTOID, JSONBOID, TEXTOID, TEXTOID, BOOLOID],
    ) };
    static TEMPORAL_VIEW: Plan = const { Plan::new(
        "select eventstream.make_temporal_view($1, $2, $3, $4, $5, pg_catalog.current_schemas(false))",
        &[TEXTOID, TEXTOID, JSONBOID, TEXTOID, BOOLOID],
    ) };
    static DROP: Plan = const { Plan::new("select eventstream.drop_state_table($1)", &[TEXTOID]) };
}

fn create_state_table(args: &Args) -> Returned {
    make(args, &STATE_TABLE)
}

fn create_temporal_view(args: &Args) -> Returned {
    server::must_be_writable(c"es_create_temporal_view")?;
    make(args, &TEMPORAL_VIEW)
}

/// Gives the arguments on, as they are, to a function of sql/, which asks for the rights first and returns a name.
fn make(args: &Args, function: &'static LocalKey<Plan>) -> Returned {
    let given = args.given();
    let _callers = failure::speak_of_callers();
    let name = as_current(|db| {
        function.with(|function| function.first(db, View::Write, &given, |row| Ok(row.text_opt(0)?.map(str::to_owned))))
    })?;
    name.flatten().as_deref().map(from_text).transpose()
}

fn drop_projection(args: &Args) -> Returned {
    let (name, drop_table) = (args.text(0, "name")?, args.boolean(1, "drop_table")?);
    if let Some(table) = projection::forget(name, drop_table)? {
        let table = [Some(from_text(&table)?)];
        as_current(|db| DROP.with(|drop| drop.write(db, &table)))?;
    }
    from_text(name).map(Some)
}

/// The columns that are asked for, one a row.
fn read_columns(args: &Args) -> Returned {
    let over = if args.boolean(1, "of_view")? { Over::View } else { Over::Table };
    let columns = columns::read(args.jsonb(0, "columns")?, over)?;
    let store = Store::begin(args)?;
    for (place, column) in columns.iter().enumerate() {
        store.put(&[
            Some(Datum::from(place as i32)),
            Some(from_text(column.name)?),
            Some(from_text(column.type_name)?),
            Some(from_text(column.path)?),
            Some(text_array_of(&column.steps)?),
        ])?;
    }
    Ok(None)
}

/// What the functions of sql/ refuse.
fn refuse(args: &Args) -> Returned {
    let (argument, reason) = (args.text(0, "argument")?, args.text(1, "reason")?);
    Err(invalid_with(argument, reason, args.text_opt(2)?.map(str::to_owned)))
}
