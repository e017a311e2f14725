//! Why a command, or a test of one, comes to nothing: a refusal, a boundary, a command that its decider does not take, a decider that is none or answers nothing that can be used. Owns the words
//! of these errors; [`crate::Error`] carries them.
use crate::breach::Breach;
use crate::hint::EXAMPLE_HINT;
use crate::quote::{quote_identifier, quote_literal, shown};
use serde_json::{Map, Value, json};

/// An example of a command, which is judged when its decider is registered.
pub const EXAMPLE: &str = "the example";

/// Why a command, or a test of one, comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what their names say; the variants say what they mean
pub enum Undecided {
    /// ES030: the command that was scheduled with the key was taken back, or given up.
    #[error(
        "command key {} of category {} is used up: the command that was scheduled with it is not to be executed any more",
        shown(key),
        shown(category)
    )]
    GivenUp { key: String, category: String },

    /// ES030: the decider schedules what has a key that was used. `stands` reads "it …"; `stage`: of the one that was scheduled with it.
    #[error(
        "decider {} schedules command key {} of category {}, and {stands}",
        shown(decider),
        shown(key),
        shown(category)
    )]
    ScheduledBefore { decider: String, key: String, category: String, stands: String, stage: Option<String> },

    /// ES033: the decider says no, in its own words. `detail`: whatever it says beside the code.
    #[error("{message}")]
    Refused { code: String, message: String, detail: Map<String, Value> },

    /// ES034: the decider's answer goes beyond its boundary; `reason` reads "it …".
    #[error("decider {} goes beyond its boundary: {reason}", shown(decider))]
    BeyondBoundary { decider: String, reason: String },

    /// ES035: the decider takes none of that type; `known`: those that it takes.
    #[error("decider {} takes no command {}", shown(decider), shown(command_type))]
    TypeUnknown { decider: String, command_type: String, known: Vec<String> },

    /// ES036: no decider of that name (None: no default one) for the category (None: in the tenant).
    #[error("{}", not_found(decider.as_deref(), category.as_deref()))]
    NotFound { decider: Option<String>, category: Option<String> },

    /// ES016: `what` ("the payload", [`EXAMPLE`]) is none of that type of command.
    #[error(
        "{what} of command {} is refused by its schema, of decider {}: {breach}",
        shown(command_type),
        shown(decider)
    )]
    PayloadRefused { what: &'static str, decider: String, command_type: String, breach: Breach },

    /// ES016: it cannot be judged; `reason` reads "it …".
    #[error(
        "{what} of command {} cannot be judged by its schema, of decider {}: {reason}",
        shown(command_type),
        shown(decider)
    )]
    PayloadUnjudged { what: &'static str, decider: String, command_type: String, reason: String },

    /// ES037: the decider cannot be used as it was registered.
    #[error("decider {} cannot be used: {reason}", shown(decider))]
    Unusable { decider: String, reason: String },

    /// ES037: the decider or its boundary answered what is no answer; `reason` reads "its answer …".
    #[error(
        "decider {} failed on command {} for stream {}: {reason}",
        shown(decider),
        shown(command_type),
        shown(stream)
    )]
    Failed { decider: String, command_type: String, stream: String, reason: String, hint: Option<String> },

    /// ES038: tests of decisions (es_test) did not find what they expected, or ended in an error (`raised`). `of`: how many found something; `failed`: the first of those that failed.
    #[error("{count} of {of} tests failed{}", and_raised(*raised))]
    TestsFailed { count: u64, of: u64, failed: Vec<String>, raised: u64 },

    /// 42501: a test is to be made as another role, which the role may not become by SET ROLE.
    #[error("role {} may not become role {}", shown(role), shown(other))]
    OtherRole { role: String, other: String },
}

fn and_raised(raised: u64) -> String {
    match raised {
        0 => String::new(),
        1 => ", and 1 call of es_test ended in an error".into(),
        _ => format!(", and {raised} calls of es_test ended in an error"),
    }
}

fn not_found(decider: Option<&str>, category: Option<&str>) -> String {
    match (decider, category) {
        (Some(decider), Some(category)) => {
            format!("there is no decider {} for category {}", shown(decider), shown(category))
        }
        (Some(decider), None) => format!("there is no decider {}", shown(decider)),
        (None, Some(category)) => format!("category {} has no default decider", shown(category)),
        (None, None) => "there is no such decider".to_owned(),
    }
}

impl Undecided {
    /// The five characters of its SQLSTATE.
    #[must_use]
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::PayloadRefused { .. } | Self::PayloadUnjudged { .. } => "ES016",
            Self::GivenUp { .. } => "ES030",
            Self::ScheduledBefore { .. } => "ES030",
            Self::Refused { .. } => "ES033",
            Self::BeyondBoundary { .. } => "ES034",
            Self::TypeUnknown { .. } => "ES035",
            Self::NotFound { .. } => "ES036",
            Self::Unusable { .. } | Self::Failed { .. } => "ES037",
            Self::TestsFailed { .. } => "ES038",
            Self::OtherRole { .. } => "42501",
        }
    }

    /// The same facts for machines.
    #[must_use]
    pub fn facts(&self) -> Value {
        match self {
            Self::Refused { code, detail, .. } => {
                let mut facts = detail.clone();
                facts.insert("code".into(), json!(code));
                Value::Object(facts)
            }
            Self::GivenUp { key, category } => {
                json!({"of": format!("category {}", shown(category)), "command_key": key})
            }
            Self::ScheduledBefore { decider, key, category, stage, .. } => {
                json!({"decider": decider, "command_key": key, "of": format!("category {}", shown(category)), "stage": stage})
            }
            Self::BeyondBoundary { decider, reason } | Self::Unusable { decider, reason } => {
                json!({"decider": decider, "reason": reason})
            }
            Self::TypeUnknown { decider, command_type, known } => {
                json!({"decider": decider, "command_type": command_type, "commands": known})
            }
            Self::NotFound { decider, category } => json!({"decider": decider, "category": category}),
            Self::PayloadRefused { decider, command_type, breach, .. } => json!({
                "decider": decider, "command_type": command_type, "value": breach.value, "kind": breach.kind, "rule": breach.rule
            }),
            Self::PayloadUnjudged { decider, command_type, reason, .. } => {
                json!({"decider": decider, "command_type": command_type, "reason": reason})
            }
            Self::Failed { decider, command_type, stream, reason, .. } => {
                json!({"decider": decider, "command_type": command_type, "stream": stream, "reason": reason})
            }
            Self::OtherRole { role, other } => json!({"role": role, "as_role": other}),
            Self::TestsFailed { count, of, failed, raised } => {
                json!({"plan": format!("1..{of}"), "count": count, "failed": failed, "errors": raised})
            }
        }
    }

    /// What to do about it. A refusal says that itself.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => None,
            Self::GivenUp { .. } => Some(GIVEN_UP_HINT.into()),
            Self::ScheduledBefore { .. } => Some(SCHEDULED_HINT.into()),
            Self::BeyondBoundary { .. } => Some(BEYOND_HINT.into()),
            Self::TypeUnknown { known, .. } => Some(format!("It takes: {}.", known.join(", "))),
            Self::NotFound { .. } => Some(
                "The view eventstream.deciders shows what is registered; es_register_decider() registers one for a category."
                    .into(),
            ),
            Self::PayloadRefused { what: EXAMPLE, .. } => Some(EXAMPLE_HINT.into()),
            Self::PayloadRefused { decider, command_type, .. } | Self::PayloadUnjudged { decider, command_type, .. } => {
                Some(format!(
                    "The schema: select commands -> {} -> 'schema' from eventstream.deciders where name = {};",
                    quote_literal(command_type),
                    quote_literal(decider)
                ))
            }
            Self::Unusable { .. } => {
                Some("Mend what is named, or register the decider again with es_register_decider().".into())
            }
            Self::Failed { hint, .. } => hint.clone(),
            Self::OtherRole { role, other } => Some(format!(
                "as_role asks for what SET ROLE asks for: grant {} to {};",
                quote_identifier(other),
                quote_identifier(role)
            )),
            Self::TestsFailed { raised, .. } => Some(match raised {
                0 => "The lines of es_test say what was expected, and what was found.".into(),
                _ => "The lines of es_test say what was expected, and what was found; a call that ended in an error was not made: its error says why.".into(),
            }),
        }
    }
}

/// What to do about a key whose command was given up.
const GIVEN_UP_HINT: &str = "It was unscheduled, or its dead letter was dropped: give the command another key. eventstream.scheduled_commands says why.";

/// What to do about a decider that schedules with a key that was used.
const SCHEDULED_HINT: &str = "A key is used up for ever. A decider gives each command that it schedules a key of its own, or refuses (es_require) where one is scheduled already.";

/// What to do about a decider that goes beyond its boundary.
const BEYOND_HINT: &str = "A decider appends to the command's stream, to the streams and writes that its boundary names (es_register_decider, boundary), \
     and elsewhere only to streams that begin with it.";
