//! How an answer came about, for a person who looks at a balance that seems wrong: which events count and which do not, from where
//! folding started, and what was folded.
use super::answer;
use super::folding::Folding;
use super::folds::{Fold, How};
use super::kept::Answer;
use super::moment::Moment;
use crate::log::scan::{Late, Opened};
use crate::log::statements::column;
use crate::log::stream::Stream;
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Jsonb;
use crate::pg::jsonb::parts::{ObjectBuilder, Part};
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::plan::View;
use crate::pg::query::row::Row;
use crate::shared::session::as_owner;
use eventstream_core::word::Order;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::time::Duration;

/// So many events of a kind are listed; the others are counted.
const MOST_LISTED: usize = 20;
/// So many events are looked at to find the first ones that occurred later.
const MOST_LOOKED_AT: i64 = 1000;

/// The explanation of the stream's state at a moment, in the current memory context.
pub fn of_stream<'made>(folding: &mut Folding, name: &str, stream: Stream, moment: Moment) -> Result<Jsonb<'made>> {
    let answer = answer::of_stream(folding, name, stream, moment, View::Caller)?;
    let left_out = as_owner(Planning::ByIndex, |db, catalog| {
        let opened = Opened::open(db, catalog, stream, View::Caller)?;
        left_out(db, &opened, &answer)
    })?;
    let selection = &answer.selection;
    let is_behind = |late: &Late| late.version > selection.prefix;
    let behind = answer.lates.iter().filter(|late| is_behind(late)).count() as i64;
    let by_time = folding.fold.order == Order::OccurredAt;
    let explanation = json!({
        "stream": name,
        "stream_version": answer.head_version,
        "fold": described(folding.fold),
        "asked": {"as_of": moment.as_of.map(time).transpose()?, "known_at": moment.known_at.map(time).transpose()?},
        "version": answer.version,
        "counted": {
            "events": selection.prefix + behind,
            "all_up_to_version": selection.prefix,
            "late_ones_behind": listed(&answer.lates, is_behind)?,
        },
        "left_out": left_out,
        "started_from": {"from": answer.from.as_str(), "version": answer.from_version},
        "folded": {"events": answer.folded, "late_ones_put_in_place": listed(&answer.lates, |_| by_time)?, "upcast": upcast(folding)},
        "snapshot_problems": answer.snapshot_problems,
        "milliseconds": {"to_look_up": milliseconds(answer.looked_up_in), "to_fold": milliseconds(answer.folded_in)},
    });
    let explanation = Jsonb::parse(&explanation.to_string())?;
    // The state is put in as it is: it is never parsed again.
    let mut object = ObjectBuilder::begin()?;
    object.put_all(explanation)?;
    object.put("state", Part::all_of(answer.state.view())?)?;
    object.finish()
}

fn described(fold: &Fold) -> Value {
    let (kind, handler) = match &fold.how {
        How::Rules(_) => ("rules", None),
        How::Handler(handler) => ("handler", handler.as_ref().ok().map(|handler| handler.name.as_str())),
    };
    json!({
        "name": fold.name,
        "kind": kind,
        "handler": handler,
        "order": fold.order.as_str(),
        "fingerprint": fold.fingerprint.map(|byte| format!("{byte:02x}")).concat(),
    })
}

/// A moment as JSON has it; the ends of time by name.
fn time(moment: i64) -> Result<String> {
    match moment {
        i64::MIN => Ok("-infinity".into()),
        i64::MAX => Ok("infinity".into()),
        moment => server::print_time_utc(moment),
    }
}

/// With three digits, as microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Late events: how many, and the first ones by version.
fn listed(lates: &[Late], are_meant: impl Fn(&Late) -> bool) -> Result<Value> {
    // They come in the order of versions.
    let meant = || lates.iter().filter(|late| are_meant(late));
    let first = meant()
        .take(MOST_LISTED)
        .map(|late| Ok(json!({"version": late.version, "occurred_at": time(late.occurred_at)?})))
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({"count": meant().count(), "first": first}))
}

/// The steps of upcasters that were made.
fn upcast(folding: &Folding) -> Vec<Value> {
    folding
        .door()
        .made()
        .map(|(event_type, from, step, times)| {
            json!({"event_type": event_type, "from_schema_version": from, "to_event_type": step.to_event_type,
                   "handler": step.name, "events": times})
        })
        .collect()
}

/// The events that do not count, and why: they occurred later than asked, or were recorded later.
fn left_out(db: &Db, opened: &Opened, answer: &Answer) -> Result<Value> {
    let selection = &answer.selection;
    let (prefix, newest) = (selection.prefix, selection.newest);
    let late = answer.lates.iter().filter(|late| late.version > prefix).count() as i64;
    let occurred_later = first(db, opened, prefix + 1, newest.min(prefix + MOST_LOOKED_AT), |occurred_at| {
        occurred_at > selection.as_of
    })?;
    let recorded_later = first(db, opened, newest + 1, opened.head.version, |_| true)?;
    Ok(json!({
        "occurred_later": {"count": newest - prefix - late, "first": occurred_later},
        "recorded_later": {"count": opened.head.version - newest, "first": recorded_later},
    }))
}

/// The first of the versions `from..=to` that occurred at moments which are `wanted`.
fn first(db: &Db, opened: &Opened, from: i64, to: i64, wanted: impl Fn(i64) -> bool) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    if from > to {
        return Ok(found);
    }
    opened.versions(db, from, to, |row: &Row| {
        let occurred_at = row.int8(column::OCCURRED_AT)?;
        if wanted(occurred_at) {
            found.push(json!({
                "version": row.int8(column::VERSION)?,
                "event_type": row.text(column::EVENT_TYPE)?,
                "occurred_at": time(occurred_at)?,
                "recorded_at": time(row.int8(column::RECORDED_AT)?)?,
            }));
        }
        Ok(if found.len() < MOST_LISTED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}
