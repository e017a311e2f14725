//! Bad input: every argument of every function. Each is refused with its SQLSTATE and a message that names the argument, nothing is
//! written, no position is taken, and the session goes on.
mod access;
mod append;
mod history;
mod privacy;
mod read;

use crate::pg_test::sql::{caught, rows, run, value};

/// A function, and arguments that it takes.
struct Call {
    function: &'static str,
    good: &'static [(&'static str, &'static str)],
}

/// An expression for an argument, the SQLSTATE it is refused with, and what the message must name (all of it, `|` between).
type Bad<'a> = (&'a str, &'a str, &'a str);

impl Call {
    /// The call with one argument replaced, or added.
    fn with(&self, argument: &str, expression: &str) -> String {
        let mut arguments: Vec<String> = self
            .good
            .iter()
            .filter(|(name, _)| *name != argument)
            .map(|(name, good)| format!("{name} => {good}"))
            .collect();
        arguments.push(format!("{argument} => {expression}"));
        format!("select * from {}({})", self.function, arguments.join(", "))
    }
}

/// What no refused call may change.
fn state() -> String {
    rows(
        "select (select count(*) from _eventstream.events), (select count(*) from _eventstream.streams), \
                (select count(*) from _eventstream.stream_segments), (select count(*) from _eventstream.tenants), \
                (select count(*) from _eventstream.grants), (select count(*) from _eventstream.protections), \
                (select count(*) from _eventstream.token_keys), es_last_append(), currval('_eventstream.positions')",
    )
}

/// What is wrong with how a statement was refused.
fn fault(statement: &str, code: &str, named: &str) -> Option<String> {
    let shown: String = statement.chars().take(300).collect();
    let Some(error) = caught(statement) else { return Some(format!("accepted: {shown}")) };
    let message = &error.message;
    let fault = if error.code != code {
        format!("{} instead of {code}", error.code)
    } else if let Some(missing) = named.split('|').find(|name| !message.contains(name)) {
        format!("the message does not name {missing}")
    } else if message.len() > 1000 || message.chars().any(char::is_control) {
        format!("the message has {} bytes, or control characters", message.len())
    } else if !serde_json::from_str(&error.detail).is_ok_and(|detail: serde_json::Value| detail.is_object()) {
        format!("DETAIL is no JSON object: {}", error.detail)
    } else {
        return None;
    };
    let message: String = message.chars().take(300).collect();
    Some(format!("{fault}\n    {shown}\n    {}: {message}", error.code))
}

/// Every statement is refused as it says, changes nothing, and the session goes on.
fn refuses(statements: &[(String, &str, &str)]) {
    run("select es_append('kept-1', 'Kept', '{}')");
    let before = state();
    let mut faults: Vec<String> = Vec::new();
    for (statement, code, named) in statements {
        faults.extend(fault(statement, code, named));
        let after = state();
        if after != before {
            faults.push(format!("{before} became {after}: {statement}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} are not refused as they should be:\n{}",
        faults.len(),
        statements.len(),
        faults.join("\n")
    );
    assert_eq!(value("select es_append('kept-1', 'Kept', '{}')"), "2");
}

fn argument_refuses(call: &Call, argument: &str, bad: &[Bad<'static>]) {
    let statements: Vec<_> =
        bad.iter().map(|(expression, code, named)| (call.with(argument, expression), *code, *named)).collect();
    refuses(&statements);
}

/// Names of more than 1 MiB are refused as any argument is, before they are looked at.
const BAD_STREAM_NAMES: &[Bad<'static>] = &[
    ("null", "ES005", "stream|must not be NULL"),
    ("''", "ES004", "stream name|must not be empty"),
    ("'account'", "ES004", "stream name|account"),
    ("'-'", "ES004", "stream name"),
    ("'-1'", "ES004", "stream name|category"),
    ("'account-'", "ES004", "stream name|id"),
    ("' account-1'", "ES004", "stream name|blank"),
    ("'account-1 '", "ES004", "stream name|blank"),
    ("E'account-1\\u00a0'", "ES004", "stream name|blank"),
    ("E'account-\\n1'", "ES004", "stream name|control|U+000A"),
    ("E'\\taccount-1'", "ES004", "stream name|control"),
    ("E'account-\\u007f'", "ES004", "stream name|control|U+007F"),
    ("E'account-\\u0085'", "ES004", "stream name|control|U+0085"),
    ("'a-' || repeat('x', 511)", "ES004", "stream name|512|513"),
    ("'a-' || repeat('é', 256)", "ES004", "stream name|512|514"),
    ("'a-' || repeat('x', 1000000)", "ES004", "stream name|512|1000002"),
    ("'a-' || repeat('x', 10000000)", "ES005", "stream must|must be shorter|10000002"),
];
