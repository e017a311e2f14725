//! es_history, es_timeline, es_explain_state, es_simulate: how a state came to be, and what it would be.
use super::append::batch;
use super::asks;
use super::state::{Asked, bound};
use crate::command::ruling;
use crate::log::stream::Stream;
use crate::log::whole;
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned};
use crate::pg::process::session::Planning;
use crate::pg::query::plan::View;
use crate::pg::query::store::Store;
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use crate::shared::settings;
use crate::state::folding::Folding;
use crate::state::history::{self, Range};
use crate::state::moment::Moment;
use crate::state::{explain, simulate, timeline};
use pgrx::pg_sys::Datum;

asks!(Read, "eventstream_history", "text, bigint, bigint, text", history);
asks!(
    Read,
    "eventstream_timeline",
    "text, timestamp with time zone, text, timestamp with time zone, timestamp with time zone",
    timeline
);
asks!(
    Read,
    "eventstream_explain_state",
    "text, timestamp with time zone, timestamp with time zone, text",
    explain_state
);
asks!(Read, "eventstream_simulate", "text, jsonb, text", simulate);

/// Errors: ES002.
fn found(asked: &Asked) -> Result<Stream> {
    as_owner(Planning::ByIndex, |db, catalog| {
        whole::look_up(db, catalog, View::Caller, asked.target().id, &asked.name)?
            .ok_or_else(|| asked.not_found().into())
    })
}

fn history(args: &Args) -> Returned {
    let range = Range { from_version: args.int8(1, "from_version")?, max_count: args.int8_opt(2) };
    range.check()?;
    let asked = Asked::read(args, 0, 3)?;
    let stream = found(&asked)?;
    let store = Store::begin(args)?;
    let mut folding = Folding::new(asked.target(), &asked.fold)?;
    history::of_stream(&mut folding, asked.name.as_str(), stream, range, &mut |entry| {
        store.put(&[
            Some(Datum::from(entry.version)),
            Some(from_text(entry.event_type)?),
            Some(Datum::from(entry.occurred_at)),
            Some(Datum::from(entry.recorded_at)),
            Some(entry.state.view().datum()),
            Some(entry.changes.datum()),
        ])
    })?;
    Ok(None)
}

fn timeline(args: &Args) -> Returned {
    let known_at = args.timestamptz_opt(1).and_then(bound);
    let range = timeline::Range { from: args.timestamptz_opt(3), to: args.timestamptz_opt(4) };
    let asked = Asked::read(args, 0, 2)?;
    let stream = found(&asked)?;
    let store = Store::begin(args)?;
    let mut folding = Folding::new(asked.target(), &asked.fold)?;
    timeline::of_stream(&mut folding, asked.name.as_str(), stream, known_at, range, &mut |period| {
        store.put(&[
            Some(Datum::from(period.from)),
            period.to.map(Datum::from),
            Some(Datum::from(period.version)),
            Some(period.state.view().datum()),
        ])
    })?;
    Ok(None)
}

fn explain_state(args: &Args) -> Returned {
    let moment = Moment {
        as_of: args.timestamptz_opt(1).and_then(bound),
        known_at: args.timestamptz_opt(2).and_then(bound),
        version: None,
    };
    let asked = Asked::read(args, 0, 3)?;
    let stream = found(&asked)?;
    let mut folding = Folding::new(asked.target(), &asked.fold)?;
    Ok(Some(explain::of_stream(&mut folding, asked.name.as_str(), stream, moment)?.datum()))
}

fn simulate(args: &Args) -> Returned {
    let asked = Asked::read(args, 0, 2)?;
    let mut left = settings::max_batch_events();
    let mut events = batch("events", args.jsonb(1, "events")?, &mut left)?;
    // What an append would give them.
    ruling::of(asked.target().id)?.declared.complete(&mut events)?;
    let mut folding = Folding::new(asked.target(), &asked.fold)?;
    simulate::state(&mut folding, &asked.name, &events)?.datum().map(Some)
}
