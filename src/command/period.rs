//! Closing periods, and opening them again. Who does either has the tenant's gate alone: no append is under way, and the next one is judged by what was done.
//!
//! ```text
//! rights and arguments ─▶ until when is the log of these categories recorded? (most of it while others append) ─▶ the tenant's gate, alone
//!   ─▶ the rest of it ─▶ known_at: what was recorded up to it is all there was ─▶ floor of recorded_at above it, durably ─▶ rows ─▶ act, at the commit
//! ```
//! Promises: from the commit on, and until it is reopened, nothing that says it occurred at or before closed_until commits. The known_at that closing gave is
//! exact for ever: nothing of the tenant is recorded at or before it any more, whatever the clock does, and all of these categories was, but for what a
//! clock that ran ahead by more than a minute has recorded, which is said. A repetition is answered as the first time.
use crate::log::places::{self, Of};
use crate::log::target::Target;
use crate::log::{acting, gate, horizon};
use crate::pg::error::failure::Result;
use crate::pg::error::report;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text};
use crate::shared::catalog::{Catalog, announce_period_change};
use crate::shared::open_appends;
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::error::Error;
use eventstream_core::shown;
use pgrx::pg_sys::{BOOLOID, Datum, INT8OID, TEXTOID, TIMESTAMPTZOID};

/// What es_close_period and es_reopen_period are given, checked. Moments in microseconds since 2000-01-01 UTC.
pub struct Asked<'a> {
    /// Each once.
    pub categories: Vec<String>,
    pub tag: Option<&'a str>,
    pub reason: &'a str,
}

/// How far ahead of the clock something may be recorded that the known_at of a closing still takes in: until then, everything is recorded at that moment (µs).
const AHEAD: i64 = 60_000_000;

columns! {
    mod of, selected;
    PERIOD_ID = "period_id",
    CLOSED_UNTIL = "closed_until",
    KNOWN_AT = "known_at",
    IS_WHOLE = "is_whole",
    REASON = "reason",
}

thread_local! {
    // The one that is closed furthest first. Two plans: no index knows IS NOT DISTINCT FROM.
    static CLOSED: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.periods \
                 where tenant_id = $1 and category = $2 and tag is null and reopened_at is null order by closed_until desc"),
        &[INT8OID, TEXTOID],
    ) };
    static CLOSED_FOR_TAG: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.periods \
                 where tenant_id = $1 and category = $2 and tag = $3 and reopened_at is null order by closed_until desc"),
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    // Whatever was closed once needs no second look.
    static LOOKED_AT: Plan = const { Plan::new(
        "select closed_position from _eventstream.periods where tenant_id = $1 and category = $2 and is_whole order by closed_position desc limit 1",
        &[INT8OID, TEXTOID],
    ) };
    static CLOSE: Plan = const { Plan::new(
        "insert into _eventstream.periods (tenant_id, period_id, category, tag, closed_until, known_at, is_whole, closed_position, reason, closed_by) \
         values ($1, nextval('_eventstream.period_ids'), $2, $3, $4, $5, $6, $7, $8, $9)",
        &[INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID, INT8OID, TEXTOID, TEXTOID],
    ) };
    static REOPEN: Plan = const { Plan::new(
        "update _eventstream.periods set reopened_at = clock_timestamp(), reopened_by = $3, reopen_reason = $4, reopened_position = $5 where tenant_id = $1 and period_id = $2",
        &[INT8OID, INT8OID, TEXTOID, TEXTOID, INT8OID],
    ) };
}

/// A closing that stands.
#[derive(Debug, Clone, Copy)]
struct Closing {
    period_id: i64,
    closed_until: i64,
    known_at: i64,
    is_whole: bool,
    /// The last position before.
    closed_position: i64,
    /// Whether it was closed for the reason that is given.
    is_of_reason: bool,
}

/// Those of a category that stand, the furthest first.
fn standing(db: &Db, target: Target, category: &str, asked: &Asked) -> Result<Vec<Closing>> {
    let (tenant, category) = (Some(Datum::from(target.id)), Some(from_text(category)?));
    let closing = |row: &Row| {
        Ok(Closing {
            period_id: row.int8(of::PERIOD_ID)?,
            closed_until: row.int8(of::CLOSED_UNTIL)?,
            known_at: row.int8(of::KNOWN_AT)?,
            is_whole: row.boolean(of::IS_WHOLE)?,
            closed_position: 0,
            is_of_reason: row.text(of::REASON)? == asked.reason,
        })
    };
    match asked.tag {
        None => CLOSED.with(|plan| plan.rows(db, View::Latest, 0, &[tenant, category], closing)),
        Some(tag) => {
            let key = [tenant, category, Some(from_text(tag)?)];
            CLOSED_FOR_TAG.with(|plan| plan.rows(db, View::Latest, 0, &key, closing))
        }
    }
}

/// Closes; the known_at at which all that it takes in is known. Errors: ES005, 55P03.
pub fn close(target: Target, asked: &Asked, closed_until: i64) -> Result<i64> {
    server::must_be_writable(c"es_close_period")?;
    acting::refuse("es_close_period")?;
    must_have_passed(closed_until)?;
    if let Some(known_at) = was_closed(target, asked, closed_until)? {
        return Ok(known_at);
    }
    let mut recorded = Recorded::default();
    if open_appends::are_there() {
        // Most of it while others still append.
        let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled(catalog, target.id))?;
        recorded.look(target, asked, settled)?;
    }
    gate::close(target)?;
    if let Some(known_at) = was_closed(target, asked, closed_until)? {
        return Ok(known_at);
    }
    let last = as_owner(Planning::ByIndex, |_, catalog| horizon::last_position(catalog))?;
    recorded.look(target, asked, last)?;
    let (known_at, is_all) = as_owner(Planning::ByIndex, |_, catalog| known_at(catalog, &recorded))?;
    let closed_by = acting::recorded_by()?;
    as_owner(Planning::ByIndex, |db, catalog| {
        for category in &asked.categories {
            let standing = standing(db, target, category, asked)?;
            if standing.iter().all(|closing| closing.closed_until < closed_until) {
                let closing = Closing {
                    period_id: 0,
                    closed_until,
                    known_at,
                    is_whole: is_all,
                    closed_position: last,
                    is_of_reason: true,
                };
                write_down(db, target, category, asked, &closing, &closed_by)?;
            }
        }
        announce_period_change(catalog)
    })?;
    Ok(known_at)
}

fn must_have_passed(closed_until: i64) -> Result<()> {
    let now = trial::clock();
    if closed_until <= now {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: "closed_until".into(),
        reason: format!(
            "must have passed: {} is ahead of the clock, which says {}",
            server::print_time_utc(closed_until)?,
            server::print_time_utc(now)?
        ),
        hint: Some("A period is closed when it is over: close up to its last moment, for example es_day_end('2024-12-31', 'Europe/Vienna').".into()),
    }
    .into())
}

/// Where all of it is closed up to that very moment already: the known_at of then. Errors: ES005 where some of it is closed further.
fn was_closed(target: Target, asked: &Asked, closed_until: i64) -> Result<Option<i64>> {
    let furthest = as_owner(Planning::ByIndex, |db, _| {
        asked
            .categories
            .iter()
            .map(|category| Ok(standing(db, target, category, asked)?.into_iter().next()))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut known_at = None;
    for (category, furthest) in asked.categories.iter().zip(&furthest) {
        let Some(closing) = furthest else { continue };
        if closing.closed_until > closed_until {
            return Err(Error::InvalidArgument {
                argument: "closed_until".into(),
                reason: format!(
                    "must not be before what is closed: category {} is closed until {}",
                    shown(category),
                    server::print_time_utc(closing.closed_until)?
                ),
                hint: Some("What is closed is opened by es_reopen_period, which says what stays closed.".into()),
            }
            .into());
        }
        if closing.closed_until == closed_until {
            known_at = known_at.max(Some(closing.known_at));
        }
    }
    let is_all = furthest.iter().all(|closing| closing.is_some_and(|closing| closing.closed_until == closed_until));
    if is_all {
        let is_of_reason = furthest.iter().flatten().all(|closing| closing.is_of_reason);
        let reason = if is_of_reason { "" } else { ": its reason stays, and the one that is given now is not kept" };
        report::notice(&format!(
            "closed until {} already, as it was asked for{reason}",
            server::print_time_utc(closed_until)?
        ))?;
    }
    Ok(known_at.filter(|_| is_all))
}

/// When the events of the categories that are closed were recorded, as far as that was looked at.
#[derive(Default)]
struct Recorded {
    /// Up to which position, category by category.
    looked_at: Vec<i64>,
    /// The latest moment, and the position of its event.
    last: Option<(i64, i64)>,
}

impl Recorded {
    fn look(&mut self, target: Target, asked: &Asked, to: i64) -> Result<()> {
        as_owner(Planning::ByIndex, |db, catalog| {
            if self.looked_at.is_empty() {
                self.looked_at =
                    asked.categories.iter().map(|category| looked_at(db, target, category)).collect::<Result<_>>()?;
            }
            for (category, looked_at) in asked.categories.iter().zip(&mut self.looked_at) {
                let of = Of { tenant_id: target.id, category };
                let last = places::recorded_last(db, catalog, of, (*looked_at, to))?;
                self.last = self.last.max(last);
                *looked_at = to.max(*looked_at);
            }
            Ok(())
        })
    }
}

/// The floor of recorded_at has been above all that a closing before has taken in.
fn looked_at(db: &Db, target: Target, category: &str) -> Result<i64> {
    let key = [Some(Datum::from(target.id)), Some(from_text(category)?)];
    Ok(LOOKED_AT.with(|plan| plan.first(db, View::Latest, &key, |row| Ok(row.int8_opt(0))))?.flatten().unwrap_or(0))
}

/// The moment up to which all is recorded, after which everything else will be; whether that is true of all.
fn known_at(catalog: &Catalog, recorded: &Recorded) -> Result<(i64, bool)> {
    let from = horizon::recorded_from(catalog)?;
    let (mut known_at, mut is_all) = (from, true);
    match recorded.last {
        Some((last, position)) if last > from.saturating_add(AHEAD) => {
            is_all = false;
            report::warning_with(
                &format!(
                    "the event at global position {position} was recorded at {}, ahead of the clock, which says {}: what is known at the known_at of this closing leaves it out",
                    server::print_time_utc(last)?,
                    server::print_time_utc(trial::clock())?
                ),
                &format!("A clock went back. The event: select * from es_read_all({}, 1);", position - 1),
            )?;
        }
        Some((last, _)) => known_at = known_at.max(last),
        None => (),
    }
    horizon::record_after(catalog, known_at)?;
    Ok((known_at, is_all))
}

fn write_down(
    db: &Db,
    target: Target,
    category: &str,
    asked: &Asked,
    closing: &Closing,
    closed_by: &str,
) -> Result<()> {
    let row: [Nullable; 9] = [
        Some(Datum::from(target.id)),
        Some(from_text(category)?),
        asked.tag.map(from_text).transpose()?,
        Some(Datum::from(closing.closed_until)),
        Some(Datum::from(closing.known_at)),
        Some(Datum::from(closing.is_whole)),
        Some(Datum::from(closing.closed_position)),
        Some(from_text(asked.reason)?),
        Some(from_text(closed_by)?),
    ];
    CLOSE.with(|plan| plan.write(db, &row)).map(drop)
}

/// Opens what is closed after `stays` (None: all of it); how many closings that took back. Errors: ES005 where there is none of a category, 55P03.
pub fn reopen(target: Target, asked: &Asked, stays: Option<i64>) -> Result<i64> {
    server::must_be_writable(c"es_reopen_period")?;
    acting::refuse("es_reopen_period")?;
    gate::close(target)?;
    let by = acting::recorded_by()?;
    as_owner(Planning::ByIndex, |db, catalog| {
        let (mut taken_back, last) = (0, horizon::last_position(catalog)?);
        for category in &asked.categories {
            taken_back += reopen_one(db, target, category, asked, (stays, last), &by)?;
        }
        announce_period_change(catalog)?;
        Ok(taken_back)
    })
}

/// `last`: the last position that was handed out.
fn reopen_one(
    db: &Db,
    target: Target,
    category: &str,
    asked: &Asked,
    (stays, last): (Option<i64>, i64),
    by: &str,
) -> Result<i64> {
    let all = standing(db, target, category, asked)?;
    let (later, earlier): (Vec<Closing>, Vec<Closing>) =
        all.into_iter().partition(|closing| stays.is_none_or(|stays| closing.closed_until > stays));
    let Some(nearest) = later.last().copied() else {
        return Err(nothing_to_open(category, asked.tag, stays, earlier.first())?.into());
    };
    for closing in &later {
        let row = [
            Some(Datum::from(target.id)),
            Some(Datum::from(closing.period_id)),
            Some(from_text(by)?),
            Some(from_text(asked.reason)?),
            Some(Datum::from(last)),
        ];
        REOPEN.with(|plan| plan.write(db, &row))?;
    }
    // What was closed with more stays closed by itself, known as it was then.
    if let Some(closed_until) =
        stays.filter(|&stays| earlier.first().is_none_or(|closing| closing.closed_until < stays))
    {
        write_down(db, target, category, asked, &Closing { closed_until, closed_position: last, ..nearest }, by)?;
    }
    Ok(later.len() as i64)
}

fn nothing_to_open(category: &str, tag: Option<&str>, stays: Option<i64>, furthest: Option<&Closing>) -> Result<Error> {
    let after =
        stays.map(server::print_time_utc).transpose()?.map(|stays| format!(" after {stays}")).unwrap_or_default();
    let what = tag.map(|tag| format!(" for events with the tag {}", shown(tag))).unwrap_or_default();
    let (is, furthest) = match furthest {
        Some(closing) => ("is", format!(" only until {}", server::print_time_utc(closing.closed_until)?)),
        None => ("is not", String::new()),
    };
    Ok(Error::InvalidArgument {
        argument: "categories".into(),
        reason: format!("must be closed{after}: category {} {is} closed{what}{furthest}", shown(category)),
        hint: Some(
            "What is closed: select category, tag, closed_until from eventstream.periods where reopened_at is null;"
                .into(),
        ),
    })
}
