//! Declaring event types: their schema versions, each by itself; what must agree with the others is judged in agreement.rs.
use super::{agreement, schemas};
use crate::log::document::print;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::error::report;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::announce_event_type_change;
use crate::shared::session::as_owner;
use eventstream_core::definition::{Part, same};
use eventstream_core::error::Error;
use eventstream_core::options::EventTypeSettings;
use eventstream_core::schema::Schema;
use eventstream_core::{EventType, quote_literal, shown};
use pgrx::pg_sys::{BOOLOID, Datum, INT4OID, INT8OID, JSONBOID, TEXTOID};

/// The longest description, in bytes.
const MOST_DESCRIPTION_BYTES: usize = 4 << 10;

/// What es_create_event_type is given.
pub struct Definition<'a> {
    pub event_type: &'a str,
    pub schema_version: i32,
    pub json_schema: Option<Jsonb<'a>>,
    pub description: Option<&'a str>,
    pub example: Option<Jsonb<'a>>,
    pub is_appendable: bool,
    pub if_not_exists: bool,
}

thread_local! {
    static CREATE: Plan = const { Plan::new(
        "insert into _eventstream.event_types (tenant_id, event_type, schema_version, json_schema, description, example, appendable) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        &[INT8OID, TEXTOID, INT4OID, JSONBOID, TEXTOID, JSONBOID, BOOLOID],
    ) };
    static STORED: Plan = const { Plan::new(
        "select json_schema::text, description, example::text, appendable from _eventstream.event_types \
         where tenant_id = $1 and event_type = $2 and schema_version = $3",
        &[INT8OID, TEXTOID, INT4OID],
    ) };
    static ALTER: Plan = const { Plan::new(
        "update _eventstream.event_types set json_schema = case when $4 then $5 else json_schema end, \
         description = case when $6 then $7 else description end, example = case when $8 then $9 else example end, \
         appendable = coalesce($10, appendable) where tenant_id = $1 and event_type = $2 and schema_version = $3",
        &[INT8OID, TEXTOID, INT4OID, BOOLOID, JSONBOID, BOOLOID, TEXTOID, BOOLOID, JSONBOID, BOOLOID],
    ) };
    static DROP: Plan = const { Plan::new(
        "delete from _eventstream.event_types where tenant_id = $1 and event_type = $2 and ($3 is null or schema_version = $3)",
        &[INT8OID, TEXTOID, INT4OID],
    ) };
}

/// Errors: ES005, ES016, and what upcasters raise of an example.
pub fn create(target: Target, definition: &Definition) -> Result<()> {
    let Definition { event_type, schema_version, .. } = *definition;
    check_key(event_type, Some(schema_version))?;
    check_parts(definition.json_schema, definition.description, definition.example)?;
    agreement::begin(target, c"es_create_event_type")?;
    let row: [Nullable; 7] = [
        Some(Datum::from(target.id)),
        Some(from_text(event_type)?),
        Some(Datum::from(schema_version)),
        definition.json_schema.map(Jsonb::datum),
        definition.description.map(from_text).transpose()?,
        definition.example.map(Jsonb::datum),
        Some(Datum::from(definition.is_appendable)),
    ];
    let is_new = as_owner(Planning::ByIndex, |db, catalog| {
        if CREATE.with(|plan| plan.write(db, &row))? == 0 {
            return is_there(db, target.id, definition).map(|()| false);
        }
        announce_event_type_change(catalog).map(|()| true)
    })?;
    if !is_new {
        return Ok(());
    }
    agreement::must_lead(target, event_type, "schema_version")?;
    agreement::must_agree(target, event_type)
}

fn is_there(db: &Db, tenant_id: i64, definition: &Definition) -> Result<()> {
    let Definition { event_type, schema_version, .. } = *definition;
    let name = format!("{event_type} version {schema_version}");
    let hint = format!(
        "es_alter_event_type changes it. As it is: select * from eventstream.event_types where event_type = {} and schema_version = {schema_version};",
        quote_literal(event_type)
    );
    let key = [Some(Datum::from(tenant_id)), Some(from_text(event_type)?), Some(Datum::from(schema_version))];
    let text = |document: Option<Jsonb>| -> Result<Option<String>> {
        Ok(document.map(Jsonb::text).transpose()?.map(|text| String::from_utf8_lossy(text).into_owned()))
    };
    let (schema, example) = (text(definition.json_schema)?, text(definition.example)?);
    let parts = STORED.with(|plan| {
        plan.first(db, View::Latest, &key, |row| {
            Ok([
                Part::optional("json_schema", row.text_opt(0)?, schema.as_deref()),
                Part::optional("description", row.text_opt(1)?, definition.description),
                Part::optional("example", row.text_opt(2)?, example.as_deref()),
                Part::new("appendable", row.boolean(3)?, definition.is_appendable),
            ])
        })
    })?;
    let Some(parts) = parts.filter(|_| definition.if_not_exists) else {
        return Err(Error::InvalidArgument {
            argument: "event_type".into(),
            reason: format!("must be a new one in that version: {} is declared already", shown(&name)),
            hint: Some(hint),
        }
        .into());
    };
    same("event_type", "event type", &name, &parts, Some(hint))?;
    report::is_there("event type", &name)
}

/// Errors: as [`create`]; ES005 where it is not declared.
pub fn alter(target: Target, event_type: &str, schema_version: i32, settings: &EventTypeSettings<Jsonb>) -> Result<()> {
    check_key(event_type, Some(schema_version))?;
    check_parts(settings.json_schema.flatten(), settings.description.flatten(), settings.example.flatten())
        .map_err(|failure| failure.within(|| "settings".into()))?;
    agreement::begin(target, c"es_alter_event_type")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let row: [Nullable; 10] = [
            Some(Datum::from(target.id)),
            Some(from_text(event_type)?),
            Some(Datum::from(schema_version)),
            Some(Datum::from(settings.json_schema.is_some())),
            settings.json_schema.flatten().map(Jsonb::datum),
            Some(Datum::from(settings.description.is_some())),
            settings.description.flatten().map(from_text).transpose()?,
            Some(Datum::from(settings.example.is_some())),
            settings.example.flatten().map(Jsonb::datum),
            settings.appendable.map(Datum::from),
        ];
        if ALTER.with(|plan| plan.write(db, &row))? == 0 {
            return Err(not_declared(event_type, Some(schema_version)));
        }
        announce_event_type_change(catalog)
    })?;
    agreement::must_agree(target, event_type)
}

/// Errors: ES005 where it is not declared.
pub fn drop(target: Target, event_type: &str, schema_version: Option<i32>) -> Result<()> {
    check_key(event_type, schema_version)?;
    agreement::begin(target, c"es_drop_event_type")?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let key = [Some(Datum::from(target.id)), Some(from_text(event_type)?), schema_version.map(Datum::from)];
        if DROP.with(|plan| plan.write(db, &key))? == 0 {
            return Err(not_declared(event_type, schema_version));
        }
        announce_event_type_change(catalog)
    })
}

fn not_declared(event_type: &str, schema_version: Option<i32>) -> Failure {
    let version = schema_version.map(|version| format!(" in schema version {version}")).unwrap_or_default();
    Error::InvalidArgument {
        argument: "event_type".into(),
        reason: format!("must be a declared one: {} is not declared{version}", shown(event_type)),
        hint: Some("Which are: select event_type, schema_version from eventstream.event_types;".into()),
    }
    .into()
}

fn check_key(event_type: &str, schema_version: Option<i32>) -> Result<()> {
    EventType::parse_as("event_type", event_type)?;
    if event_type == EventType::STREAM_CLOSED {
        return Err(invalid("event_type", format!("must not be {event_type}, which is eventstream's own")));
    }
    match schema_version.filter(|&version| version < 1) {
        None => Ok(()),
        Some(version) => Err(invalid("schema_version", format!("must be 1 or more, not {version}"))),
    }
}

/// Each by itself.
fn check_parts(json_schema: Option<Jsonb>, description: Option<&str>, example: Option<Jsonb>) -> Result<()> {
    if let Some(json_schema) = json_schema {
        // What is small to hold can be large to print.
        if json_schema.measure(Schema::MOST_BYTES as u64)?.bytes > Schema::MOST_BYTES as u64 {
            return Err(invalid("json_schema", format!("must have at most {} bytes", Schema::MOST_BYTES)));
        }
        let schema = schemas::ready(&String::from_utf8_lossy(json_schema.text()?))?;
        if !schema.unknown_keywords.is_empty() {
            let unknown: Vec<_> = schema.unknown_keywords.iter().take(10).map(|keyword| shown(keyword)).collect();
            report::notice(&format!(
                "json_schema has keywords that JSON Schema 2020-12 does not have, and that judge nothing: {}",
                unknown.join(", ")
            ))?;
        }
    }
    if let Some(long) = description.map(str::len).filter(|&bytes| bytes > MOST_DESCRIPTION_BYTES) {
        return Err(invalid("description", format!("must have at most {MOST_DESCRIPTION_BYTES} bytes, not {long}")));
    }
    example.map_or(Ok(()), |example| print("example", example).map(|_| ()))
}
