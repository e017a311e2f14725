//! es_definitions: what is declared, in a form that is the same wherever the same is declared: of what an audit compares (sql/log/audit.sql) that which decides what events mean and which may be
//! recorded, with the functions that it calls as they are now, and without what belongs to one database.
use crate::access::Scope;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::query::store::Store;
use crate::pg::value::datum::{from_text, text_array_of};
use crate::shared::session::as_owner;
use crate::usercode::handler::{self, Purpose};
use pgrx::pg_sys::{Datum, INT8OID, TEXTARRAYOID, TEXTOID};
use serde_json::json;

columns! {
    mod of, selected;
    KIND = "d.kind",
    NAME = "d.name",
    SHOWN = "d.shown::text",
    HANDLER = "d.shown ->> 'handler'",
    BOUNDARY = "d.shown ->> 'boundary'",
    RESET = "d.shown ->> 'reset'",
    TAKES = "d.shown ->> 'kind'",
}

thread_local! {
    // A projection or subscription without categories is of all of them; a fold of the category '' is of queries.
    static DEFINITIONS: Plan = const { Plan::new(
        concat!(
            "select ", selected!(), " from ( \
                 select a.kind, \
                        case a.kind when 'category_rule' then a.definition ->> 'category' \
                                    when 'upcaster' then a.definition ->> 'event_type' || ' ' || (a.definition ->> 'from_schema_version') \
                                    when 'protection' then concat_ws(' ', a.definition ->> 'kind', a.definition ->> 'event_type', a.definition ->> 'schema_version') \
                                    when 'event_type' then a.definition ->> 'event_type' || ' ' || (a.definition ->> 'schema_version') \
                                    else a.definition ->> 'name' end as name, \
                        coalesce(a.definition ->> 'from_schema_version', a.definition ->> 'schema_version', '0')::int8 as number, \
                        a.definition - '{registrant_oid,start_position,created_by}'::text[] as shown, \
                        case when a.kind in ('projection', 'subscription', 'invariant') then \
                                 array(select jsonb_array_elements_text(nullif(a.definition -> 'categories', 'null'))) \
                             when a.kind in ('fold', 'decider', 'category_rule') then array[a.definition ->> 'category'] end as categories, \
                        a.kind in ('projection', 'subscription') and a.definition ->> 'categories' is null as is_of_all \
                 from _eventstream.definitions() a \
                 where a.tenant_id = $1 \
                   and a.kind in ('fold', 'upcaster', 'event_type', 'protection', 'category_rule', 'decider', 'projection', 'subscription', 'invariant') \
             ) d \
             where ($2 is null or d.is_of_all or $2 = any (d.categories)) \
               and ($3 is null or d.categories is null or not d.is_of_all and d.categories <@ $3) \
             order by d.kind collate \"C\", rtrim(d.name, '0123456789') collate \"C\", d.number, d.name collate \"C\""
        ),
        &[INT8OID, TEXTOID, TEXTARRAYOID],
    ) };
}

/// Those of the tenant, or of one category, as far as `scope` lets them be read.
pub fn list(tenant_id: i64, category: Option<&str>, scope: &Scope, into: &Store) -> Result<()> {
    let readable = match scope {
        Scope::All => None,
        Scope::Categories(categories) => Some(text_array_of(categories)?),
    };
    as_owner(Planning::ByCost, |db, _| {
        let args = [Some(Datum::from(tenant_id)), category.map(from_text).transpose()?, readable];
        let found = DEFINITIONS.with(|plan| plan.rows(db, View::Caller, 0, &args, |row| read(db, row)))?;
        for [kind, name, definition] in found {
            let definition = Jsonb::parse(&definition)?.datum();
            into.put(&[Some(from_text(&kind)?), Some(from_text(&name)?), Some(definition)])?;
        }
        Ok(())
    })
}

/// Kind, name and definition.
fn read(db: &Db, row: &Row) -> Result<[String; 3]> {
    let (kind, shown) = (row.text(of::KIND)?, row.text(of::SHOWN)?);
    let handler = match (kind, row.text_opt(of::TAKES)?) {
        ("fold", _) => Some(Purpose::Fold),
        ("upcaster", _) => Some(Purpose::Upcaster),
        ("decider", _) => Some(Purpose::Decider),
        ("invariant", _) => Some(Purpose::Invariant),
        ("projection", Some("batch")) => Some(Purpose::Batch),
        ("projection", _) => Some(Purpose::Event),
        _ => None,
    };
    let called = [
        ("handler", handler, row.text_opt(of::HANDLER)?),
        ("boundary", Some(Purpose::Boundary), row.text_opt(of::BOUNDARY)?),
        ("reset", Some(Purpose::Reset), row.text_opt(of::RESET)?),
    ];
    let mut source = Vec::new();
    for (what, purpose, function) in called {
        let (Some(purpose), Some(function)) = (purpose, function) else { continue };
        let found = handler::registered(db, purpose, function)?;
        source.push(format!(
            "\"{what}\": {}",
            found.map_or_else(|reason| json!(reason).to_string(), |found| found.definition)
        ));
    }
    // Of two members of one name jsonb keeps the later one.
    let members = shown.strip_suffix('}').unwrap_or_default();
    let shown = if source.is_empty() {
        shown.to_owned()
    } else {
        format!("{members}, \"source\": {{{}}}}}", source.join(", "))
    };
    Ok([kind.to_owned(), row.text(of::NAME)?.to_owned(), shown])
}
