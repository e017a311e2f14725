//! PostgreSQL's time zones: when a day ends in one.
use crate::pg::error::failure::{Result, catch};
use eventstream_core::zone::Zone;
use pgrx::pg_sys;
use std::ffi::{CString, c_int, c_long};

const DAY: i64 = pg_sys::SECS_PER_DAY as i64;
/// Seconds between the epochs of Unix and PostgreSQL.
const EPOCH: i64 = (pg_sys::POSTGRES_EPOCH_JDATE as i64 - pg_sys::UNIX_EPOCH_JDATE as i64) * DAY;

/// The first instant whose local date is `day` (days since 2000-01-01) or later, in microseconds since 2000-01-01 UTC; None where there is no such
/// zone. Where the clock goes back over midnight that date begins twice: the first time counts. Where it goes forward over midnight, or over
/// the whole day, it is the instant of the change.
pub fn first_instant(day: i64, zone: Zone) -> Result<Option<i64>> {
    let midnight = day * DAY;
    let seconds = match zone {
        Zone::Offset(east) => Some(midnight - i64::from(east)),
        Zone::Name(name) => {
            let Ok(name) = CString::new(name) else { return Ok(None) };
            if name.as_bytes().len() > pg_sys::TZ_STRLEN_MAX as usize {
                return Ok(None);
            }
            // SAFETY: reads the zone's file, once a backend; the zone stays. Raises where memory or files give out.
            catch(|| unsafe {
                let zone = pg_sys::pg_tzset(name.as_ptr());
                (!zone.is_null() && pg_sys::pg_tz_acceptable(zone)).then(|| reaches(zone, midnight + EPOCH) - EPOCH)
            })?
        }
    };
    Ok(seconds.map(|seconds| seconds * 1_000_000))
}

/// When the zone's clocks first show `local` seconds since 1970 or more.
///
/// # Safety
/// A zone of pg_tzset.
unsafe fn reaches(zone: *mut pg_sys::pg_tz, local: i64) -> i64 {
    // No clock is as far as two days from UTC.
    let mut from = local - 2 * DAY;
    loop {
        let (mut offset, mut later, mut change): (c_long, c_long, pg_sys::pg_time_t) = (0, 0, 0);
        let (mut is_summer, mut is_later_summer): (c_int, c_int) = (0, 0);
        // SAFETY: fills its results from the zone's table.
        let found = unsafe {
            pg_sys::pg_next_dst_boundary(
                &from,
                &mut offset,
                &mut is_summer,
                &mut change,
                &mut later,
                &mut is_later_summer,
                zone,
            )
        };
        // From `from` on, until the change, clocks are so far ahead.
        let reached = (local - offset).max(from);
        if found != 1 || reached < change {
            return reached;
        }
        from = change;
    }
}
