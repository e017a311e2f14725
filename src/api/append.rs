//! es_append, es_append_events, es_append_streams, es_close_stream, es_last_append, es_new_event_id.
use super::{asks, reason, target};
use crate::access::{authorize, authorize_tenant, tenant_id_of_token};
use crate::command::condition::Given;
use crate::command::write::{write, write_under};
use crate::log::acting;
use crate::log::event::{NewEvent, Parts, checked_reason};
use crate::log::fresh_id::new_event_id;
use crate::log::last_append::{self, LastAppend};
use crate::log::locks::MOST_NAMES;
use crate::log::request::Request;
use crate::pg::error::failure::invalid;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::function::call;
use crate::pg::function::{Args, Returned, sql_function};
use crate::pg::jsonb::{Jsonb, Shape, Value};
use crate::pg::query::store::{Store, composite};
use crate::pg::value::datum::{from_text, from_uuid, int8_array_of, uuid_array_of};
use crate::shared::settings;
use eventstream_core::error::Error;
use eventstream_core::expected::ExpectedVersion;
use eventstream_core::name::StreamName;
use eventstream_core::options::StreamElement;
use eventstream_core::privilege::Privilege;
use pgrx::pg_sys::Datum;

asks!(
    Append,
    "eventstream_append",
    "text, text, jsonb, bigint, jsonb, uuid, timestamp with time zone, integer, text, boolean, text[]",
    append_one
);
asks!(Append, "eventstream_append_events", "text, jsonb, bigint, boolean", append_events);
asks!(Append, "eventstream_append_streams", "jsonb, boolean, jsonb", append_streams);
asks!(Append, "eventstream_close_stream", "text, text", close_stream);
sql_function!("eventstream_last_append", "", last);
sql_function!("eventstream_new_event_id", "", new_id);

fn append_one(args: &Args) -> Returned {
    let stream = StreamName::parse_own(args.text(0, "stream")?)?;
    let expected = ExpectedVersion::parse(args.int8_opt(3))?;
    let access = authorize(Privilege::Append, stream.category())?;
    let tags = args.text_array_opt(10, "tags")?.unwrap_or_default();
    let parts = Parts {
        event_type: args.text(1, "event_type")?,
        payload: args.jsonb(2, "payload")?,
        metadata: Some(args.jsonb(4, "metadata")?),
        event_id: args.uuid_opt(5),
        occurred_at: args.timestamptz_opt(6),
        schema_version: args.int4_opt(7),
        subject: args.text_opt(8)?,
        tags: tags.iter().map(String::as_str).collect(),
    };
    let must_exist = args.boolean(9, "must_exist")?;
    let event = NewEvent::check(parts, "event_type")?;
    let request = Request { stream, expected, events: vec![event], must_exist, held: None };
    first(write(target(&access), &mut [request])?)
}

fn append_events(args: &Args) -> Returned {
    let stream = StreamName::parse_own(args.text(0, "stream")?)?;
    let expected = ExpectedVersion::parse(args.int8_opt(2))?;
    let access = authorize(Privilege::Append, stream.category())?;
    let mut left = settings::max_batch_events();
    let events = batch("events", args.jsonb(1, "events")?, &mut left)?;
    let must_exist = args.boolean(3, "must_exist")?;
    first(write(target(&access), &mut [Request { stream, expected, events, must_exist, held: None }])?)
}

fn append_streams(args: &Args) -> Returned {
    let mut requests: Vec<Request> = Vec::new();
    let limit = settings::max_batch_events();
    let mut left = limit;
    let mut tenant = None;
    let must_exist = args.boolean(1, "must_exist")?;
    let appends = args.jsonb(0, "appends")?;
    // Before anything of it is copied.
    authorize_tenant(None, Privilege::Append)?;
    let count = count("appends", appends)?;
    if count > limit {
        return Err(too_many(limit, count, format!("appends has {count} elements")));
    }
    let appends = elements(appends)?;
    for (place, element) in appends.into_iter().enumerate() {
        let request = stream_request(element, must_exist, &mut left)
            .map_err(|failure| failure.within(|| format!("appends[{place}]")))?;
        if requests.iter().any(|other| other.stream == request.stream) {
            let reason = format!("must name a stream once, not twice: \"{}\"", request.stream.as_str());
            return Err(invalid(format!("appends[{place}].stream"), reason));
        }
        tenant = Some(authorize(Privilege::Append, request.stream.category())?);
        requests.push(request);
    }
    let Some(access) = tenant else {
        return Err(invalid("appends", "must have at least one element"));
    };
    let absent = requests.iter().filter(|request| request.forbids()).count();
    if absent > MOST_NAMES {
        let reason =
            format!("must not check the absence of more than {MOST_NAMES} streams, and checks that of {absent}");
        return Err(invalid("appends", reason));
    }
    let condition = args.jsonb_opt(2)?.map(Given::read).transpose()?;
    let store = Store::begin(args)?;
    for appended in write_under(condition, target(&access), &mut requests)? {
        let positions = int8_array_of(&appended.positions)?;
        store.put(&[Some(from_text(&appended.stream)?), Some(Datum::from(appended.version)), Some(positions)])?;
    }
    Ok(None)
}

fn close_stream(args: &Args) -> Returned {
    let stream = StreamName::parse_own(args.text(0, "stream")?)?;
    let reason =
        checked_reason(reason(args, 1, "Say why it is closed: it is the payload of the stream's last event.")?)?;
    let access = authorize(Privilege::Append, stream.category())?;
    let payload = Jsonb::parse(&serde_json::json!({ "reason": reason }).to_string())?;
    let events = vec![NewEvent::closing(payload)?];
    first(write(
        target(&access),
        &mut [Request { stream, expected: ExpectedVersion::Any, events, must_exist: true, held: None }],
    )?)
}

fn last(args: &Args) -> Returned {
    call::refuse_in_user_code()?;
    // A handler is told of its own appends alone.
    let tenant_id = if acting::current().is_some() { None } else { tenant_id_of_token()? };
    let row = match last_append::get(tenant_id) {
        None => [None; 6],
        Some(last) => [
            Some(from_text(&last.stream)?),
            Some(Datum::from(last.version)),
            Some(Datum::from(last.global_position())),
            Some(int8_array_of(&last.positions)?),
            Some(uuid_array_of(&last.event_ids)?),
            Some(Datum::from(last.replayed)),
        ],
    };
    composite(args, &row).map(Some)
}

fn new_id(_: &Args) -> Returned {
    call::refuse_in_user_code()?;
    from_uuid(&new_event_id()?).map(Some)
}

fn first(appended: Vec<LastAppend>) -> Returned {
    Ok(appended.first().map(|appended| Datum::from(appended.version)))
}

/// How many elements a JSON array has.
fn count(argument: &str, array: Jsonb) -> Result<i64> {
    if array.shape() != Shape::Array {
        return Err(invalid(argument, "must be a JSON array"));
    }
    Ok(array.len() as i64)
}

/// The elements of a JSON array, of which there are not too many.
fn elements<'a>(array: Jsonb<'a>) -> Result<Vec<Value<'a>>> {
    let mut elements = Vec::with_capacity(array.len());
    array.each(|_, value| {
        elements.push(value);
        Ok(())
    })?;
    Ok(elements)
}

fn too_many(limit: i64, actual: i64, what: String) -> Failure {
    Error::LimitExceeded { setting: "eventstream.max_batch_events", limit, actual: Some(actual), what }.into()
}

/// A batch: at least one event, and no more than `left`, which it takes from.
pub fn batch<'a>(argument: &str, array: Jsonb<'a>, left: &mut i64) -> Result<Vec<NewEvent<'a>>> {
    let count = count(argument, array)?;
    if count == 0 {
        return Err(invalid(argument, "must have at least one element"));
    }
    if count > *left {
        let limit = settings::max_batch_events();
        let so_far = limit - *left + count;
        let what = if so_far == count {
            format!("{argument} has {count} elements")
        } else {
            format!("{argument} brings the call to {so_far} events")
        };
        return Err(too_many(limit, so_far, what));
    }
    *left -= count;
    elements(array)?
        .into_iter()
        .enumerate()
        .map(|(place, element)| {
            NewEvent::from_element(element).map_err(|failure| failure.within(|| format!("{argument}[{place}]")))
        })
        .collect()
}

/// An element of es_append_streams.
fn stream_request<'a>(element: Value<'a>, must_exist: bool, left: &mut i64) -> Result<Request<'a>> {
    let given: StreamElement<Jsonb> = element.read()?;
    let stream = StreamName::parse_own(given.stream)?;
    let expected = ExpectedVersion::parse(given.expected_version)?;
    let events = given.events;
    let is_check = count("events", events)? == 0;
    if is_check && expected == ExpectedVersion::Any {
        return Err(Error::InvalidArgument {
            argument: "events".into(),
            reason: "must have at least one element where there is no expected_version".into(),
            hint: Some(
                "An element without events checks that its stream is at expected_version (0: has no events yet), \
                 and keeps it there until the end of the transaction."
                    .into(),
            ),
        }
        .into());
    }
    let events = if is_check { Vec::new() } else { batch("events", events, left)? };
    Ok(Request { stream, expected, events, must_exist, held: None })
}
