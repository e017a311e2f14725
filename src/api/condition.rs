//! es_condition.
use super::asks;
use crate::command::condition::take;
use crate::pg::function::{Args, Returned};
use crate::pg::jsonb::Jsonb;

asks!(Append, "eventstream_condition", "jsonb", condition);

fn condition(args: &Args) -> Returned {
    let query = args.jsonb(0, "query")?;
    let taken = take(query)?;
    let mut made = serde_json::json!({
        "after": taken.after,
        "seen": { "count": taken.seen.count(), "digest": taken.seen.sum() },
        "log": {
            "id": taken.place.log_id,
            "tenant": taken.place.tenant,
            "timeline": taken.place.timeline,
            "place": taken.place.place,
        },
    })
    .to_string();
    // The query as it was given: which of an item's tags is written first says what is locked.
    let query = String::from_utf8_lossy(query.text()?);
    made.truncate(made.len() - 1);
    Ok(Some(Jsonb::parse(&format!("{made}, \"query\": {query}}}"))?.datum()))
}
