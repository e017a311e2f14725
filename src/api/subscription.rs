//! es_create_subscription and its kin, es_fetch, es_ack, es_nack, es_extend_lease, and the dead letters.
use super::{asks, asks_outside_of_tests, microseconds, reason, target, veiled};
use crate::access::{
    Access, authorize, authorize_all, authorize_tenant, notice_of_new_categories, shown_categories, shown_in,
};
use crate::command::scheduled::letters;
use crate::log::activation;
use crate::log::dead_letters::{self, Source};
use crate::log::event::checked_reason;
use crate::log::horizon;
use crate::log::read::Filter;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::function::{Args, Returned};
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::pg::{error::report, process::server};
use crate::projection::dead_letter;
use crate::subscription;
use crate::subscription::fetch::{self, Request};
use crate::subscription::lease::{self, LONGEST, Nack};
use crate::subscription::{Definition, dead};
use eventstream_core::audit::{REFERENCE, act};
use eventstream_core::name::check_label;
use eventstream_core::privilege::Privilege;
use eventstream_core::shown;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

asks!(Manage, "eventstream_create_subscription", "text, text[], text[], bigint, bigint, boolean", create);
asks!(Manage, "eventstream_drop_subscription", "text", drop_one);
asks!(Manage, "eventstream_seek_subscription", "text, bigint", seek);
asks_outside_of_tests!("es_fetch", Consume, "eventstream_fetch", "text, text, bigint, interval, interval", fetch);
asks_outside_of_tests!("es_ack", Consume, "eventstream_ack", "uuid, bigint", ack);
asks_outside_of_tests!("es_nack", Consume, "eventstream_nack", "uuid, bigint, text, interval, boolean", nack);
asks_outside_of_tests!("es_extend_lease", Consume, "eventstream_extend_lease", "uuid, interval", extend_lease);
asks_outside_of_tests!("es_retry_dead_letter", Manage, "eventstream_retry_dead_letter", "bigint", retry_dead_letter);
asks_outside_of_tests!("es_drop_dead_letter", Manage, "eventstream_drop_dead_letter", "bigint, text", drop_dead_letter);

/// The most events of one lease, and the longest wait (µs): a call keeps a snapshot, behind which no row can be pruned.
const MOST_EVENTS: i64 = 10_000;
const LONGEST_WAIT: i64 = 60_000_000;
/// The longest pause before a nacked event is delivered again (µs).
const LONGEST_PAUSE: i64 = 365 * 86_400_000_000;

fn create(args: &Args) -> Returned {
    let definition = Definition {
        name: args.text(0, "name")?,
        filter: Filter::of(args.text_array_opt(1, "categories")?, args.text_array_opt(2, "event_types")?),
        after_position: args.int8(3, "after_position")?,
        max_deliveries: args.int8(4, "max_deliveries")?,
        if_not_exists: args.boolean(5, "if_not_exists")?,
    };
    let access = authorize_all(Privilege::Manage, definition.filter.categories.as_deref())?;
    subscription::create(access.tenant_id, &definition)?;
    // Of those only that the role may read: whether others have streams is not for it to know.
    let named =
        definition.filter.categories.map(|named| shown_in(None).map(|scope| scope.narrow(Some(named)))).transpose()?;
    notice_of_new_categories(
        access.tenant_id,
        named.flatten().as_deref(),
        "the subscription begins with its first one",
    )?;
    from_text(definition.name).map(Some)
}

/// Where the role may manage all that the subscription of that name is about. Errors: ES020, 42501.
fn manage(name: &str) -> Result<Rc<Access>> {
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    let subscription = subscription::lookup::by_name(access.tenant_id, name)?;
    authorize_all(Privilege::Manage, subscription.filter.categories.as_deref())
}

/// Where the role may manage the category of a dead letter, if there is one of that id.
fn manage_letter(id: i64) -> Result<Rc<Access>> {
    let (access, _) = authorize_tenant(None, Privilege::Manage)?;
    match dead_letters::category(access.tenant_id, id)? {
        Some(category) => authorize(Privilege::Manage, &category),
        None => Ok(access),
    }
}

fn drop_one(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let access = manage(name)?;
    subscription::drop(access.tenant_id, name)?;
    from_text(name).map(Some)
}

fn seek(args: &Args) -> Returned {
    let name = args.text(0, "name")?;
    let after_position = args.int8(1, "after_position")?;
    let access = manage(name)?;
    subscription::seek(access.tenant_id, name, after_position)?;
    from_text(name).map(Some)
}

fn fetch(args: &Args) -> Returned {
    let name = args.text(0, "subscription")?;
    let consumer = args.text(1, "consumer")?;
    let max_count = args.int8(2, "max_count")?;
    let (access, _) = authorize_tenant(None, Privilege::Consume)?;
    check_label("consumer", consumer)?;
    if !(1..=MOST_EVENTS).contains(&max_count) {
        return Err(invalid("max_count", format!("must be 1 to {MOST_EVENTS}, not {max_count}")));
    }
    let request = Request {
        consumer,
        max_count: max_count.unsigned_abs() as usize,
        lease: microseconds(args, 3, "lease", 1_000, LONGEST, "1 millisecond to 1 hour")?,
        wait: microseconds(args, 4, "wait", 0, LONGEST_WAIT, "0 to 1 minute")?,
    };
    server::must_be_writable(c"es_fetch")?;
    horizon::must_be_known(c"es_fetch")?;
    activation::must_be_active("es_fetch")?;
    let subscription = subscription::lookup::by_name(access.tenant_id, name)?;
    for privilege in [Privilege::Consume, Privilege::Read] {
        authorize_all(privilege, subscription.filter.categories.as_deref())?;
    }
    let store = Store::begin(args)?;
    fetch::fetch(target(&access), &subscription, &request, &store)?;
    Ok(None)
}

/// The lease, and the tenant, where the role may consume what it holds.
fn lease_of(args: &Args) -> Result<([u8; 16], Rc<Access>)> {
    let lease_id = args.uuid(0, "lease_id")?;
    let (access, _) = authorize_tenant(None, Privilege::Consume)?;
    let filter = lease::filter(access.tenant_id, &lease_id)?;
    authorize_all(Privilege::Consume, filter.categories.as_deref())?;
    Ok((lease_id, access))
}

fn ack(args: &Args) -> Returned {
    let (lease_id, access) = lease_of(args)?;
    let count = lease::ack(access.tenant_id, &lease_id, args.int8_opt(1))?;
    Ok(Some(Datum::from(count)))
}

fn nack(args: &Args) -> Returned {
    authorize_tenant(None, Privilege::Consume)?;
    let position = args.int8(1, "global_position")?;
    let reason = reason(args, 2, "Say what went wrong: it is kept with the event until that is acknowledged.")?;
    let is_dead = args.boolean(4, "dead_letter")?;
    if is_dead {
        checked_reason(reason)?;
    }
    let retry_after = match args.interval_opt(3) {
        Some(_) => Some(microseconds(args, 3, "retry_after", 0, LONGEST_PAUSE, "0 to 365 days")?),
        None => None,
    };
    let (lease_id, access) = lease_of(args)?;
    let gone = lease::nack(access.tenant_id, &lease_id, &Nack { position, reason, retry_after, is_dead })?;
    Ok(Some(Datum::from(gone.len() as i64)))
}

fn extend_lease(args: &Args) -> Returned {
    authorize_tenant(None, Privilege::Consume)?;
    let by = microseconds(args, 1, "by", 1, LONGEST, "more than 0, and at most 1 hour")?;
    let (lease_id, access) = lease_of(args)?;
    let count = lease::extend(access.tenant_id, &lease_id, by)?;
    Ok(Some(Datum::from(count)))
}

fn retry_dead_letter(args: &Args) -> Returned {
    let id = args.int8(0, "id")?;
    let access = manage_letter(id)?;
    let category = dead_letters::category(access.tenant_id, id)?;
    let is_shown = shown_categories()?.covers(category.map(|category| vec![category]).as_deref());
    from_text(&veiled(is_shown, || retry(access.tenant_id, id))?).map(Some)
}

/// The event is processed once more: by the projection now, by the next consumer of the subscription later. The name of either. Errors:
/// ES005, and what the projection's handler raises.
fn retry(tenant_id: i64, id: i64) -> Result<String> {
    server::must_be_writable(c"es_retry_dead_letter")?;
    let letter = dead_letters::find(tenant_id, id)?;
    match letter.source {
        Source::Projection(projection_id) => dead_letter::retry(tenant_id, id, projection_id, letter.position)?,
        Source::Subscription(subscription_id) => dead::retry(tenant_id, id, subscription_id, letter.position)?,
        Source::Scheduled(scheduled_id) => letters::retry(tenant_id, id, scheduled_id)?,
    }
    dead_letters::note(tenant_id, act::DEAD_LETTER_RETRIED, &letter, None)?;
    Ok(letter.name)
}

fn drop_dead_letter(args: &Args) -> Returned {
    let id = args.int8(0, "id")?;
    let reason = reason(args, 1, REFERENCE)?;
    let access = manage_letter(id)?;
    checked_reason(reason)?;
    let role = server::role_name(server::session_role())?;
    if let Source::Scheduled(scheduled_id) = dead_letters::find(access.tenant_id, id)?.source {
        server::must_be_writable(c"es_drop_dead_letter")?;
        letters::drop(scheduled_id, reason)?;
    }
    let letter = dead_letters::forget(access.tenant_id, id, reason)?;
    let what = match letter.source {
        Source::Scheduled(_) => format!("scheduled command for {}", shown(&letter.stream)),
        _ => format!("event at position {}, {} version {}", letter.position, shown(&letter.stream), letter.version),
    };
    report::log(&format!(
        "dead letter {id} of {} ({what}) is dropped by {role}: {}",
        shown(&letter.name),
        shown(reason)
    ))?;
    from_text(&letter.name).map(Some)
}
