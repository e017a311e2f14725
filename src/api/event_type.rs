//! es_create_event_type, es_alter_event_type, es_drop_event_type.
use super::{asks, target};
use crate::access::authorize_all;
use crate::command::event_type::{self, Definition};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::value::datum::from_text;
use eventstream_core::options::EventTypeSettings;
use eventstream_core::privilege::Privilege;

asks!(Manage, "eventstream_create_event_type", "text, integer, jsonb, text, jsonb, boolean, boolean", create);
asks!(Manage, "eventstream_alter_event_type", "text, integer, jsonb", alter);
asks!(Manage, "eventstream_drop_event_type", "text, integer", drop_one);

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
    event_type::drop(access.tenant_id, event_type, args.int4_opt(1))?;
    from_text(event_type).map(Some)
}
