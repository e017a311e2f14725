//! es_activate, es_metrics, and what the views of sql/ops/views.sql ask.
use super::{asks_outside_of_tests, listed};
use crate::access::{
    is_held_to_one, listed_tenant_ids, must_be_everywhere, must_not_be_held, operated, operated_in,
    operated_tenant_ids, operated_tenants,
};
use crate::log::activation;
use crate::log::identity;
use crate::ops::{
    health, metrics,
    overview::{self, subscriptions},
};
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::query::store::{Store, composite};
use crate::pg::value::datum::{from_float, from_text, int8_array_of};
use crate::pg::{function::call, process::server};
use crate::shared::{tasks, trial};
use pgrx::pg_sys::Datum;

asks_outside_of_tests!("es_activate", Admin, "eventstream_activate", "", activate);
sql_function!("eventstream_is_home", "", is_home);
sql_function!("eventstream_metrics", "", show_metrics);
sql_function!("eventstream_operated", "", one_tenant);
sql_function!("eventstream_operated_tenants", "", all_tenants);
sql_function!("eventstream_listed_tenants", "", listed_tenants);
sql_function!("eventstream_projection_states", "bigint", projection_states);
sql_function!("eventstream_subscription_states", "bigint", subscription_states);
sql_function!("eventstream_tasks", "", running_tasks);
sql_function!("eventstream_health", "", checks);

fn activate(_: &Args) -> Returned {
    server::must_be_writable(c"es_activate")?;
    must_be_everywhere()?;
    from_text(&activation::activate()?).map(Some)
}

fn is_home(_: &Args) -> Returned {
    Ok(Some(Datum::from(identity::home()?.is_here)))
}

fn show_metrics(_: &Args) -> Returned {
    call::refuse_in_user_code()?;
    trial::refuse("es_metrics")?;
    must_not_be_held("es_metrics()")?;
    from_text(&metrics::page()?).map(Some)
}

fn one_tenant(args: &Args) -> Returned {
    let (tenant_id, categories, shown) = operated()?;
    composite(args, &[Some(Datum::from(tenant_id)), listed(categories)?, listed(shown)?]).map(Some)
}

fn all_tenants(_: &Args) -> Returned {
    int8_array_of(&operated_tenant_ids()?).map(Some)
}

fn listed_tenants(_: &Args) -> Returned {
    int8_array_of(&listed_tenant_ids()?).map(Some)
}

fn projection_states(args: &Args) -> Returned {
    let tenant_id = args.int8(0, "tenant_id")?;
    operated_in(tenant_id)?;
    let store = Store::begin(args)?;
    for projection in overview::projections(&overview::Moment::look()?, Some(tenant_id))? {
        store.put(&[
            Some(Datum::from(projection.id)),
            Some(from_text(projection.standing.as_str())?),
            Some(Datum::from(projection.position)),
            Some(Datum::from(projection.lag)),
            Some(from_float(projection.lag_seconds)),
        ])?;
    }
    Ok(None)
}

fn subscription_states(args: &Args) -> Returned {
    let tenant_id = args.int8(0, "tenant_id")?;
    operated_in(tenant_id)?;
    let store = Store::begin(args)?;
    let moment = overview::Moment::look()?;
    for subscription in subscriptions::subscriptions(&moment, Some(tenant_id))? {
        store.put(&[
            Some(Datum::from(subscription.id)),
            Some(Datum::from(subscription.position)),
            Some(Datum::from(subscription.newest_position)),
            Some(Datum::from(subscription.lag)),
            Some(from_float(subscription.lag_seconds)),
            Some(Datum::from(subscription.consumers)),
            Some(Datum::from(subscription.leased)),
            Some(Datum::from(subscription.parked)),
            Some(Datum::from(subscription.redeliveries)),
            Some(Datum::from(subscription.dead_letters)),
        ])?;
    }
    Ok(None)
}

fn running_tasks(args: &Args) -> Returned {
    operated_tenants()?;
    let store = Store::begin(args)?;
    // Of every tenant's.
    if is_held_to_one()? {
        return Ok(None);
    }
    for task in tasks::under_way() {
        store.put(&[
            Some(from_text(task.kind.as_str())?),
            Some(Datum::from(task.pid)),
            Some(Datum::from(task.done)),
            Some(Datum::from(task.total)),
            Some(Datum::from(task.since)),
        ])?;
    }
    Ok(None)
}

fn checks(args: &Args) -> Returned {
    let tenant_id = operated_tenants()?;
    let store = Store::begin(args)?;
    for check in health::look(tenant_id)? {
        store.put(&[
            Some(from_text(&check.name)?),
            check.tenant.as_deref().map(from_text).transpose()?,
            Some(from_text(check.level.as_str())?),
            Some(from_text(&check.detail)?),
            check.fix.as_deref().map(from_text).transpose()?,
        ])?;
    }
    Ok(None)
}
