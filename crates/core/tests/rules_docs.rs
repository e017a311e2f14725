//! docs/rules.md does what it says: each example is folded, and its state or its error compared to the letter.

mod fold_rules;

use eventstream_core::json::Value;
use eventstream_core::rules::Rules;
use fold_rules::{Event, LIMITS, folded_within, value};

#[derive(Default)]
struct Example {
    line: usize,
    rules: String,
    initial: Option<String>,
    events: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// The blocks of the document, as examples: each begins with its rules.
fn examples() -> Vec<Example> {
    let path = format!("{}/../../docs/rules.md", env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((line, text)) = lines.next() {
        let Some(info) = text.strip_prefix("```") else { continue };
        let body: Vec<_> = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        let (body, line) = (body.join("\n"), line + 1);
        if info == "json rules" {
            examples.push(Example { line, rules: body, ..Example::default() });
            continue;
        }
        let example = examples.last_mut().unwrap_or_else(|| panic!("rules.md:{line}: a block before the first rules"));
        let place = match info {
            "json initial" => &mut example.initial,
            "json events" => &mut example.events,
            "json state" => &mut example.state,
            "text error" => &mut example.error,
            other => panic!("rules.md:{line}: unknown kind of block: {other:?}"),
        };
        assert!(place.replace(body).is_none(), "rules.md:{line}: a second block {info:?} of an example");
    }
    examples
}

fn outcome(example: &Example) -> Result<String, String> {
    let rules = Rules::parse(&example.rules).map_err(|error| error.to_string())?;
    let Some(events) = &example.events else { panic!("rules.md:{}: an example without events", example.line) };
    let Value::Array(events) = value(events) else { panic!("rules.md:{}: events must be an array", example.line) };
    let events: Vec<_> = events.into_iter().map(Event).collect();
    folded_within(&rules, example.initial.as_deref().unwrap_or("{}"), &events, &LIMITS)
}

#[test]
fn each_example_of_the_reference_does_what_the_reference_says() {
    let mut wrong = Vec::new();
    for example in examples() {
        let expected = match (&example.state, &example.error) {
            (Some(state), None) => Ok(state.clone()),
            (None, Some(error)) => Err(error.clone()),
            _ => panic!("rules.md:{}: an example has either a state or an error", example.line),
        };
        let found = outcome(&example);
        if found != expected {
            wrong.push(format!("rules.md:{}: the reference says {expected:?},\nand the fold {found:?}", example.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What an example shows: `operation NAME`, `condition NAME`, `source KIND`.
fn shown_by(rules: &Value, shown: &mut Vec<String>) {
    let Value::Object(document) = rules else { panic!("{rules:?}") };
    let Some(Value::Object(types)) = document.get("on") else { panic!("{rules:?}") };
    shown.extend(document.get("otherwise").map(|otherwise| format!("otherwise {}", otherwise.to_text())));
    for operation in types.values().flat_map(|operations| match operations {
        Value::Array(operations) => operations.as_slice(),
        other => panic!("{other:?}"),
    }) {
        let Value::Object(members) = operation else { panic!("{operation:?}") };
        for (name, argument) in members {
            let Value::Object(argument) = argument else {
                shown.push(format!("operation {name}"));
                continue;
            };
            for (key, source) in argument {
                if name != "when" {
                    shown.push(format!("operation {name}"));
                    source_shown_by(source, shown);
                    continue;
                }
                source_shown_by(&Value::Text(key.clone()), shown);
                match source {
                    Value::Object(conditions) => {
                        shown.extend(conditions.keys().map(|name| format!("condition {name}")));
                        conditions.values().for_each(|operand| {
                            if matches!(operand, Value::Object(_)) {
                                shown.push("operand from".into());
                            }
                        });
                    }
                    _ => shown.push("condition constant".into()),
                }
            }
        }
    }
}

fn source_shown_by(source: &Value, shown: &mut Vec<String>) {
    match source {
        Value::Text(text) => {
            let kind = text.split_once(":/").map_or("payload", |(kind, _)| kind);
            shown.push(format!("source {kind}"));
        }
        Value::Object(members) => {
            shown.push(format!("source {}", members.keys().rev().cloned().collect::<Vec<_>>().join(" and ")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_operation_condition_and_kind_of_source_has_an_example_that_works() {
    let mut shown = Vec::new();
    for example in examples().iter().filter(|example| example.state.is_some()) {
        shown_by(&value(&example.rules), &mut shown);
    }
    let operations = [
        "set",
        "merge",
        "add",
        "subtract",
        "multiply",
        "divide",
        "round",
        "increment",
        "min",
        "max",
        "append",
        "remove",
    ];
    let conditions = ["constant", "exists", "equals", "differs", "less_than", "at_most", "more_than", "at_least"];
    let sources = ["payload", "event", "state", "value", "from and default"];
    let needed = (operations.iter().map(|name| format!("operation {name}")))
        .chain(conditions.iter().map(|name| format!("condition {name}")))
        .chain(sources.iter().map(|kind| format!("source {kind}")))
        .chain(["otherwise \"ignore\"".to_owned(), "operand from".to_owned()]);
    let missing: Vec<_> = needed.filter(|needed| !shown.contains(needed)).collect();
    assert!(missing.is_empty(), "docs/rules.md shows no example of {missing:?}");
    // The list above is the language's own: the message of a mistake names them all.
    let Err(error) = Rules::parse(r#"{"on": {"E": [{"no": {}}]}}"#) else { panic!() };
    let message = error.to_string();
    let mut named: Vec<_> = message.split_once("one of ").unwrap().1.split(", ").collect();
    named.sort_unstable();
    let mut operations = operations;
    operations.sort_unstable();
    assert_eq!(named, operations);
    let Err(error) = Rules::parse(r#"{"on": {"E": [{"when": {"/a": {"no": 1}}, "remove": "/a"}]}}"#) else { panic!() };
    assert!(error.to_string().ends_with(&format!("must be {}", conditions[1..].join(", "))), "{error}");
}
