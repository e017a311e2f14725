//! The horizon of a tenant: the position up to which no open transaction can still commit anything of it (docs/internals/horizon.md has the
//! proof). Promises: whoever reads up to it, under a snapshot taken after it, never misses an event.
use crate::pg::error::failure::Result;
use crate::pg::invalidation;
use crate::pg::process::{sequence, server};
use crate::shared::catalog::Catalog;
use crate::shared::open_appends::{self, Whose};
use crate::shared::trial;
use eventstream_core::audit::is_of_acts;
use eventstream_core::error::Error;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long to wait for a transaction between its stores.
const BOUND_PAUSE: Duration = Duration::from_micros(50);

/// Where the log stands for somebody.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    /// The last position handed out.
    pub last_position: i64,
    /// Everything at or below it is settled.
    pub position: i64,
}

/// The last position handed out, durable: it never falls back, not even after a crash.
pub fn last_position(catalog: &Catalog) -> Result<i64> {
    let (last, lsn) = sequence::last(catalog.positions)?;
    if !server::is_standby() {
        sequence::flush(lsn)?;
    }
    Ok(last)
}

/// A position that was stored elsewhere, and is behind the end of the log, is another log's, or one's that was set back. Errors: ES025.
pub fn must_be_reached(catalog: &Catalog, argument: &str, position: i64) -> Result<()> {
    let last_position = last_position(catalog)?;
    if position > last_position {
        return Err(Error::PositionAhead { argument: argument.into(), position, last_position }.into());
    }
    Ok(())
}

/// Errors: ES009 on a standby, ES008 without preload.
pub fn must_be_known(call: &'static std::ffi::CStr) -> Result<()> {
    server::must_be_primary(call)?;
    if !open_appends::are_there() {
        return Err(Error::PreloadRequired { what: call.to_string_lossy().into_owned() }.into());
    }
    Ok(())
}

/// Never steps back. The order of steps is what makes it safe: the last position, then the entries, then the invalidation messages (a partition
/// attached meanwhile), then the caller's snapshot.
pub fn horizon(catalog: &Catalog, whose: Whose) -> Result<Horizon> {
    let last_position = last_position(catalog)?;
    if trial::is_on() {
        // All of its log is its own, and there to be read.
        return Ok(Horizon { last_position, position: last_position });
    }
    let held = smallest(whose, |held| held.position)?;
    invalidation::take_in()?;
    Ok(Horizon { last_position, position: held.map_or(last_position, |held| last_position.min(held - 1)) })
}

/// As [`horizon`]: up to where all of the tenant is settled.
pub fn settled(catalog: &Catalog, tenant_id: i64) -> Result<i64> {
    Ok(horizon(catalog, Whose::Tenant(tenant_id))?.position)
}

/// The horizons of all tenants at one moment.
#[derive(Debug, Clone, Default)]
pub struct Horizons {
    pub last_position: i64,
    /// Of the tenants that are not among `held`.
    others: i64,
    /// Of tenants to which open transactions have appended.
    held: Vec<(i64, i64)>,
}

impl Horizons {
    pub fn of(&self, tenant_id: i64) -> i64 {
        let bounds = self.held.iter().filter(|(of, _)| *of == tenant_id).map(|&(_, horizon)| horizon);
        bounds.fold(self.others, i64::min)
    }

    /// The log's: that of the tenant that is held back most.
    pub fn lowest(&self) -> i64 {
        self.held.iter().map(|&(_, horizon)| horizon).fold(self.others, i64::min)
    }

    /// That of the tenant that is held back least, where there are `tenants`; acts of administration hold back nobody.
    pub fn highest(&self, tenants: usize) -> i64 {
        let held: BTreeSet<i64> = self.held.iter().map(|&(of, _)| of).filter(|&of| !is_of_acts(of)).collect();
        if held.len() < tenants {
            return self.others;
        }
        held.iter().map(|&tenant_id| self.of(tenant_id)).max().unwrap_or(self.others)
    }

    /// Whether, among `tenants`, there may be one that is settled further than it was `before`.
    pub fn have_moved(&self, before: &Horizons, tenants: usize) -> bool {
        let has_moved = |&(tenant_id, _): &(i64, i64)| self.of(tenant_id) > before.of(tenant_id);
        self.highest(tenants) > before.highest(tenants) || before.held.iter().any(has_moved)
    }

    /// Whether an open transaction holds back somebody.
    pub fn is_held(&self) -> bool {
        self.lowest() < self.last_position
    }
}

/// As [`horizon`], for all tenants.
pub fn horizons(catalog: &Catalog) -> Result<Horizons> {
    let last_position = last_position(catalog)?;
    let held = loop {
        let found: Option<Vec<_>> =
            open_appends::scan(Whose::Log).map(|held| Some((held.tenant_id, held.position? - 1))).collect();
        match found {
            Some(found) => break found,
            None => server::pause(BOUND_PAUSE)?,
        }
    };
    invalidation::take_in()?;
    let mut horizons = Horizons { last_position, others: last_position, held: Vec::new() };
    for (tenant_id, horizon) in held {
        match tenant_id {
            Some(tenant_id) => horizons.held.push((tenant_id, horizon)),
            None => horizons.others = horizons.others.min(horizon),
        }
    }
    Ok(horizons)
}

/// The horizon where it is known; else (without preload, on a standby) the last position handed out, behind which open transactions may
/// still commit: for looks at the log that nothing but a number depends on.
pub fn end_of_log(catalog: &Catalog) -> Result<Horizons> {
    if open_appends::are_there() && !server::is_standby() {
        return horizons(catalog);
    }
    let last_position = last_position(catalog)?;
    Ok(Horizons { last_position, others: last_position, held: Vec::new() })
}

/// The smallest bound of the entries; one that is about to be stored is waited for.
fn smallest(whose: Whose, bound: impl Fn(open_appends::Held) -> Option<i64>) -> Result<Option<i64>> {
    loop {
        match open_appends::scan(whose).map(&bound).min() {
            // None sorts first.
            Some(None) => server::pause(BOUND_PAUSE)?,
            Some(smallest) => return Ok(smallest),
            None => return Ok(None),
        }
    }
}

/// The moment (microseconds since 2000-01-01 UTC) up to which every known_at of a tenant is final. Raises the database-wide floor first,
/// so that whoever reads the floor later records above it; whoever read it before is found in the entries. Never goes back. In a read-only
/// transaction the floor stays where it is, and the answer is an older moment.
pub fn settled_until(catalog: &Catalog, whose: Whose) -> Result<i64> {
    if trial::is_on() {
        return Ok(trial::clock() - 1);
    }
    let (mut floor, _) = sequence::last(catalog.recorded_floor)?;
    let now = server::clock();
    if now > floor && !server::is_read_only_transaction() {
        sequence::set_durably(catalog.recorded_floor, now)?;
        floor = now;
    }
    // Whoever is about to store a bound reads a floor that is no lower than ours.
    Ok(smallest(whose, |held| held.recorded_at)?.map_or(floor, |held| floor.min(held)) - 1)
}

/// Nothing that is recorded from now on is recorded before this moment (microseconds since 2000-01-01 UTC).
pub fn recorded_from(catalog: &Catalog) -> Result<i64> {
    if trial::is_on() {
        return Ok(trial::clock());
    }
    let (floor, _) = sequence::last(catalog.recorded_floor)?;
    Ok(floor.max(server::clock()))
}

/// Has everything of all tenants that is recorded from now on be recorded after that moment, whatever the clock says; at once, and whatever becomes of this
/// transaction.
pub fn record_after(catalog: &Catalog, moment: i64) -> Result<()> {
    if trial::is_on() {
        return Ok(());
    }
    let (floor, _) = sequence::last(catalog.recorded_floor)?;
    if floor > moment { Ok(()) } else { sequence::set_durably(catalog.recorded_floor, moment.saturating_add(1)) }
}
