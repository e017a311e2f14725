//! The state of a query: of the events of a tenant that match it, whatever streams they are in, folded in the order of the log. Behind the locks of the query's tags no other
//! event comes that matches.
use super::condition::following;
use super::deciding::Deciding;
use crate::log::condition;
use crate::log::filter::Filter;
use crate::log::read::each_of_log;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::process::memory::Scratch;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::present::event::StoredEvent;
use crate::present::upcasters;
use crate::shared::session::as_owner;
use crate::state::folding::Folding;
use crate::state::folds;
use eventstream_core::command::condition::{Item, Query};
use eventstream_core::command::decided::Bounded;
use eventstream_core::options::QueryElement;
use eventstream_core::word::Order;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;

/// The most events that a decision is given the state of.
const MOST_EVENTS: usize = 100_000;
/// Events folded at once.
const PAGE: usize = 1_000;

/// A boundary's query.
pub struct Asked {
    query: Query,
    /// As its tags are locked.
    pub kept: condition::Query,
}

/// What it matched.
pub struct Seen {
    pub state: Rc<Stored>,
    pub events: usize,
    pub last_position: i64,
}

impl PartialEq for Asked {
    /// Whatever the order in which it is said.
    fn eq(&self, other: &Self) -> bool {
        let said = |asked: &Self| -> BTreeSet<(Vec<String>, Option<BTreeSet<String>>)> {
            let types = |item: &Item| item.event_types.clone().map(BTreeSet::from_iter);
            asked.query.items.iter().map(|item| (item.tags.clone(), types(item))).collect()
        };
        said(self) == said(other)
    }
}

impl Asked {
    /// What a boundary's `items` say, if there are any. Errors: ES005, named by the place.
    pub fn read(tenant_id: i64, given: &mut Bounded) -> Result<Option<Self>> {
        let Some(items) = given.items.take() else { return Ok(None) };
        let query = Query::read(&QueryElement { items: Some(items), all: None })?;
        if let Some(place) = query.items.iter().position(|item| item.tags.is_empty()) {
            let reason = "must have tags: they are what is kept from others while it is decided";
            return Err(crate::pg::error::failure::invalid(format!("items[{place}]"), reason));
        }
        let kept = following(tenant_id, query.clone())?;
        Ok(Some(Self { query, kept }))
    }

    /// As it was given.
    pub fn items(&self) -> serde_json::Value {
        let item = |item: &Item| match &item.event_types {
            Some(event_types) => json!({"event_types": event_types, "tags": item.tags}),
            None => json!({"tags": item.tags}),
        };
        self.query.items.iter().map(item).collect()
    }

    /// As it is committed by now. Errors: ES010 where the decider has no fold for it, ES037 where it matches too many; those of folding.
    pub fn state(&self, deciding: &Deciding) -> Result<Seen> {
        let target = deciding.target;
        let fold = folds::of_queries(target.id, deciding.decider.fold.as_deref())?;
        let memory = Scratch::new()?;
        let mut found = BTreeMap::new();
        as_owner(Planning::ByIndex, |db, catalog| {
            for item in &self.query.items {
                let filter = Filter { tags: item.tags.clone(), ..Filter::of(None, item.event_types.clone()) };
                let filter = upcasters::following(target.id, filter)?;
                each_of_log(db, catalog, target, (0, i64::MAX - 1), i64::MAX, &filter, &mut |row| {
                    let event = memory.inside(|| StoredEvent::copy_of_composite(row))?;
                    found.entry(event.global_position()).or_insert(event);
                    Ok(if found.len() > MOST_EVENTS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })?;
            }
            Ok(())
        })?;
        if found.len() > MOST_EVENTS {
            let reason = format!("its boundary.items match more than {MOST_EVENTS} events");
            return Err(
                deciding.failed(reason, Some("Name tags that fewer events bear, or streams, whose states are kept."))
            );
        }
        let (events, last_position) = (found.len(), found.keys().next_back().copied().unwrap_or(0));
        let mut in_order: Vec<StoredEvent> = found.into_values().collect();
        if fold.order == Order::OccurredAt {
            in_order.sort_by_key(StoredEvent::occurred_at);
        }
        let mut folding = Folding::new(target, &fold)?;
        let mut state = Rc::clone(&fold.initial_state);
        let mut rest = in_order.into_iter().peekable();
        while rest.peek().is_some() {
            server::check_for_interrupts()?;
            let page = rest.by_ref().take(PAGE).collect();
            state = Rc::new(folding.run_events("of a query", &state, page)?);
        }
        Ok(Seen { state, events, last_position })
    }
}
