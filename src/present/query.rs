//! Pages of the log by criteria (es_query): the rows that src/log/sought.rs finds, some at a time, each shown by the door, and judged by what it says then.
//!
//! Promises: what the door does not show cannot be found by what it says; memory stays at one portion of events, however many are looked at.
use super::door::{Aside, Door};
use super::event::Event;
use super::upcasters;
use crate::log::condition::Query;
use crate::log::event::moment_of;
use crate::log::filter::Filter;
use crate::log::sought::{self, Range, Seeking, Sought, Span, Walk};
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::{Jsonb, Value};
use crate::pg::process::memory::Scratch;
use crate::pg::query::probe::Direction;
use crate::pg::query::store::Store;
use crate::pg::value::composite::RowType;
use crate::pg::value::datum::from_text;
use crate::shared::catalog::Catalog;
use eventstream_core::options::{CriteriaElement, SpanElement};
use eventstream_core::query::criteria::{CORRELATION, Criteria, correlation_tag};
use eventstream_core::query::page::Sealer;
use eventstream_core::query::payload::{self, Comparison};

/// The most bytes of criteria, as they are printed.
const MOST_BYTES: u64 = 65_536;
/// The most events that one call may ask for, and pass over.
const MOST: i64 = 100_000;
const MOST_SKIPPED: i64 = 1_000_000;
/// So many events are read, at most, before they are shown.
const MANY: usize = 512;

/// Criteria that were read.
pub struct Asked<'a> {
    /// What is asked for, whatever is said beside it that changes nothing.
    pub meaning: Vec<u8>,
    criteria: Criteria,
    occurred: Span,
    recorded: Span,
    behind: Behind<'a>,
}

/// What is judged behind the door.
struct Behind<'a> {
    correlation_id: Option<String>,
    metadata: Option<Jsonb<'a>>,
    payload: Vec<Comparison>,
}

/// Which part of the answer.
pub struct Window {
    pub after: Option<i64>,
    pub max_count: i64,
    pub skip: i64,
}

impl Window {
    /// Errors: ES005.
    pub fn check(&self) -> Result<()> {
        if !(1..=MOST).contains(&self.max_count) {
            return Err(invalid("max_count", format!("must be 1 to {MOST}, not {}", self.max_count)));
        }
        if !(0..=MOST_SKIPPED).contains(&self.skip) {
            return Err(invalid("skip", format!("must be 0 to {MOST_SKIPPED}, not {}", self.skip)));
        }
        Ok(())
    }
}

/// Members that count by what they mean, and are sealed so (`is_backward`, `times`).
const MEANT: [&str; 3] = ["order", "occurred", "recorded"];

/// The members as PostgreSQL prints them, but for those that are null, which are as if they were not there.
fn meaning(given: Jsonb) -> Result<Vec<u8>> {
    let mut meaning = Vec::new();
    given.each(|key, value| {
        if !matches!(value, Value::Null) && !MEANT.contains(&key) {
            for part in [key.as_bytes(), value.document()?.text()?] {
                meaning.extend_from_slice(part);
                meaning.push(0);
            }
        }
        Ok(())
    })?;
    Ok(meaning)
}

impl<'a> Asked<'a> {
    /// Errors: ES004, ES005.
    pub fn read(given: Jsonb<'a>) -> Result<Self> {
        Self::read_within(given).map_err(|failure: Failure| failure.within(|| "criteria".into()))
    }

    fn read_within(given: Jsonb<'a>) -> Result<Self> {
        if !given.is_object() {
            return Err(invalid("", "must be a JSON object"));
        }
        let measure = given.measure(MOST_BYTES)?;
        if measure.bytes > MOST_BYTES {
            return Err(invalid("", format!("must have at most {MOST_BYTES} bytes as text")));
        }
        let element: CriteriaElement<Jsonb> = Value::Object(given).read()?;
        let criteria = Criteria::read(&element)?;
        let metadata = element.metadata;
        if metadata.is_some_and(|metadata| !metadata.is_object()) {
            return Err(invalid("metadata", "must be an object"));
        }
        let payload = match element.payload {
            Some(payload) => payload::read(&payload.value()?).map_err(|error| error.within("payload"))?,
            None => Vec::new(),
        };
        Ok(Self {
            meaning: meaning(given)?,
            occurred: span("occurred", element.occurred.as_ref())?,
            recorded: span("recorded", element.recorded.as_ref())?,
            behind: Behind { correlation_id: criteria.correlation_id.clone(), metadata, payload },
            criteria,
        })
    }

    pub fn categories(&self) -> Option<Vec<String>> {
        self.criteria.categories.clone()
    }

    pub fn is_backward(&self) -> bool {
        self.criteria.is_backward
    }

    /// What their times mean.
    pub fn times(&self) -> [i64; 4] {
        [self.occurred.0, self.occurred.1, self.recorded.0, self.recorded.1]
    }

    /// Puts the events of the window into `into`, each with its page. `categories`: those of the criteria, narrowed to what the caller may read.
    pub fn answer(
        self,
        target: Target,
        categories: Option<Vec<String>>,
        window: &Window,
        sealer: &Sealer,
        into: &Store,
    ) -> Result<()> {
        let Self { criteria, occurred, recorded, behind, .. } = self;
        let upcasters = upcasters::of(target.id)?;
        let mut tags = criteria.tags;
        tags.extend(criteria.correlation_id.as_deref().and_then(correlation_tag));
        let following = |filter| upcasters::following(target.id, filter);
        let sought = Sought {
            categories,
            streams: criteria.streams,
            stream_prefix: criteria.stream_prefix,
            subjects: criteria.subjects,
            types: following(Filter::of(None, criteria.event_types))?,
            tags,
            items: criteria.items.map(|items| Query::new(items, following)).transpose()?,
            occurred,
            recorded,
            direction: if criteria.is_backward { Direction::Backward } else { Direction::Forward },
        };
        let range = sought::range(target, window.after, sought.direction)?;
        let mut answer =
            Answer { behind, door: Door::new(&upcasters)?, sealer, into, left: window.max_count, skip: window.skip };
        answer.fill(target, &sought, range)
    }
}

/// An answer while it is given.
struct Answer<'a> {
    behind: Behind<'a>,
    door: Door<'a>,
    sealer: &'a Sealer,
    into: &'a Store,
    left: i64,
    skip: i64,
}

impl Answer<'_> {
    fn fill(&mut self, target: Target, sought: &Sought, range: Range) -> Result<()> {
        let row_type = RowType::look_up(Catalog::current()?.event_type)?;
        let (memory, of_each) = (Scratch::new()?, Scratch::new()?);
        let judges = self.behind.judges();
        let Some(seeking) = Seeking::new(target, sought, range)? else { return Ok(()) };
        let mut walk = Walk::of(&seeking);
        let mut portion = 1;
        while self.left > 0 && !walk.is_over() {
            // What is judged here is counted here, and may be refused: more are read each time, where these were not enough.
            let (wanted, least) = if judges { (self.left + self.skip, portion) } else { (self.left, 1) };
            let most = usize::try_from(wanted).unwrap_or(MANY).clamp(least, MANY);
            let mut skipped_there = if judges { 0 } else { self.skip };
            memory.step(|| {
                let found = Aside::read(|into| walk.read(most, &mut skipped_there, into))?;
                if !judges {
                    self.skip = skipped_there;
                }
                found.take(|stored| {
                    // What comes after the last one that is wanted is none of the caller's: an upcaster that fails there fails nobody.
                    if self.left == 0 {
                        return Ok(());
                    }
                    of_each.step(|| {
                        let event = self.door.show(stored)?;
                        self.offer(&event, &row_type)
                    })
                })
            })?;
            portion = (portion * 2).min(MANY);
        }
        Ok(())
    }

    /// The next event, as it may be seen.
    fn offer(&mut self, event: &Event, row_type: &RowType) -> Result<()> {
        if !self.behind.lets_through(event)? {
            return Ok(());
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        self.left -= 1;
        let page = self.sealer.page(event.global_position());
        self.into.put(&[Some(from_text(&page)?), Some(event.record(row_type).flat()?)])
    }
}

impl Behind<'_> {
    fn judges(&self) -> bool {
        self.correlation_id.is_some() || self.metadata.is_some() || !self.payload.is_empty()
    }

    fn lets_through(&self, event: &Event) -> Result<bool> {
        if self.correlation_id.is_some() || self.metadata.is_some() {
            let Some(metadata) = event.metadata()? else { return Ok(false) };
            if let Some(wanted) = &self.correlation_id
                && metadata.member_text(CORRELATION)? != Some(wanted)
            {
                return Ok(false);
            }
            if let Some(part) = self.metadata
                && !metadata.contains(part)?
            {
                return Ok(false);
            }
        }
        if self.payload.is_empty() {
            return Ok(true);
        }
        let Some(payload) = event.payload()? else { return Ok(false) };
        for comparison in &self.payload {
            if !comparison.holds(payload.at(comparison.pointer())?.as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn span(key: &str, given: Option<&SpanElement>) -> Result<Span> {
    let Some(SpanElement { from, until, before }) = given else { return Ok(Span::EVER) };
    let moment = |name: &str, text: &Option<&str>| {
        text.map(|text| moment_of(name, text)).transpose().map_err(|failure| failure.within(|| key.to_owned()))
    };
    let (from, until, before) = (moment("from", from)?, moment("until", until)?, moment("before", before)?);
    let last = match (until, before) {
        (Some(_), Some(_)) => return Err(invalid(key, "must have until or before, not both")),
        (None, None) if from.is_none() => return Err(invalid(key, "must have from, until or before")),
        (until, before) => until.or(before.map(|before| before.saturating_sub(1))),
    };
    Ok(Span(from.unwrap_or(i64::MIN), last.unwrap_or(i64::MAX)))
}
