//! How a test talks to the database: run a statement, ask for a value, catch an error with everything that a client would see.
use pgrx::Spi;
use pgrx::extension_sql;

// The only way to see an error whole is the client's; inside a backend, PL/pgSQL's GET STACKED DIAGNOSTICS comes next.
extension_sql!(
    r#"
create schema if not exists tests;
grant usage on schema tests to public;
create function tests.caught(
    statement text, out code text, out message text, out detail text, out hint text, out context text,
    out constraint_name text, out column_name text, out table_name text, out schema_name text, out data_type text
) language plpgsql as $$
begin
    execute statement;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics
        code = returned_sqlstate, message = message_text, detail = pg_exception_detail, hint = pg_exception_hint,
        context = pg_exception_context, constraint_name = constraint_name, column_name = column_name,
        table_name = table_name, schema_name = schema_name, data_type = pg_datatype_name;
end
$$;
create function tests.plan_of(statement text) returns setof text language plpgsql as $$
begin
    return query execute 'explain (costs off) ' || statement;
end
$$;
"#,
    name = "caught",
    requires = ["schema_dump"]
);

/// What a client would see of an error; empty texts where a field was not set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Caught {
    pub code: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    pub context: String,
    pub constraint: String,
    pub column: String,
    pub table: String,
    pub schema: String,
    pub data_type: String,
}

/// Runs a statement that must succeed.
pub fn run(statement: &str) {
    if let Err(error) = Spi::run(statement) {
        panic!("{error}: {statement}");
    }
}

/// The one value of a query, as text; `NULL` where it is that.
pub fn value(query: &str) -> String {
    match Spi::get_one::<String>(&format!("select ({query})::text")) {
        Ok(value) => value.unwrap_or_else(|| "NULL".to_owned()),
        Err(error) => panic!("{error}: {query}"),
    }
}

/// The rows of a query as PostgreSQL prints records, in order: `(1,a) (2,b)`.
pub fn rows(query: &str) -> String {
    let rows = Spi::get_one::<String>(&format!("select string_agg(row_of::text, ' ') from ({query}) row_of"));
    rows.unwrap_or_else(|error| panic!("{error}: {query}")).unwrap_or_default()
}

/// The error of a statement, which is run in a subtransaction; None where it succeeded.
pub fn caught(statement: &str) -> Option<Caught> {
    let fields = Spi::connect_mut(|client| {
        let row = client.update("select * from tests.caught($1)", Some(1), &[statement.into()])?.first();
        (1..=10)
            .map(|place| Ok(row.get::<String>(place)?.unwrap_or_default()))
            .collect::<Result<Vec<_>, pgrx::spi::Error>>()
    });
    let fields = fields.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let field = |place: usize| fields[place].clone();
    (!fields[0].is_empty()).then(|| Caught {
        code: field(0),
        message: field(1),
        detail: field(2),
        hint: field(3),
        context: field(4),
        constraint: field(5),
        column: field(6),
        table: field(7),
        schema: field(8),
        data_type: field(9),
    })
}

/// The error of a statement that must fail with this SQLSTATE.
pub fn refused(code: &str, statement: &str) -> Caught {
    match caught(statement) {
        Some(error) if error.code == code => error,
        other => panic!("{code} was expected of {statement}, not {other:#?}"),
    }
}
