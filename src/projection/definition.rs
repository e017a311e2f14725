//! What a projection was created with, beside what another creation under its name asks for.
use super::state_table::Relation;
use crate::log::filter::Filter;
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use crate::state::columns;
use eventstream_core::column::Over;
use eventstream_core::definition::{Part, same};
use eventstream_core::error::Error;
use eventstream_core::word::ProjectionKind;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID, Oid, TEXTOID};

/// A projection's row, as its creation gave it.
struct Existing {
    kind: String,
    mode: String,
    handler: Option<String>,
    reset: Option<String>,
    categories: Option<Vec<String>>,
    event_types: Option<Vec<String>>,
    batch_size: i64,
    on_error: String,
    max_retries: i64,
    after_position: i64,
    table: Option<String>,
    columns: Option<String>,
    fold: Option<String>,
    registrant: Option<Oid>,
}

/// A handler's functions by name.
pub struct Functions<'a> {
    pub kind: &'a str,
    pub handler: &'a str,
    pub reset: Option<&'a str>,
}

/// What es_create_state_table is given, and the table that it would make.
pub struct TableDefinition<'a> {
    pub name: &'a str,
    pub table: &'a str,
    pub category: &'a str,
    pub columns: Jsonb<'a>,
    pub fold: Option<&'a str>,
    pub mode: &'a str,
}

columns! {
    mod of, selected;
    KIND = "kind",
    MODE = "mode",
    HANDLER = "handler",
    RESET = "reset",
    CATEGORIES = "categories",
    EVENT_TYPES = "event_types",
    BATCH_SIZE = "batch_size",
    ON_ERROR = "on_error",
    MAX_RETRIES = "max_retries",
    AFTER_POSITION = "start_position",
    TABLE = "table_name",
    COLUMNS = "columns::text",
    FOLD = "fold",
    REGISTRANT = "_eventstream.role_of(registrant, registrant_oid, (select _eventstream.is_home()))",
}

thread_local! {
    static EXISTING: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.projections where tenant_id = $1 and name = $2"),
        &[INT8OID, TEXTOID],
    ) };
    static OF_TABLE: Plan = const { Plan::new(
        "select name from _eventstream.projections where tenant_id = $1 and table_name = $2",
        &[INT8OID, TEXTOID],
    ) };
}

fn owned(row: &Row, column: usize) -> Result<Option<String>> {
    Ok(row.text_opt(column)?.map(ToOwned::to_owned))
}

fn find(db: &Db, tenant_id: i64, name: &str) -> Result<Option<Existing>> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(name)?)];
    EXISTING.with(|plan| {
        plan.first(db, View::Latest, &key, |row| {
            Ok(Existing {
                kind: row.text(of::KIND)?.to_owned(),
                mode: row.text(of::MODE)?.to_owned(),
                handler: owned(row, of::HANDLER)?,
                reset: owned(row, of::RESET)?,
                categories: row.text_array_opt(of::CATEGORIES)?,
                event_types: row.text_array_opt(of::EVENT_TYPES)?,
                batch_size: row.int8(of::BATCH_SIZE)?,
                on_error: row.text(of::ON_ERROR)?.to_owned(),
                max_retries: row.int8(of::MAX_RETRIES)?,
                after_position: row.int8(of::AFTER_POSITION)?,
                table: owned(row, of::TABLE)?,
                columns: owned(row, of::COLUMNS)?,
                fold: owned(row, of::FOLD)?,
                registrant: row.oid_opt(of::REGISTRANT),
            })
        })
    })
}

/// What mends a name that is taken, as a statement that leaves nothing broken.
fn hint(name: &str, is_table: bool) -> String {
    let drop_table = if is_table { ", drop_table => true" } else { "" };
    let whole = if is_table { "it and its table" } else { "it" };
    format!(
        "es_alter_projection() changes its settings; to drop {whole}: select es_drop_projection({}{drop_table});",
        quote_literal(name)
    )
}

/// What mends a state table that is asked for as another one: es_alter_projection() changes none of what it is made of.
fn reshape_hint(name: &str) -> String {
    let (drop, next) = (quote_literal(name), quote_literal(&format!("{name}_new")));
    format!(
        "A state table is made anew to be changed. With readers: make it under another name (es_create_state_table({next}, …)), wait for it (es_wait_for), \
         let them read that one, and drop this one (docs/upgrade.md). To drop it: select es_drop_projection({drop}, drop_table => true);"
    )
}

/// A state table's columns, each as `balance numeric /balance`.
fn column_words(columns: Jsonb) -> Result<Vec<String>> {
    let columns = columns::read(columns, Over::Table)?;
    Ok(columns.iter().map(|column| format!("{} {} {}", column.name, column.type_name, column.path)).collect())
}

fn taken(name: &str, is_table: bool) -> Error {
    let mends = if is_table { reshape_hint(name) } else { hint(name, false) };
    Error::InvalidArgument {
        argument: "name".into(),
        reason: format!("must be new: there is a projection {} already", shown(name)),
        hint: Some(format!("if_not_exists => true leaves it as it is, where it is the same. {mends}")),
    }
}

/// Of a projection that calls functions, whose name is taken. Errors: ES005 unless it is asked for again as it is.
pub fn handler_is_there(db: &Db, tenant_id: i64, settings: &Settings, functions: &Functions) -> Result<()> {
    let name = settings.name;
    // Dropped meanwhile: whoever asks again makes it.
    let existing = find(db, tenant_id, name)?.ok_or_else(|| taken(name, false))?;
    let is_table = existing.kind == ProjectionKind::Table.as_str();
    if !settings.if_not_exists {
        return Err(taken(name, is_table).into());
    }
    let filter = &settings.filter;
    let parts = [
        Part::new("kind", existing.kind, functions.kind),
        Part::optional("handler", existing.handler.as_deref(), Some(functions.handler)),
        Part::new("mode", existing.mode, settings.mode),
        Part::set("categories", existing.categories.as_deref(), filter.categories.as_deref()),
        Part::set("event_types", existing.event_types.as_deref(), filter.event_types.as_deref()),
        Part::new("batch_size", existing.batch_size, settings.batch_size),
        Part::new("on_error", existing.on_error, settings.on_error),
        Part::new("max_retries", existing.max_retries, settings.max_retries),
        Part::optional("reset", existing.reset.as_deref(), functions.reset),
        Part::new("after_position", existing.after_position, settings.after_position),
    ];
    same("name", "projection", name, &parts, Some(hint(name, is_table)))?;
    report::is_there("projection", name)
}

/// Whether the state table is there, as it is asked for. Errors: ES005 where its name or its table is taken.
pub fn table_is_there(tenant_id: i64, asked: &TableDefinition, if_not_exists: bool) -> Result<bool> {
    as_owner(Planning::ByIndex, |db, _| {
        let Some(existing) = find(db, tenant_id, asked.name)? else {
            let key = [Some(Datum::from(tenant_id)), Some(from_text(asked.table)?)];
            let Some(other) = OF_TABLE.with(|plan| plan.first(db, View::Latest, &key, |row| owned(row, 0)))?.flatten()
            else {
                return Ok(false);
            };
            return Err(Error::InvalidArgument {
                argument: "name".into(),
                reason: format!("must be new: {} is the table of projection {}", asked.table, shown(&other)),
                hint: Some(format!("Choose another name. {}", hint(&other, true))),
            }
            .into());
        };
        let is_table = existing.kind == ProjectionKind::Table.as_str();
        if !if_not_exists {
            return Err(taken(asked.name, is_table).into());
        }
        let category = [asked.category.to_owned()];
        let columns = existing.columns.as_deref().map(|columns| column_words(Jsonb::parse(columns)?)).transpose()?;
        let mends = if is_table { reshape_hint(asked.name) } else { hint(asked.name, is_table) };
        let parts = [
            Part::new("kind", existing.kind, ProjectionKind::Table.as_str()),
            Part::set("category", existing.categories.as_deref(), Some(&category)),
            Part::list("columns", &columns.unwrap_or_default(), &column_words(asked.columns)?),
            Part::optional("fold", existing.fold.as_deref(), asked.fold),
            Part::new("mode", existing.mode, asked.mode),
            Part::optional("table", existing.table.as_deref(), Some(asked.table)),
        ];
        same("name", "projection", asked.name, &parts, Some(mends))?;
        if Relation::find(db, asked.table, existing.registrant.unwrap_or(Oid::INVALID))?.is_none() {
            let drop = format!("Drop it, and make it again: select es_drop_projection({});", quote_literal(asked.name));
            return Err(Error::InvalidArgument {
                argument: "name".into(),
                reason: format!("must be new: the table of projection {} is gone", shown(asked.name)),
                hint: Some(drop),
            }
            .into());
        }
        report::is_there("state table", asked.name)?;
        Ok(true)
    })
}

/// What every projection is created with.
pub struct Settings<'a> {
    pub name: &'a str,
    pub mode: &'a str,
    pub filter: Filter,
    pub batch_size: i64,
    pub on_error: &'a str,
    pub max_retries: i64,
    pub reset: Option<Oid>,
    pub after_position: i64,
    /// One that is there already is left alone, if it is of the same definition.
    pub if_not_exists: bool,
}

/// What is called for the events.
pub enum What<'a> {
    Handler(Oid),
    /// A state table that was made already.
    Table {
        table: &'a str,
        columns: Jsonb<'a>,
        fold: Option<&'a str>,
    },
}
