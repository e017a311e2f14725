//! es_close_period, es_reopen_period.
use super::{asks, reference, target};
use crate::access::{authorize_all, authorize_tenant, notice_of_new_categories};
use crate::command::period::{self, Asked};
use crate::pg::error::failure::{Result, invalid};
use crate::pg::function::{Args, Returned};
use eventstream_core::command::tags::check_tag;
use eventstream_core::name::Category;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks!(Manage, "eventstream_close_period", "text[], timestamp with time zone, text, text", close);
asks!(Admin, "eventstream_reopen_period", "text[], timestamp with time zone, text, text", reopen);

/// The most categories of one call.
const MOST: usize = 1000;

fn close(args: &Args) -> Returned {
    let asked = asked(args)?;
    let closed_until = finite(args.timestamptz(1, "closed_until")?)?;
    let access = authorize_all(Privilege::Manage, Some(&asked.categories))?;
    notice_of_new_categories(
        access.tenant_id,
        Some(&asked.categories),
        "is it spelt right? What is appended to it is judged from its first event on",
    )?;
    Ok(Some(Datum::from(period::close(target(&access), &asked, closed_until)?)))
}

fn reopen(args: &Args) -> Returned {
    let asked = asked(args)?;
    let stays = args.timestamptz_opt(1).map(finite).transpose()?;
    let (access, _) = authorize_tenant(None, Privilege::Admin)?;
    Ok(Some(Datum::from(period::reopen(target(&access), &asked, stays)?)))
}

fn asked<'a>(args: &Args<'a>) -> Result<Asked<'a>> {
    let mut categories = args.text_array_opt(0, "categories")?.unwrap_or_default();
    if categories.is_empty() {
        return Err(invalid("categories", "must name at least one category"));
    }
    if categories.len() > MOST {
        return Err(invalid("categories", format!("must name at most {MOST} categories, not {}", categories.len())));
    }
    for category in &categories {
        Category::parse("categories", category)?;
    }
    categories.sort_unstable();
    categories.dedup();
    let reason = reference(args, 2)?;
    let tag = args.text_opt(3)?.map(|tag| check_tag("tag", tag)).transpose()?;
    Ok(Asked { categories, tag, reason })
}

fn finite(moment: i64) -> Result<i64> {
    // DT_NOBEGIN and DT_NOEND of datatype/timestamp.h.
    if moment == i64::MIN || moment == i64::MAX {
        return Err(invalid("closed_until", "must be finite"));
    }
    Ok(moment)
}
