//! es_day_end, es_set_as_of: when a day ends where the books are kept.
use super::warn_if_alone;
use crate::pg::error::failure::Result;
use crate::pg::error::failure::invalid;
use crate::pg::function::call;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::{process::server, value::zone};
use eventstream_core::error::Error;
use eventstream_core::zone::{RULE, Zone};
use eventstream_core::{quote_literal, shown};
use pgrx::pg_sys::Datum;

sql_function!("eventstream_day_end", "date, text", day_end);
sql_function!("eventstream_set_as_of", "date, text", set_as_of);

/// Days since 2000-01-01 up to which a day ends at a timestamptz, and the first one.
const FIRST_DAY: i64 = -2_451_544;
const LAST_DAY: i64 = 106_751_981;

fn day_end(args: &Args) -> Returned {
    let (Some(day), Some(time_zone)) = (args.date_opt(0), args.text_opt(1)?) else { return Ok(None) };
    end(day, time_zone).map(|end| Some(Datum::from(end)))
}

fn set_as_of(args: &Args) -> Returned {
    call::refuse_in_user_code()?;
    let end = end(args.date(0, "day")?, args.text(1, "time_zone")?)?;
    let text = match end {
        i64::MIN => "-infinity".to_owned(),
        i64::MAX => "infinity".to_owned(),
        end => server::print_time_utc(end)?,
    };
    server::set_locally(c"eventstream.as_of", &text)?;
    let hint = format!("For the whole session: set eventstream.as_of = {};", quote_literal(&text));
    warn_if_alone(args, "es_set_as_of", hint)?;
    Ok(Some(Datum::from(end)))
}

/// The instant before the next date's first, in microseconds since 2000-01-01 UTC. Errors: ES005.
fn end(day: i32, time_zone: &str) -> Result<i64> {
    let unknown = || {
        Error::InvalidArgument {
        argument: "time_zone".into(),
        reason: format!("{RULE}, not {}", shown(time_zone)),
        hint: Some(
            "select name from pg_timezone_names order by 1; shows the names. An offset has two digits for the hours, and lies to the east \
             where it begins with +."
                .into(),
        ),
    }
    };
    let zone = Zone::parse(time_zone).ok_or_else(unknown)?;
    if day == i32::MIN || day == i32::MAX {
        return Ok(if day < 0 { i64::MIN } else { i64::MAX });
    }
    let day = i64::from(day);
    if !(FIRST_DAY..=LAST_DAY).contains(&day) {
        return Err(invalid("day", "must be a day of the years 4713 BC to 294276"));
    }
    let first = zone::first_instant(day + 1, zone)?.ok_or_else(unknown)?;
    Ok(first - 1)
}
