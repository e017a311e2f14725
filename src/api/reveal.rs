//! es_reveal.
use super::{asks_outside_of_tests, reference, target};
use crate::access::authorize;
use crate::command::reveal;
use crate::log::read::{Filter, StreamRange};
use crate::pg::function::{Args, Returned};
use crate::pg::query::pages;
use eventstream_core::name::StreamName;
use eventstream_core::privilege::Privilege;

asks_outside_of_tests!("es_reveal", Reveal, "eventstream_reveal", "text, text, bigint, bigint", reveal_stream);

fn reveal_stream(args: &Args) -> Returned {
    reveal::refuse_to_others()?;
    // Rights are asked once a page.
    if let Some(row) = pages::at_hand(args) {
        return Ok(Some(row));
    }
    let name = StreamName::parse_own(args.text(0, "stream")?)?;
    let reason = reference(args, 1)?;
    let range = StreamRange {
        from_version: Some(args.int8(2, "from_version")?),
        max_count: args.int8_opt(3),
        backward: false,
        until: None,
        to_version: None,
        filter: Filter::of(None, None),
    };
    range.check()?;
    let access = authorize(Privilege::Reveal, name.category())?;
    authorize(Privilege::Read, name.category())?;
    reveal::reveal(target(&access), &name, reason, &range, args)
}
