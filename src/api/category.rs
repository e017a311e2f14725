//! es_alter_category, and what the view of categories asks.
use super::{asks, target};
use crate::access::{authorize, authorize_tenant};
use crate::command::category;
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use eventstream_core::name::Category;
use eventstream_core::options::CategorySettings;
use eventstream_core::privilege::Privilege;

asks!(Manage, "eventstream_alter_category", "text, jsonb", alter);
sql_function!("eventstream_category_settings", "bigint", settings_of_all);

fn alter(args: &Args) -> Returned {
    let category = Category::parse("category", args.text(0, "category")?)?.as_str();
    let access = authorize(Privilege::Manage, category)?;
    let settings = settings(args.jsonb(1, "settings")?)?;
    category::alter(target(&access), category, &settings).map_err(|failure| failure.within(|| "settings".into()))?;
    from_text(category).map(Some)
}

fn settings(given: Jsonb) -> Result<CategorySettings> {
    if !given.is_object() {
        return Err(invalid("settings", "must be a JSON object"));
    }
    Value::Object(given).read().map_err(|failure| failure.within(|| "settings".into()))
}

fn settings_of_all(args: &Args) -> Returned {
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    access.must_be(args.int8(0, "tenant_id")?)?;
    let store = Store::begin(args)?;
    category::settings(access.tenant_id, scope.narrow(None), &mut |category, settings| {
        store.put(&[Some(from_text(category)?), settings.map(Jsonb::datum)])
    })?;
    Ok(None)
}
