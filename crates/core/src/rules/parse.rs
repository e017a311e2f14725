//! Reading rules. Every mistake is named with the JSON Pointer of the place where it stands.
use super::definition::{Action, EventField, Guard, Operation, Rule, Rules, Source, Test};
use super::pointer::{Path, Pointer, Token, escaped};
use crate::decimal::{self, Mode, Rounding};
use crate::error::{Error, Result};
use crate::json::{Object, Value};
use crate::name::EventType;
use crate::quote::shown;
use std::collections::HashMap;

/// The most operations, and the most bytes, that rules may have.
const MOST_OPERATIONS: usize = 10_000;
const MOST_BYTES: usize = 1 << 20;
/// The most digits of a number in rules.
const MOST_NUMBER_DIGITS: u64 = 1_000;

const OPERATIONS: [(&str, Operation); 8] = [
    ("set", Operation::Set),
    ("merge", Operation::Merge),
    ("add", Operation::Add),
    ("subtract", Operation::Subtract),
    ("multiply", Operation::Multiply),
    ("min", Operation::Min),
    ("max", Operation::Max),
    ("append", Operation::Append),
];

/// Operations that take something else than a source for each target.
const OTHERS: [&str; 4] = ["divide", "round", "increment", "remove"];

/// The most digits after the point that a number is rounded to.
const MOST_SCALE: u16 = 1_000;
/// The most targets with keys from the payload in one operation: each is compared with all others.
const MOST_KEYED_TARGETS: usize = 64;

const TESTS: [(&str, Test); 6] = [
    ("equals", Test::Equals),
    ("differs", Test::Differs),
    ("less_than", Test::LessThan),
    ("at_most", Test::AtMost),
    ("more_than", Test::MoreThan),
    ("at_least", Test::AtLeast),
];

pub(super) fn mistake(at: &str, reason: impl Into<String>) -> Error {
    Error::InvalidRules { pointer: at.into(), reason: reason.into() }
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Object> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(mistake(at, format!("must be an object, not {}", other.kind()))),
    }
}

fn below(at: &str, key: &str) -> String {
    format!("{at}/{}", escaped(key))
}

/// The place of a number of too many digits, and how many they are. Only the one place is written out: a path for every number
/// would take far more memory than the rules.
pub(super) fn long_number(value: &Value) -> Option<(String, u64)> {
    match value {
        Value::Number(number) if decimal::is_longer(number, MOST_NUMBER_DIGITS) => {
            Some((String::new(), decimal::printed_digits(number)))
        }
        Value::Array(elements) => elements.iter().enumerate().find_map(|(place, element)| {
            long_number(element).map(|(inner, digits)| (format!("/{place}{inner}"), digits))
        }),
        Value::Object(members) => members
            .iter()
            .find_map(|(key, member)| long_number(member).map(|(inner, digits)| (below("", key) + &inner, digits))),
        _ => None,
    }
}

impl Rules {
    /// The most bytes that rules may have as text.
    pub const MOST_BYTES: usize = MOST_BYTES;

    /// Compiles rules.
    ///
    /// # Errors
    /// [`Error::InvalidRules`] with the place of the first mistake, and what must stand there.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MOST_BYTES {
            return Err(mistake("", format!("must have at most {MOST_BYTES} bytes, not {}", text.len())));
        }
        let document = Value::parse(text).map_err(|reason| mistake("", format!("must be a JSON object: {reason}")))?;
        if let Some((place, digits)) = long_number(&document) {
            return Err(mistake(&place, format!("must have at most {MOST_NUMBER_DIGITS} digits, not {digits}")));
        }
        let members = object(&document, "")?;
        if let Some(unknown) = members.keys().find(|key| !["on", "otherwise"].contains(&key.as_str())) {
            return Err(mistake(&below("", unknown), "must be on or otherwise"));
        }
        let refuses_others = match members.get("otherwise") {
            None => false,
            Some(Value::Text(text)) if text == "ignore" => false,
            Some(Value::Text(text)) if text == "error" => true,
            Some(other) => {
                return Err(mistake(
                    "/otherwise",
                    format!("must be \"ignore\" or \"error\", not {}", other.described()),
                ));
            }
        };
        let types =
            members.get("on").ok_or_else(|| mistake("/on", "must be given: event types and their operations"))?;
        let mut on = HashMap::new();
        let mut count = 0;
        for (event_type, rules) in object(types, "/on")? {
            // Bounded, because each operation keeps the place where it stands, for messages.
            if let Err(Error::InvalidArgument { reason, .. }) = EventType::parse(event_type) {
                return Err(mistake("/on", format!("must have event types as members, and one {reason}")));
            }
            let at = below("/on", event_type);
            let Value::Array(rules) = rules else {
                return Err(mistake(&at, format!("must be an array of operations, not {}", rules.kind())));
            };
            count += rules.len();
            if count > MOST_OPERATIONS {
                return Err(mistake(&at, format!("must keep within {MOST_OPERATIONS} operations in all")));
            }
            let rules = rules.iter().enumerate().map(|(place, rule)| Rule::parse(rule, &format!("{at}/{place}")));
            on.insert(event_type.clone(), rules.collect::<Result<Vec<_>>>()?);
        }
        Ok(Self { on, refuses_others })
    }
}

impl Rule {
    fn parse(value: &Value, at: &str) -> Result<Self> {
        let members = object(value, at)?;
        let when = members.get("when").map_or(Ok(Vec::new()), |when| guards(when, &below(at, "when")))?;
        let mut operations = members.iter().filter(|(key, _)| key.as_str() != "when");
        let names = || {
            let names: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).chain(OTHERS).collect();
            names.join(", ")
        };
        let Some((name, argument)) = operations.next() else {
            return Err(mistake(at, format!("must have an operation: one of {}", names())));
        };
        if let Some((second, _)) = operations.next() {
            return Err(mistake(
                at,
                format!("must have one operation, not {name} and {second}: write them one after the other"),
            ));
        }
        let place = below(at, name);
        let action = match name.as_str() {
            "divide" => Action::Divide(divisions(argument, &place)?),
            "round" => Action::Round(roundings(argument, &place)?),
            "increment" => Action::Increment(targets(argument, &place)?),
            "remove" => Action::Remove(targets(argument, &place)?),
            name => match OPERATIONS.iter().find(|(known, _)| *known == name) {
                Some((_, operation)) => Action::Each(*operation, assignments(*operation, argument, &place)?),
                None => return Err(mistake(&place, format!("must be one of {}", names()))),
            },
        };
        Ok(Self { place, when, action })
    }
}

/// `{"/target": source, …}`
fn assignments(operation: Operation, value: &Value, at: &str) -> Result<Vec<(Path, Source)>> {
    for_each_target(value, at, "\"/amount\"", |argument, at| {
        let source = Source::parse(argument, at)?;
        if let Some((place, constant)) = source.constant(at).filter(|(_, constant)| !operation.takes(constant)) {
            return Err(mistake(&place, format!("must be {}, not {}", operation.needs(), constant.described())));
        }
        Ok(source)
    })
}

/// `{"/target": {"by": source, "scale": 2, "mode": "half_even"}, …}`
fn divisions(value: &Value, at: &str) -> Result<Vec<(Path, Source, Rounding)>> {
    let example = "{\"by\": \"/quantity\", \"scale\": 4, \"mode\": \"half_even\"}";
    let divisions = for_each_target(value, at, example, |argument, at| {
        let members = object(argument, at)?;
        let by = members.get("by").ok_or_else(|| mistake(at, format!("must be as in {example}")))?;
        let by_at = below(at, "by");
        let source = Source::parse(by, &by_at)?;
        match source.constant(&by_at) {
            Some((place, Value::Number(number))) if decimal::is_zero(number) => {
                return Err(mistake(&place, "must not be 0"));
            }
            Some((place, constant)) if !matches!(constant, Value::Number(_)) => {
                return Err(mistake(&place, format!("must be a number, not {}", constant.described())));
            }
            _ => {}
        }
        Ok((source, Rounding::parse(members, &["by", "scale", "mode"], at)?))
    })?;
    Ok(divisions.into_iter().map(|(target, (source, rounding))| (target, source, rounding)).collect())
}

/// `{"/target": {"scale": 2, "mode": "half_even"}, …}`
fn roundings(value: &Value, at: &str) -> Result<Vec<(Path, Rounding)>> {
    for_each_target(value, at, "{\"scale\": 2, \"mode\": \"half_even\"}", |argument, at| {
        Rounding::parse(object(argument, at)?, &["scale", "mode"], at)
    })
}

impl Rounding {
    fn parse(members: &Object, known: &[&str], at: &str) -> Result<Self> {
        if let Some(unknown) = members.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(mistake(&below(at, unknown), format!("must be one of {}", known.join(", "))));
        }
        let scale = match members.get("scale") {
            Some(Value::Number(number)) => number.to_string().parse().ok().filter(|scale| *scale <= MOST_SCALE),
            _ => None,
        };
        let scale = scale.ok_or_else(|| {
            let reason = format!("must be given: the digits after the point, a whole number from 0 to {MOST_SCALE}");
            mistake(&below(at, "scale"), reason)
        })?;
        let mode = match members.get("mode") {
            Some(Value::Text(text)) => Mode::NAMES.iter().find(|(name, _)| name == text),
            _ => None,
        };
        let names = || Mode::NAMES.map(|(name, _)| name).join(", ");
        let mode = mode.ok_or_else(|| mistake(&below(at, "mode"), format!("must be given: one of {}", names())))?.1;
        Ok(Self { scale, mode })
    }
}

/// What `read` makes of each target's argument.
fn for_each_target<T>(
    value: &Value,
    at: &str,
    example: &str,
    read: impl Fn(&Value, &str) -> Result<T>,
) -> Result<Vec<(Path, T)>> {
    let members = object(value, at)?;
    if members.is_empty() {
        return Err(mistake(at, format!("must name a place in the state, as in {{\"/balance\": {example}}}")));
    }
    let read = |(target, argument): (&String, &Value)| {
        let at = below(at, target);
        let argument = read(argument, &at)?;
        Ok((path(target, &at)?, argument))
    };
    let arguments = members.iter().map(read).collect::<Result<Vec<_>>>()?;
    refuse_nested(arguments.iter().map(|(target, _)| target), at)?;
    Ok(arguments)
}

/// Targets change in no promised order: none may lie within another.
fn refuse_nested<'a>(paths: impl Iterator<Item = &'a Path>, at: &str) -> Result<()> {
    let paths: Vec<_> = paths.collect();
    let keyed: Vec<_> =
        paths.iter().enumerate().filter(|(_, path)| matches!(path, Path::Keyed(_))).map(|(place, _)| place).collect();
    if keyed.len() > MOST_KEYED_TARGETS {
        return Err(mistake(at, format!("must have at most {MOST_KEYED_TARGETS} targets with keys from the payload")));
    }
    for &place in &keyed {
        if let Some((_, met)) =
            paths.iter().enumerate().find(|(other, path)| *other != place && path.may_meet(paths[place]))
        {
            return Err(mistake(
                &below(at, &paths[place].to_string()),
                format!(
                    "may be, or lie within, {met}, which the same operation changes: write them one after the other"
                ),
            ));
        }
    }
    let fixed = paths.iter().filter_map(|path| match path {
        Path::Fixed(pointer) => Some(pointer.tokens().map(Token::as_str).collect()),
        Path::Keyed(_) => None,
    });
    let mut targets: Vec<Vec<&str>> = fixed.collect();
    targets.sort_unstable();
    if let Some([outer, inner]) = targets.array_windows().find(|[outer, inner]| inner.starts_with(outer)) {
        let [outer, inner] =
            [outer, inner].map(|tokens| tokens.iter().fold(String::new(), |at, token| below(&at, token)));
        return Err(mistake(
            &below(at, &inner),
            format!("must not lie within {}, which the same operation changes", shown(&outer)),
        ));
    }
    Ok(())
}

impl Operation {
    /// Whether it can use a value.
    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Set | Self::Append => true,
            Self::Merge => matches!(value, Value::Object(_)),
            Self::Add | Self::Subtract | Self::Multiply => matches!(value, Value::Number(_)),
            Self::Min | Self::Max => matches!(value, Value::Number(_) | Value::Text(_)),
        }
    }

    /// What it can use, for a message.
    fn needs(self) -> &'static str {
        match self {
            Self::Set | Self::Append => "a value",
            Self::Merge => "an object",
            Self::Add | Self::Subtract | Self::Multiply => "a number",
            Self::Min | Self::Max => "a number or a string",
        }
    }
}

/// `"/target"`, or an array of such.
fn targets(value: &Value, at: &str) -> Result<Vec<Path>> {
    match value {
        Value::Text(text) => Ok(vec![path(text, at)?]),
        Value::Array(elements) if !elements.is_empty() => elements
            .iter()
            .enumerate()
            .map(|(place, element)| match element {
                Value::Text(text) => path(text, &format!("{at}/{place}")),
                other => {
                    Err(mistake(&format!("{at}/{place}"), format!("must be a JSON Pointer, not {}", other.kind())))
                }
            })
            .collect(),
        other => Err(mistake(
            at,
            format!("must be a JSON Pointer into the state, or an array of such, not {}", other.kind()),
        )),
    }
}

fn path(text: &str, at: &str) -> Result<Path> {
    Path::parse(text).map_err(|reason| mistake(at, format!("{reason}, not {}", shown(text))))
}

impl Source {
    fn parse(value: &Value, at: &str) -> Result<Self> {
        match value {
            Value::Text(text) => Self::parse_text(text, at),
            Value::Object(members) => {
                if let Some(unknown) = members.keys().find(|key| !["value", "from", "default"].contains(&key.as_str()))
                {
                    return Err(mistake(&below(at, unknown), "must be value, or from and default"));
                }
                match (members.get("value"), members.get("from"), members.get("default")) {
                    (Some(value), None, None) => Ok(Self::Constant(value.clone())),
                    (None, Some(Value::Text(from)), default) => {
                        let from = Self::parse_text(from, &below(at, "from"))?;
                        Ok(match default {
                            Some(default) => Self::Default(Box::new(from), default.clone()),
                            None => from,
                        })
                    }
                    _ => Err(mistake(
                        at,
                        "must be {\"value\": constant} or {\"from\": \"/pointer\", \"default\": constant}",
                    )),
                }
            }
            other => Err(mistake(
                at,
                format!(
                    "must say where the value comes from: \"/pointer\", \"event:/field\", \"state:/pointer\" or {{\"value\": constant}}, not {}",
                    other.described()
                ),
            )),
        }
    }

    /// The constant that it is or falls back to, and where it stands.
    fn constant(&self, at: &str) -> Option<(String, &Value)> {
        match self {
            Self::Constant(value) => Some((below(at, "value"), value)),
            Self::Default(_, default) => Some((below(at, "default"), default)),
            Self::Payload(_) | Self::Event(_) | Self::State(_) => None,
        }
    }

    fn parse_text(text: &str, at: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("event:") {
            return EventField::parse(rest)
                .map(Self::Event)
                .ok_or_else(|| mistake(at, format!("must be {}, not {}", EventField::choices(), shown(text))));
        }
        match text.strip_prefix("state:") {
            Some(rest) => path(rest, at).map(Self::State),
            None => path(text, at).map(Self::Payload),
        }
    }
}

impl EventField {
    /// The fields but the metadata.
    pub(super) const NAMES: [(&'static str, Self); 12] = [
        ("global_position", Self::GlobalPosition),
        ("stream", Self::Stream),
        ("version", Self::Version),
        ("event_id", Self::EventId),
        ("event_type", Self::EventType),
        ("schema_version", Self::SchemaVersion),
        ("subject", Self::Subject),
        ("occurred_at", Self::OccurredAt),
        ("recorded_at", Self::RecordedAt),
        ("category", Self::Category),
        ("tenant", Self::Tenant),
        ("recorded_by", Self::RecordedBy),
    ];

    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("/metadata") {
            return Pointer::parse(rest).ok().map(Self::Metadata);
        }
        let name = text.strip_prefix('/')?;
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
    }

    fn choices() -> String {
        let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
        format!("event:/ and one of {}, metadata", names.join(", "))
    }
}

/// `{"source": constant or {"exists": …, "equals": …, …}, …}`: all must hold.
pub(super) fn guards(value: &Value, at: &str) -> Result<Vec<Guard>> {
    let members = object(value, at)?;
    if members.is_empty() {
        return Err(mistake(at, "must name a value, as in {\"/currency\": \"EUR\"}"));
    }
    members
        .iter()
        .map(|(source, condition)| {
            let at = below(at, source);
            Guard::parse(Source::parse_text(source, &at)?, condition, &at)
        })
        .collect()
}

impl Guard {
    fn parse(source: Source, condition: &Value, at: &str) -> Result<Self> {
        let Value::Object(members) = condition else {
            if matches!(condition, Value::Array(_)) {
                return Err(mistake(at, "must be a string, a number, a boolean, null, or an object of conditions"));
            }
            let tests = vec![(Test::Equals, Source::Constant(condition.clone()))];
            return Ok(Self { source, exists: None, tests });
        };
        let mut guard = Self { source, exists: None, tests: Vec::new() };
        for (name, operand) in members {
            let at = below(at, name);
            if name == "exists" {
                let Value::Bool(exists) = operand else {
                    return Err(mistake(&at, format!("must be true or false, not {}", operand.described())));
                };
                guard.exists = Some(*exists);
                continue;
            }
            let Some((_, test)) = TESTS.iter().find(|(known, _)| known == name) else {
                let names: Vec<_> = TESTS.iter().map(|(name, _)| *name).collect();
                return Err(mistake(&at, format!("must be exists, {}", names.join(", "))));
            };
            let (operand, constant_at) = match operand {
                Value::Object(_) => (Source::parse(operand, &at)?, None),
                Value::Array(_) => return Err(mistake(&at, "must be a constant, or {\"from\": \"/pointer\"}")),
                constant => (Source::Constant(constant.clone()), Some(at.clone())),
            };
            if let Some((place, constant)) = operand.constant(&at)
                && !matches!(test, Test::Equals | Test::Differs)
                && !matches!(constant, Value::Number(_) | Value::Text(_))
            {
                let place = constant_at.unwrap_or(place);
                return Err(mistake(&place, format!("must be a number or a string, not {}", constant.described())));
            }
            guard.tests.push((*test, operand));
        }
        if guard.exists.is_none() && guard.tests.is_empty() {
            return Err(mistake(at, "must have a condition, as in {\"exists\": true} or {\"at_least\": 0}"));
        }
        if guard.exists == Some(false) && !guard.tests.is_empty() {
            return Err(mistake(at, "must not compare a value that must not exist"));
        }
        Ok(guard)
    }
}
