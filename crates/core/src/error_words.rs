//! The words of errors that depend on their values: parts of messages, and hints. Only `error` uses them.

use crate::error_hints;
use crate::privilege::Privilege;
use crate::quote::{counted, quote_identifier, quote_literal, shown};
use crate::word::Word;

pub fn conflict_hint(expected: i64, actual: i64, is_closed: bool) -> String {
    if is_closed {
        format!(
            "The stream is closed at version {actual}, and takes no more events: read it again, and decide without appending to it. A check alone \
             may expect version {actual}."
        )
    } else if actual > expected {
        format!(
            "Read from version {}, decide again, and append with expected_version => {actual}.",
            expected.saturating_add(1)
        )
    } else if actual == 0 {
        "The stream has no events: check its name and tenant, or append its first with expected_version => 0."
            .to_owned()
    } else {
        format!(
            "The stream has only {actual} events; was version {expected} read elsewhere, or before a rollback or restore? Read \
             the stream again, decide again, and append with expected_version => {actual}."
        )
    }
}

pub fn matches_words(after: i64, seen: Option<i64>, matches: i64) -> String {
    let events = |count: i64| counted(count, "event", "events");
    match seen {
        None => format!("events that its query matches came after position {after}"),
        Some(seen) if seen == matches => {
            format!("its query matches {} after position {after}, and others were seen", events(matches))
        }
        Some(0) => format!("its query matches {} after position {after}, and none was seen", events(matches)),
        Some(seen) => format!(
            "its query matches {} after position {after}, and {} seen",
            events(matches),
            counted(seen, "was", "were")
        ),
    }
}

pub fn tenant_hint(tenants: &[String]) -> String {
    match tenants.first() {
        Some(first) => {
            let first = quote_literal(first);
            format!(
                "For the session: set eventstream.tenant = {first}; for the transaction: select es_use_tenant({first});"
            )
        }
        None => "The role may use no tenant yet: an admin of one can run es_grant for it.".to_owned(),
    }
}

/// `any`: where no category is named, the privilege for any one of them is enough. `is_stranger`: nobody says whether there is such a tenant.
pub fn grant_hint(
    role: &str,
    privilege: &str,
    tenant: &str,
    category: Option<&str>,
    (any, is_stranger): (bool, bool),
) -> String {
    // Only some privileges may be narrowed; a statement that es_grant refuses would be no help.
    let narrowed = Privilege::named(privilege).is_some_and(Privilege::may_be_narrowed);
    let (category, other) = match category {
        Some(category) if narrowed => (format!(", category => {}", quote_literal(category)), ""),
        None if narrowed && any => (String::new(), " For one category: the same with category => '<its name>'."),
        _ => (String::new(), ""),
    };
    let who = if is_stranger {
        "Check the tenant's name: one that was renamed goes by its new one. If it is right, an admin of the tenant can run"
    } else {
        "An admin of the tenant can run"
    };
    format!(
        "{who}: select es_grant({}, {}, tenant => {}{category});{other}",
        quote_literal(role),
        quote_literal(privilege),
        quote_literal(tenant)
    )
}

pub fn at_event(position: Option<i64>) -> String {
    position.map_or_else(String::new, |position| format!(" at the event at global position {position}"))
}

pub fn stopped_hint(projection: &str, position: Option<i64>) -> String {
    let name = quote_literal(projection);
    let skip = position.map_or_else(String::new, |position| {
        format!(" Or, to go on without the event: select es_skip_event({name}, {position}, 'CHG-4711');")
    });
    format!("Mend what is named, then run: select es_resume_projection({name});{skip}")
}

pub const fn events_noun(events: i64) -> &'static str {
    if events == 1 { "event" } else { "events" }
}

pub fn at_version(version: Option<i64>) -> String {
    version.map_or_else(String::new, |version| format!(" at version {version}"))
}

pub fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

pub const fn already(version: Option<i64>) -> &'static str {
    if version.is_some() { "already in" } else { "given twice for" }
}

pub fn some_streams(count: i64, is_all: bool) -> String {
    format!("{}{count} {}", if is_all { "" } else { "at least " }, if count == 1 { "stream" } else { "streams" })
}

pub fn in_category(category: Option<&str>) -> String {
    category.map_or_else(String::new, |category| format!(" for category \"{category}\""))
}

pub fn for_tag(tag: Option<&str>) -> String {
    tag.map_or_else(String::new, |tag| format!(" for events with the tag {}", shown(tag)))
}

pub fn period_hint(category: &str) -> String {
    format!(
        "Record it with an occurred_at in the open period, and keep its own date in the payload. What is closed, and why: select closed_until, tag, \
         closed_by, reason from eventstream.periods where category = {} and reopened_at is null;",
        quote_literal(category)
    )
}

pub fn fold_not_found(fold: Option<&str>, category: Option<&str>) -> String {
    match (fold, category) {
        (Some(fold), Some(category)) => format!("there is no fold {} for category \"{category}\"", shown(fold)),
        (Some(fold), None) => format!("there is no fold {}", shown(fold)),
        (None, Some(category)) => format!("category \"{category}\" has no default fold"),
        (None, None) => "what the boundary's items match has no fold: the decider names none of no category".to_owned(),
    }
}

pub const fn no_fold_hint(is_named: bool) -> &'static str {
    if is_named { error_hints::FOLD_NOT_FOUND } else { error_hints::NO_FOLD_OF_QUERY }
}

/// What to do where an object is to go that is in use: about the first of its users, as their queries say them ("fold … of tenant …").
pub fn in_use_hint(users: &[String], is_table: bool) -> String {
    let ending = users.first().and_then(|user| ending_of(user, is_table));
    let first = match (ending, is_table) {
        (Some(ending), true) => {
            format!("{ending} drops a state table with its projection, and without drop_table leaves it to you")
        }
        (Some(ending), false) => return format!("Register another function there first, or end its use: {ending}"),
        (None, true) => "es_drop_projection drops a state table with its projection, or leaves it to you".to_owned(),
        (None, false) => return "Register another function there first, or unregister what is named.".to_owned(),
    };
    format!(
        "{first}; to move one, do that, and create it anew under its new name. Columns that the projection does not write are yours."
    )
}

/// The statement that ends a use.
fn ending_of(user: &str, is_table: bool) -> Option<String> {
    let (user, tenant) = user.rsplit_once(" of tenant ")?;
    let unquoted = |name: &str| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(name) => quote_literal(&name.replace("\"\"", "\"")),
        None => quote_literal(name),
    };
    let call = if let Some(fold) = user.strip_prefix("fold ") {
        format!("es_unregister_fold({})", unquoted(fold))
    } else if let Some(decider) = user.strip_prefix("decider ") {
        format!("es_unregister_decider({})", unquoted(decider))
    } else if let Some(invariant) = user.strip_prefix("invariant ") {
        format!("es_unregister_invariant({})", unquoted(invariant))
    } else if let Some(step) = user.strip_prefix("the upcaster of ") {
        let (event_type, version) = step.rsplit_once(" from schema version ")?;
        format!("es_unregister_upcaster({}, {version})", unquoted(event_type))
    } else {
        let more = if is_table { ", drop_table => true" } else { "" };
        format!("es_drop_projection({}{more})", unquoted(user.strip_prefix("projection ")?))
    };
    let place = if tenant == "default" { String::new() } else { format!("in tenant {tenant}: ") };
    Some(format!("{place}select {call};"))
}

pub fn holders_hint(holders: &[(i32, String)], again: &str) -> String {
    match holders.first() {
        Some((pid, since)) => format!(
            "Process {pid} has a transaction open since {since}: wait for its end, or look at it in pg_stat_activity and end its \
             session (select pg_terminate_backend({pid});). Nothing was changed: {again}, or raise eventstream.gate_timeout."
        ),
        None => format!("Nothing was changed: {again}, or raise eventstream.gate_timeout."),
    }
}

pub const UNWRITTEN_HINT: &str =
    "Give the event another payload, or register a fold that takes such events (rules with a default, or a handler).";

pub fn operator_hint(role: &str, tenant: &str, category: Option<&str>, is_stranger: bool) -> String {
    format!(
        "To look only, a superuser can run: grant pg_monitor to {}; to steer as well: {}",
        quote_identifier(role),
        grant_hint(role, "manage", tenant, category, (false, is_stranger))
    )
}

pub fn state_limit_hint(limit: i64) -> String {
    format!(
        "Ways out: a fold that keeps less of its events, registered again (rules, or another handler), an upcaster that makes less of them \
         (es_register_upcaster), or have a superuser raise eventstream.max_state_bytes, which is {limit} now."
    )
}

pub fn states_failed_hint(category: &str, fold: &str) -> String {
    format!(
        "select stream, problem from es_category_state({}, fold => {}, on_error => 'report') where problem is not null; shows them all. Ways \
         out: an upcaster that mends such events as they are read (es_register_upcaster), or a fold that takes them, \
         registered again (rules with a default, or a handler).",
        quote_literal(category),
        quote_literal(fold)
    )
}

pub fn holder_hint(pid: i32) -> String {
    format!(
        "That transaction has appended and is still open: the view eventstream.horizon_holders shows it; \
         select pg_terminate_backend({pid}) would end its session."
    )
}

pub fn reused_hint(highest: i64) -> String {
    format!(
        "Find out who set it, and run es_verify(); then a superuser sets it right: \
         select setval('_eventstream.positions', {highest});"
    )
}

/// An event that a condition should have been told of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are what their names say
pub struct Match {
    pub position: i64,
    pub event_type: String,
    pub tags: Vec<String>,
    pub category: String,
}

/// Processes, and since when, for machines.
pub fn holders_facts(holders: &[(i32, String)]) -> Vec<serde_json::Value> {
    holders.iter().map(|(pid, since)| serde_json::json!({"pid": pid, "since": since})).collect()
}
