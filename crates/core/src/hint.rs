//! HINTs that go with errors of other people's code, too: a handler's, an upcaster's, PostgreSQL's.
use crate::quote::quote_literal;

/// What to do about an event that a fold cannot take, whoever says so: rules, or a handler that raises an error of its own.
#[must_use]
pub fn fold_hint(stream: &str, version: i64) -> String {
    format!(
        "Look at the event: select * from es_read({}, from_version => {version}, max_count => 1). Ways out: \
         an upcaster that mends such events as they are read (es_register_upcaster), or a fold that takes them, registered \
         again (rules with a default, or a handler). es_category_state(…, on_error => 'report') shows all streams of a \
         category that fail.",
        quote_literal(stream)
    )
}

/// The same of an upcaster.
#[must_use]
pub fn upcast_hint(stream: &str, version: i64) -> String {
    format!(
        "The event as it is stored: select * from es_read({}, from_version => {version}, max_count => 1, raw => true); \
         correct the function, or register another with es_register_upcaster().",
        quote_literal(stream)
    )
}

/// What to do about states that do not fit a view's columns.
pub const MISFIT_HINT: &str = "The function beside the view (its name with _at) tells them all, in the column problem: on_error => 'report'. Ways out: \
     an event that sets the value right, an upcaster that mends such events as they are read (es_register_upcaster), or a view whose column takes \
     it (text, jsonb).";

/// What to do about a state table that its projection cannot write.
#[must_use]
pub fn table_hint(projection: &str) -> String {
    format!(
        "Make the table again as es_create_state_table() made it (name, owner, columns with their types, primary key), or drop the projection and create \
         the state table anew: select es_drop_projection({}); until then, appends of its category fail where it is inline.",
        quote_literal(projection)
    )
}

/// What to do about an example that a schema refuses, whosever it is: nothing of what was declared is there to be looked at.
pub(crate) const EXAMPLE_HINT: &str =
    "Nothing of this call was kept: mend the example, the schema, or the upcaster between them, and call again.";

/// Where the rule stands that a payload breaks.
#[must_use]
pub(crate) fn schema_hint(event_type: &str, schema_version: i32) -> String {
    format!(
        "The schema: select json_schema from eventstream.event_types where event_type = {} and schema_version = {schema_version};",
        quote_literal(event_type)
    )
}
