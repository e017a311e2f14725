//! The horizon: the position up to which no open transaction can still commit anything (ARCHITECTURE.md, "Horizon", has the
//! proof). Promises: whoever reads up to it, under a snapshot taken after it, never misses an event.
use crate::pg::catalog::{self, Catalog};
use crate::pg::failure::Result;
use crate::pg::{sequence, server, slots};
use eventstream_core::error::Error;
use std::time::Duration;

/// How long to wait for a transaction between its stores.
const SLOT_PAUSE: Duration = Duration::from_micros(50);

/// Where the log stands.
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

/// Errors: ES009 on a standby, ES008 without preload.
pub fn must_be_known(call: &'static std::ffi::CStr) -> Result<()> {
    server::must_be_primary(call)?;
    if !slots::are_there() {
        return Err(Error::PreloadRequired { what: call.to_string_lossy().into_owned() }.into());
    }
    Ok(())
}

/// Never steps back. The order of steps is what makes it safe: the last position, then the slots, then the invalidation messages (a partition
/// attached meanwhile), then the caller's snapshot.
pub fn horizon(catalog: &Catalog) -> Result<Horizon> {
    let last_position = last_position(catalog)?;
    let held = smallest(|held| held.position)?;
    catalog::refresh()?;
    Ok(Horizon { last_position, position: held.map_or(last_position, |held| last_position.min(held - 1)) })
}

/// The horizon where it is known; else (without preload, on a standby) the last position handed out, behind which open transactions may
/// still commit: for looks at the log that nothing but a number depends on.
pub fn end_of_log(catalog: &Catalog) -> Result<i64> {
    if slots::are_there() && !server::is_standby() { Ok(horizon(catalog)?.position) } else { last_position(catalog) }
}

/// The smallest bound of the slots; one that is about to be stored is waited for.
fn smallest(bound: impl Fn(slots::Held) -> Option<i64>) -> Result<Option<i64>> {
    loop {
        match slots::scan().map(&bound).min() {
            // None sorts first.
            Some(None) => server::pause(SLOT_PAUSE)?,
            Some(smallest) => return Ok(smallest),
            None => return Ok(None),
        }
    }
}

/// The moment (microseconds since 2000-01-01 UTC) up to which every known_at is final. Raises the database-wide floor first,
/// so that whoever reads the floor later records above it; whoever read it before is found in the slots. Never goes back. In a read-only
/// transaction the floor stays where it is, and the answer is an older moment.
pub fn settled_until(catalog: &Catalog) -> Result<i64> {
    let (mut floor, _) = sequence::last(catalog.recorded_floor)?;
    let now = server::clock();
    if now > floor && !server::is_read_only_transaction() {
        sequence::set_durably(catalog.recorded_floor, now)?;
        floor = now;
    }
    // Whoever is about to store a bound reads a floor that is no lower than ours.
    Ok(smallest(|held| held.recorded_at)?.map_or(floor, |held| floor.min(held)) - 1)
}
