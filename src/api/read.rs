//! es_read and its kin, the horizon, and the small functions around ids and names.
use super::{asks, target};
use crate::access::{Access, authorize_reading, authorize_reading_log, authorize_tenant};
use crate::log::horizon;
use crate::log::identity::log_info;
use crate::log::read::{self, Filter, LogRange, StreamRange};
use crate::log::stored::StoredRows;
use crate::pg::error::failure::Result;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::process::session::Planning;
use crate::pg::query::pages;
use crate::pg::query::store::{Store, composite};
use crate::pg::value::datum::{from_text, from_uuid};
use crate::present::door::Door;
use crate::present::upcasters;
use crate::shared::open_appends::Whose;
use crate::shared::session::as_owner;
use crate::state::snapshot;
use eventstream_core::event_id::{from_ulid_text, to_ulid_text};
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;
use std::rc::Rc;

asks!(
    Read,
    "eventstream_read",
    "text, bigint, bigint, boolean, timestamp with time zone, boolean, bigint, text[]",
    read_stream
);
asks!(Read, "eventstream_read_all", "bigint, bigint, text[], text[], bigint, uuid, integer, text[]", read_all);
asks!(Read, "eventstream_read_backward", "bigint, bigint, text[], text[], text[]", read_backward);
asks!(Read, "eventstream_read_subject", "text, bigint, bigint", read_subject);
asks!(Read, "eventstream_event", "uuid", event);
asks!(Read, "eventstream_stream_version", "text", stream_version);
asks!(Read, "eventstream_stream", "text", stream);
asks!(Read, "eventstream_horizon", "", the_horizon);
asks!(Read, "eventstream_settled_until", "", settled_until);
asks!(Read, "eventstream_log_info", "", info);
sql_function!("eventstream_ulid", "uuid", ulid);
sql_function!("eventstream_ulid_to_uuid", "text", ulid_to_uuid);
sql_function!("eventstream_stream_name", "text, text", stream_name);

fn read_stream(args: &Args) -> Returned {
    // Rights are asked once a page.
    if let Some(row) = pages::at_hand(args) {
        return Ok(Some(row));
    }
    let name = StreamName::parse(args.text(0, "stream")?)?;
    let mut range = StreamRange {
        from_version: args.int8_opt(1),
        max_count: args.int8_opt(2),
        backward: args.boolean(3, "backward")?,
        until: args.timestamptz_opt(4),
        to_version: args.int8_opt(6),
        filter: Filter::of(None, args.text_array_opt(7, "event_types")?),
    };
    let is_raw = args.boolean(5, "raw")?;
    range.check()?;
    let access = authorize_reading(name.category())?;
    let upcasters = upcasters::of(access.tenant_id)?;
    let mut door = if is_raw { Door::raw(&upcasters) } else { Door::new(&upcasters)? };
    if !is_raw {
        range.filter = upcasters::following(access.tenant_id, range.filter)?;
    }
    if pages::has_begun(args) || pages::are_wanted(args) {
        return door.next_of_stream(target(&access), &name, &range, args);
    }
    door.fill(&Store::begin(args)?, |into| read::read_stream(target(&access), &name, &range, into))?;
    Ok(None)
}

/// Returns the events that `read` finds, as the tenant's readers may see them.
fn shown(args: &Args, tenant_id: i64, read: impl FnOnce(&StoredRows) -> Result<()>) -> Returned {
    let store = Store::begin(args)?;
    Door::new(&*upcasters::of(tenant_id)?)?.fill(&store, read)?;
    Ok(None)
}

/// The tenant to read, and the arguments 2 and 3 and that with the tags, narrowed to what may be read there.
fn filtered(args: &Args, tags: usize) -> Result<(Rc<Access>, Filter)> {
    let categories = args.text_array_opt(2, "categories")?;
    let event_types = args.text_array_opt(3, "event_types")?;
    let mut filter = Filter::of(categories, event_types).bearing(args.text_array_opt(tags, "tags")?.as_deref())?;
    filter.check_to_read()?;
    let (access, categories) = authorize_reading_log(filter.categories)?;
    filter.categories = categories;
    let filter = upcasters::following(access.tenant_id, filter)?;
    Ok((access, filter))
}

fn read_all(args: &Args) -> Returned {
    let after_position = args.int8(0, "after_position")?;
    let max_count = args.int8(1, "max_count")?;
    let (access, filter) = filtered(args, 7)?;
    let range = LogRange {
        after_position,
        up_to: args.int8_opt(4),
        max_count,
        known_log: args.uuid_opt(5),
        known_timeline: args.int4_opt(6),
    };
    shown(args, access.tenant_id, |into| read::read_all(target(&access), &range, &filter, into))
}

fn read_backward(args: &Args) -> Returned {
    let max_count = args.int8(1, "max_count")?;
    let (access, filter) = filtered(args, 4)?;
    shown(args, access.tenant_id, |into| {
        read::read_backward(target(&access), args.int8_opt(0), max_count, &filter, into)
    })
}

fn read_subject(args: &Args) -> Returned {
    let subject = args.text(0, "subject")?;
    let after_position = args.int8(1, "after_position")?;
    let max_count = args.int8(2, "max_count")?;
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    let categories = scope.narrow(None);
    shown(args, access.tenant_id, |into| {
        read::read_subject(target(&access), subject, after_position, max_count, categories.as_deref(), into)
    })
}

fn event(args: &Args) -> Returned {
    let id = args.uuid(0, "event_id")?;
    let (access, scope) = authorize_tenant(None, Privilege::Read)?;
    let categories = scope.narrow(None);
    shown(args, access.tenant_id, |into| read::read_event(target(&access), &id, categories.as_deref(), into))
}

fn stream_version(args: &Args) -> Returned {
    let name = StreamName::parse(args.text(0, "stream")?)?;
    let access = authorize_reading(name.category())?;
    let version = read::stream_version(target(&access), &name)?;
    Ok(Some(Datum::from(version)))
}

fn stream(args: &Args) -> Returned {
    let name = StreamName::parse(args.text(0, "stream")?)?;
    let access = authorize_reading(name.category())?;
    let info = read::stream_info(target(&access), &name)?;
    let row = [
        Some(from_text(name.as_str())?),
        Some(Datum::from(info.version)),
        Some(Datum::from(info.first_position)),
        Some(Datum::from(info.last_position)),
        Some(Datum::from(info.first_occurred_at)),
        Some(Datum::from(info.last_occurred_at)),
        Some(Datum::from(info.first_recorded_at)),
        Some(Datum::from(info.last_recorded_at)),
        Some(Datum::from(info.events)),
        Some(Datum::from(info.bytes)),
        Some(Datum::from(snapshot::count(info.id)?)),
        Some(Datum::from(info.closed)),
    ];
    composite(args, &row).map(Some)
}

fn the_horizon(_: &Args) -> Returned {
    horizon::must_be_known(c"es_horizon")?;
    let (access, _) = authorize_tenant(None, Privilege::Read)?;
    let whose = Whose::Tenant(access.tenant_id);
    let horizon = as_owner(Planning::ByIndex, |_, catalog| horizon::horizon(catalog, whose))?;
    Ok(Some(Datum::from(horizon.position)))
}

fn settled_until(_: &Args) -> Returned {
    horizon::must_be_known(c"es_settled_until")?;
    let (access, _) = authorize_tenant(None, Privilege::Read)?;
    let whose = Whose::Tenant(access.tenant_id);
    let settled = as_owner(Planning::ByIndex, |_, catalog| horizon::settled_until(catalog, whose))?;
    Ok(Some(Datum::from(settled)))
}

fn info(args: &Args) -> Returned {
    let (access, _) = authorize_tenant(None, Privilege::Read)?;
    let info = log_info(access.tenant_id)?;
    let row = [
        Some(from_uuid(&info.log_id)?),
        Some(Datum::from(info.system_identifier)),
        Some(Datum::from(info.timeline)),
        Some(Datum::from(info.last_position)),
        info.horizon.map(Datum::from),
        info.settled_until.map(Datum::from),
        Some(from_uuid(&info.tenant_uuid)?),
        Some(Datum::from(info.incarnation)),
    ];
    composite(args, &row).map(Some)
}

fn ulid(args: &Args) -> Returned {
    from_text(&to_ulid_text(args.uuid(0, "id")?)).map(Some)
}

fn ulid_to_uuid(args: &Args) -> Returned {
    from_uuid(&from_ulid_text(args.text(0, "ulid")?)?).map(Some)
}

fn stream_name(args: &Args) -> Returned {
    from_text(&StreamName::join(args.text(0, "category")?, args.text(1, "id")?)?).map(Some)
}
