//! The rules of categories: set, and the judgement of appends by them. What a rule refuses is decided in crates/core; here is what is asked for it.
//!
//! Promises: from the commit of es_alter_category on, an append of the category that enters the tenant's gate is judged by it; of two sessions that set
//! different rules at once both count.
use super::declared::Declared;
use crate::access::notice_of_new_categories;
use crate::log::event::NewEvent;
use crate::log::request::Request;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::error::report;
use crate::pg::jsonb::{Jsonb, Stored, Value};
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::from_text;
use crate::shared::catalog::announce_category_change;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::shared::trial;
use crate::state::folds;
use eventstream_core::command::boundary::Found;
use eventstream_core::command::category::{CategoryRules, OneEvent, ToStream};
use eventstream_core::error::Error;
use eventstream_core::name::check_text;
use eventstream_core::options::CategorySettings;
use eventstream_core::word::CategoryRule;
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::{Datum, INT8OID, JSONBOID, TEXTOID};
use std::collections::{BTreeMap, HashMap};

columns! {
    mod of, selected;
    CATEGORY = "category",
    SETTINGS = "settings",
    MAX_FUTURE = "(extract(epoch from (settings ->> 'max_future')::interval) * 1000000)::bigint",
}

thread_local! {
    static LOAD: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.category_rules where tenant_id = $1"),
        &[INT8OID],
    ) };
    // How long it is in microseconds, whether that is the same in every month, and as it is printed.
    static INTERVAL: Plan = const { Plan::new(
        "select (extract(epoch from i) * 1000000)::bigint, extract(year from i) = 0 and extract(month from i) = 0, i::text \
         from (select $1::interval as i) asked",
        &[TEXTOID],
    ) };
    static NEXT: Plan = const { Plan::new(
        "select category from _eventstream.streams where tenant_id = $1 and category > $2 order by category limit 1",
        &[INT8OID, TEXTOID],
    ) };
    static IS_THERE: Plan = const { Plan::new(
        "select from _eventstream.streams where tenant_id = $1 and category = $2 limit 1",
        &[INT8OID, TEXTOID],
    ) };
    static SETTINGS: Plan = const { Plan::new(
        "select category, settings from _eventstream.category_rules where tenant_id = $1",
        &[INT8OID],
    ) };
    // Null takes a key away.
    static ALTER: Plan = const { Plan::new(
        "update _eventstream.category_rules set settings = jsonb_strip_nulls(settings || $3) where tenant_id = $1 and category = $2",
        &[INT8OID, TEXTOID, JSONBOID],
    ) };
    static MAKE: Plan = const { Plan::new(
        "insert into _eventstream.category_rules as c (tenant_id, category, settings) values ($1, $2, jsonb_strip_nulls($3)) \
         on conflict on constraint category_rules_pkey do update set settings = jsonb_strip_nulls(c.settings || $3)",
        &[INT8OID, TEXTOID, JSONBOID],
    ) };
}

/// The rules of a tenant's categories: of those that have any.
#[derive(Default)]
pub struct Categories(HashMap<String, CategoryRules>);

pub fn load(tenant_id: i64) -> Result<Categories> {
    let mut categories = Categories::default();
    as_owner(Planning::ByIndex, |db, _| {
        LOAD.with(|plan| {
            plan.rows(db, View::Latest, 0, &[Some(Datum::from(tenant_id))], |row| {
                let Some(settings) = row.jsonb_opt(of::SETTINGS)? else { return Ok(()) };
                let settings: CategorySettings = Value::Object(settings).read()?;
                let rules = CategoryRules::new(&settings, row.int8_opt(of::MAX_FUTURE));
                if !rules.is_empty() {
                    categories.0.insert(row.text(of::CATEGORY)?.to_owned(), rules);
                }
                Ok(())
            })
        })
    })?;
    Ok(categories)
}

impl Categories {
    /// None where the category has no rules.
    pub fn of(&self, category: &str) -> Option<&CategoryRules> {
        if self.0.is_empty() { None } else { self.0.get(category) }
    }

    /// Whether a category asks for a rule.
    pub fn asks(&self, category: &str, rule: CategoryRule) -> bool {
        self.of(category).is_some_and(|rules| rules.asks(rule))
    }

    /// Errors: ES017.
    pub fn judge(&self, declared: &Declared, request: &Request, found: Found) -> Result<()> {
        let Some(rules) = self.of(request.stream.category()) else { return Ok(()) };
        let is_kept = request.keeps_what_it_was_decided_on();
        rules.judge_stream(ToStream { stream: request.stream, is_new: found.version == 0, is_kept })?;
        let clock = if rules.asks(CategoryRule::MaxFuture) { trial::clock() } else { 0 };
        for (place, event) in request.events.iter().enumerate() {
            let event = OneEvent {
                event_type: event.event_type,
                tags: &event.tags,
                is_declared: !rules.asks(CategoryRule::EventTypes) || declared.has(event.event_type)?,
                without_actor: if rules.asks(CategoryRule::Actor) { without_actor(event)? } else { None },
                has_id: event.event_id.is_some(),
                ahead: event.occurred_at.map_or(0, |occurred_at| occurred_at.saturating_sub(clock)),
            };
            rules.judge_event(request.stream, place, &event)?;
        }
        Ok(())
    }
}

/// Why the metadata name nobody who acts, if they do not.
fn without_actor(event: &NewEvent) -> Result<Option<&'static str>> {
    let mut why = Some("name no actor");
    event.metadata.value.each(|key, value| {
        if key == "actor" {
            why = match value {
                // What nobody sees names nobody.
                Value::Text(actor) if check_text("actor", actor, usize::MAX).is_ok() => None,
                Value::Text(_) => Some("name an actor that is blank, or has letters that nobody sees"),
                Value::Null => Some("name no actor: it is null"),
                _ => Some("name an actor that is no text"),
            };
        }
        Ok(())
    })?;
    Ok(why)
}

/// Gives each category that has streams or rules (of these; None: of all), with what was set of it.
pub fn settings(
    tenant_id: i64,
    among: Option<Vec<String>>,
    each: &mut dyn FnMut(&str, Option<Jsonb>) -> Result<()>,
) -> Result<()> {
    as_owner(Planning::ByIndex, |db, _| {
        let tenant = Some(Datum::from(tenant_id));
        let mut found = BTreeMap::new();
        SETTINGS.with(|plan| {
            plan.rows(db, View::Caller, 0, &[tenant], |row| {
                found.insert(row.text(0)?.to_owned(), row.jsonb_opt(1)?.map(Stored::keep));
                Ok(())
            })
        })?;
        match &among {
            Some(among) => {
                found.retain(|category, _| among.contains(category));
                for category in among {
                    let is_there = IS_THERE
                        .with(|plan| plan.first(db, View::Caller, &[tenant, Some(from_text(category)?)], |_| Ok(())))?;
                    if is_there.is_some() {
                        found.entry(category.clone()).or_insert(None);
                    }
                }
            }
            None => {
                let mut last = String::new();
                while let Some(category) = NEXT.with(|plan| {
                    plan.first(db, View::Caller, &[tenant, Some(from_text(&last)?)], |row| Ok(row.text(0)?.to_owned()))
                })? {
                    found.entry(category.clone()).or_insert(None);
                    last = category;
                }
            }
        }
        found.iter().try_for_each(|(category, settings)| each(category, settings.as_ref().map(Stored::view)))
    })
}

/// Sets what is given of a category's rules. Errors: ES005.
pub fn alter(target: Target, category: &str, settings: &CategorySettings) -> Result<()> {
    let max_future = settings.max_future.flatten().map(interval).transpose()?;
    let printed = max_future.as_ref().map(|(_, printed)| printed.as_str());
    let settings = CategorySettings { max_future: settings.max_future.map(|_| printed), ..*settings };
    let changes = settings.changes()?;
    if changes["foldable"].is_string() {
        must_have_fold(target, category)?;
    }
    server::must_be_writable(c"es_alter_category")?;
    if let Some((microseconds, printed)) = &max_future {
        say_narrower(*microseconds, printed)?;
    }
    let is_asked = changes.as_object().is_some_and(|changes| changes.values().any(|value| !value.is_null()));
    if is_asked {
        let categories = [category.to_owned()];
        notice_of_new_categories(
            target.id,
            Some(&categories),
            "what is appended to it is judged from its first event on",
        )?;
    }
    let changes = Jsonb::parse(&changes.to_string())?.datum();
    let row = [Some(Datum::from(target.id)), Some(from_text(category)?), Some(changes)];
    as_owner(Planning::ByIndex, |db, catalog| {
        let plan = if is_asked { &MAKE } else { &ALTER };
        plan.with(|plan| plan.write(db, &row))?;
        announce_category_change(catalog)
    })
}

/// A NOTICE where the setting for all categories refuses what the rule would take.
fn say_narrower(microseconds: i64, printed: &str) -> Result<()> {
    let most = settings::max_future_skew();
    if microseconds <= most.saturating_mul(1_000_000) {
        return Ok(());
    }
    report::notice(&format!(
        "max_future is {printed}, and eventstream.max_future_skew, which counts for all categories, is {most} seconds: the narrower one counts"
    ))
}

/// In microseconds, and as PostgreSQL prints it, whatever the session's style.
fn interval(text: &str) -> Result<(i64, String)> {
    let refused = |reason: String| Error::InvalidArgument {
        argument: "max_future".into(),
        reason,
        hint: Some("Say it in days and less: '24 hours'.".into()),
    };
    let given = from_text(text)?;
    let read = as_owner(Planning::ByIndex, |db, _| {
        INTERVAL.with(|plan| {
            plan.first(db, View::Latest, &[Some(given)], |row| {
                Ok((row.int8(0)?, row.boolean(1)?, row.text(2)?.to_owned()))
            })
        })
    });
    match read {
        // What PostgreSQL cannot read as one, or hold.
        Err(Failure::Postgres(error)) if error.sqlstate().starts_with("22") => {
            Err(refused(format!("must be an interval, not {}", shown(text))).into())
        }
        Err(other) => Err(other),
        Ok(Some((microseconds @ 0.., true, printed))) => Ok((microseconds, printed)),
        Ok(_) => Err(refused(format!("must be 0 or more, and without months, not {}", shown(text))).into()),
    }
}

fn must_have_fold(target: Target, category: &str) -> Result<()> {
    match folds::of(target.id, category, None) {
        Err(Failure::Rule(Error::FoldNotFound { .. })) => Err(Error::InvalidArgument {
            argument: "foldable".into(),
            reason: format!("must not be required of category {}, which has no default fold", shown(category)),
            hint: Some(register_hint(category)),
        }
        .into()),
        found => found.map(drop),
    }
}

/// A fold to begin with that takes nothing: one that takes whatever comes would make a rule of it that refuses nothing.
pub fn register_hint(category: &str) -> String {
    let name = quote_literal(category);
    format!(
        "Register one first, with the types of its events under \"on\" (docs/rules.md); as it stands this one takes none: select es_register_fold({name}, {name}, \
         rules => '{{\"on\": {{}}, \"otherwise\": \"error\"}}');"
    )
}
