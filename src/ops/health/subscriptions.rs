//! The checks of subscriptions.
use super::check::{Check, Level, Writing, dead_letters, seconds};
use crate::ops::overview::Moment;
use crate::ops::overview::subscriptions::{Subscription, subscriptions};
use crate::pg::error::failure::Result;
use crate::shared::live_settings;
use eventstream_core::quote_literal;

/// The same events were delivered so often in vain before that is worth a look.
const OFTEN: i64 = 3;

pub fn checks(moment: &Moment, writing: &Writing, tenant_id: Option<i64>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for subscription in subscriptions(moment, tenant_id)? {
        checks.push(of_subscription(&subscription, writing));
        if subscription.dead_letters > 0 {
            let Subscription { tenant, name, dead_letters: count, .. } = &subscription;
            checks.push(dead_letters("subscription", tenant, name, *count, writing));
        }
    }
    Ok(checks)
}

fn of_subscription(subscription: &Subscription, writing: &Writing) -> Check {
    let Subscription { tenant, lag, consumers, leased, parked, redeliveries, .. } = subscription;
    let name = format!("subscription {}", subscription.name);
    let literal = quote_literal(&subscription.name);
    let stand = format!(
        "{lag} positions and {} behind; {consumers} consumers, {leased} events leased, {parked} streams parked",
        seconds(subscription.lag_seconds)
    );
    let is_late = live_settings::lag_threshold().is_some_and(|limit| subscription.lag_seconds > limit.as_secs_f64());
    let take_over = format!(
        "{}select * from {}es_fetch({literal}, 'operator', lease => '10 minutes');\n\
         -- process these events, then select {}es_ack(…) with their lease_id",
        writing.choice(Some(tenant)),
        writing.schema(),
        writing.schema()
    );
    let check = if *redeliveries >= OFTEN {
        let detail = format!(
            "the same events were delivered {redeliveries} times, and each lease ended without es_ack: the consumer fails, or needs a longer \
             lease; {stand}"
        );
        Check::bad(name, Level::Critical, "leases end", detail, take_over)
    } else if is_late && *consumers == 0 {
        let detail = format!("nobody consumes it: start its consumers, or drop it if nobody is to; {stand}");
        let drop = writing.call(Some(tenant), "es_drop_subscription", &literal);
        let fix = format!("{}\n{drop}", writing.look_up("subscriptions", &subscription.name));
        Check::bad(name, Level::Critical, "no consumer", detail, fix)
    } else if is_late {
        let detail = format!("more than eventstream.lag_threshold behind: it needs more consumers; {stand}");
        Check::bad(name, Level::Critical, "behind", detail, take_over)
    } else {
        Check::ok(name, stand)
    };
    check.of(tenant)
}
