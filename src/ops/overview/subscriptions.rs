//! How every subscription stands: what the view eventstream.subscriptions, health and metrics are made of.
use super::Moment;
use crate::log::filter::Filter;
use crate::log::pending::Followed;
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::present::upcasters;
use crate::shared::session::as_owner;
use pgrx::pg_sys::{Datum, INT8OID, TIMESTAMPTZOID};

/// A subscription, and how it stands.
pub struct Subscription {
    pub id: i64,
    pub tenant: String,
    pub name: String,
    /// Nothing up to here is outstanding but for parked streams.
    pub position: i64,
    /// The same of the streams that are furthest.
    pub newest_position: i64,
    /// Settled positions after `position`; 0 where none of them is an event for it.
    pub lag: i64,
    /// Since the first event that nobody has acknowledged was recorded, parked ones left aside.
    pub lag_seconds: f64,
    /// Seen lately.
    pub consumers: i64,
    pub leased: i64,
    pub parked: i64,
    /// How often the events that come next were delivered in vain, in the slot where that happened most.
    pub redeliveries: i64,
    pub dead_letters: i64,
}

columns! {
    // $2 is now. A slot's place in the array is its number + 1.
    mod of, selected;
    ID = "s.id",
    TENANT_ID = "s.tenant_id",
    TENANT = "t.name",
    NAME = "s.name",
    CATEGORIES = "s.categories",
    EVENT_TYPES = "s.event_types",
    POSITIONS = "p.positions",
    REDELIVERIES = "p.redeliveries",
    CONSUMERS = "(select count(distinct c.consumer) from _eventstream.subscription_consumers c \
                  where c.subscription_id = s.id and c.seen_until > $2)",
    LEASED = "(select coalesce(sum(cardinality(l.positions)), 0) from _eventstream.subscription_leases l \
               where l.subscription_id = s.id and l.lease_until > $2 and l.finished_at is null)",
    PARKED = "(select count(*) from _eventstream.subscription_parked k where k.subscription_id = s.id)",
    DEAD_LETTERS = "(select count(*) from _eventstream.dead_letters d where d.subscription_id = s.id)",
}

thread_local! {
    static LIST: Plan = const { Plan::new(
        concat!(
            "select ", selected!(),
            " from _eventstream.subscriptions s join _eventstream.tenants t on t.id = s.tenant_id \
             cross join lateral (select array_agg(o.global_position order by o.slot) as positions, \
                                        max(o.redeliveries)::int8 as redeliveries \
                                 from _eventstream.subscription_slots o where o.subscription_id = s.id) p \
             where ($1 is null or s.tenant_id = $1) and p.positions is not null \
             order by t.name collate \"C\", s.name collate \"C\""
        ),
        &[INT8OID, TIMESTAMPTZOID],
    ) };
}

struct Listed {
    subscription: Subscription,
    tenant_id: i64,
    filter: Filter,
    positions: Vec<i64>,
}

/// The subscriptions of a tenant, or (None) of all, by tenant and name.
pub fn subscriptions(moment: &Moment, tenant_id: Option<i64>) -> Result<Vec<Subscription>> {
    let args = [tenant_id.map(Datum::from), Some(Datum::from(moment.now))];
    let listed = as_owner(Planning::ByIndex, |db, _| {
        LIST.with(|list| {
            list.rows(db, View::Latest, 0, &args, |row| {
                let positions = row.int8_array(of::POSITIONS)?;
                Ok(Listed {
                    subscription: Subscription {
                        id: row.int8(of::ID)?,
                        tenant: row.text(of::TENANT)?.to_owned(),
                        name: row.text(of::NAME)?.to_owned(),
                        position: positions.iter().copied().min().unwrap_or(0),
                        newest_position: positions.iter().copied().max().unwrap_or(0),
                        lag: 0,
                        lag_seconds: 0.0,
                        consumers: row.int8(of::CONSUMERS)?,
                        leased: row.int8(of::LEASED)?,
                        parked: row.int8(of::PARKED)?,
                        redeliveries: row.int8(of::REDELIVERIES)?,
                        dead_letters: row.int8(of::DEAD_LETTERS)?,
                    },
                    tenant_id: row.int8(of::TENANT_ID)?,
                    filter: Filter::of(row.text_array_opt(of::CATEGORIES)?, row.text_array_opt(of::EVENT_TYPES)?),
                    positions,
                })
            })
        })
    })?;
    let mut subscriptions = Vec::with_capacity(listed.len());
    for Listed { mut subscription, tenant_id, filter, positions } in listed {
        let filter = upcasters::following(tenant_id, filter)?;
        let followed = Followed { tenant_id, filter: &filter, slots: Some(&positions) };
        // A slot that has nothing to give is not moved for every event of the others.
        let behind = moment.first(followed, subscription.position)?;
        subscription.position =
            behind.map_or(moment.settled.of(tenant_id), |first| first.position - 1).max(subscription.position);
        subscription.newest_position = subscription.newest_position.max(subscription.position);
        if let Some(first) = behind {
            subscription.lag = moment.settled.of(tenant_id) - subscription.position;
            subscription.lag_seconds = moment.age(first);
        }
        subscriptions.push(subscription);
    }
    Ok(subscriptions)
}
