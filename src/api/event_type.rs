//! es_create_event_type, es_alter_event_type, es_drop_event_type, es_check_event_types, and what the view of event types asks.
use super::{asks, asks_outside_of_tests, target};
use crate::access::{authorize_all, authorize_tenant};
use crate::command::event_type::{self, Definition};
use crate::command::{counted, stored_types};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use eventstream_core::options::EventTypeSettings;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks!(Manage, "eventstream_create_event_type", "text, integer, jsonb, text, jsonb, boolean, boolean", create);
asks!(Manage, "eventstream_alter_event_type", "text, integer, jsonb", alter);
asks!(Manage, "eventstream_drop_event_type", "text, integer", drop_one);
asks_outside_of_tests!("es_check_event_types", Read, "eventstream_check_event_types", "boolean", check);
sql_function!("eventstream_event_counts", "bigint", counts);

fn create(args: &Args) -> Returned {
    let definition = Definition {
        event_type: args.text(0, "event_type")?,
        schema_version: args.int4(1, "schema_version")?,
        json_schema: args.jsonb_opt(2)?,
        description: args.text_opt(3)?,
        example: args.jsonb_opt(4)?,
        is_appendable: args.boolean(5, "appendable")?,
        if_not_exists: args.boolean(6, "if_not_exists")?,
    };
    let access = authorize_all(Privilege::Manage, None)?;
    event_type::create(target(&access), &definition)?;
    from_text(definition.event_type).map(Some)
}

fn alter(args: &Args) -> Returned {
    let event_type = args.text(0, "event_type")?;
    let schema_version = args.int4(1, "schema_version")?;
    let access = authorize_all(Privilege::Manage, None)?;
    let settings = settings(args.jsonb(2, "settings")?)?;
    event_type::alter(target(&access), event_type, schema_version, &settings)?;
    from_text(event_type).map(Some)
}

fn settings(given: Jsonb) -> Result<EventTypeSettings<Jsonb>> {
    if !given.is_object() {
        return Err(invalid("settings", "must be a JSON object"));
    }
    Value::Object(given).read().map_err(|failure| failure.within(|| "settings".into()))
}

fn drop_one(args: &Args) -> Returned {
    let event_type = args.text(0, "event_type")?;
    let access = authorize_all(Privilege::Manage, None)?;
    event_type::drop(target(&access), event_type, args.int4_opt(1))?;
    from_text(event_type).map(Some)
}

fn check(args: &Args) -> Returned {
    let is_thorough = args.boolean(0, "thorough")?;
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    let store = Store::begin(args)?;
    stored_types::check(access.tenant_id, scope.narrow(None).as_deref(), is_thorough, &mut |found| {
        let place = found.place.as_ref();
        let breach = place.and_then(|place| place.breach.as_ref());
        store.put(&[
            found.of.map(|(event_type, _)| from_text(event_type)).transpose()?,
            found.of.map(|(_, version)| Datum::from(version)),
            Some(from_text(&found.problem)?),
            found.count.map(|count| Datum::from(count.events)),
            found.count.map(|count| Datum::from(count.last_recorded_at)),
            place.and_then(|place| place.stream.as_deref()).map(from_text).transpose()?,
            place.map(|place| Datum::from(place.version)),
            place.map(|place| Datum::from(place.global_position)),
            breach.map(|breach| from_text(&breach.value)).transpose()?,
            breach.map(|breach| from_text(&breach.rule)).transpose()?,
        ])
    })?;
    Ok(None)
}

fn counts(args: &Args) -> Returned {
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    access.must_be(args.int8(0, "tenant_id")?)?;
    let store = Store::begin(args)?;
    if !counted::is_counted(access.tenant_id)? {
        return Ok(None);
    }
    let counts = counted::counts(access.tenant_id, scope.narrow(None).as_deref())?;
    for (event_type, versions) in &counts.of {
        for (&version, count) in versions {
            store.put(&[
                Some(from_text(event_type)?),
                Some(Datum::from(version)),
                Some(Datum::from(count.events)),
                Some(Datum::from(count.last_recorded_at)),
                None,
            ])?;
        }
    }
    store.put(&[None, None, None, None, counts.counted_to.map(Datum::from)])?;
    Ok(None)
}
