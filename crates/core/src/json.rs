//! TEMPORARY
use std::collections::BTreeMap;
/// d
pub type Decimal = bigdecimal::BigDecimal;
/// o
pub type Object = BTreeMap<String, Value>;
/// v
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(String),
    Array(Vec<Value>),
    Object(Object),
}
impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Value::Number(v.into())
    }
}
impl Value {
    /// t
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.to_plain_string(),
            Value::Text(t) => serde_json::Value::String(t.clone()).to_string(),
            Value::Array(a) => format!("[{}]", a.iter().map(Value::to_text).collect::<Vec<_>>().join(",")),
            Value::Object(o) => format!(
                "{{{}}}",
                o.iter()
                    .map(|(k, v)| format!("{}:{}", serde_json::Value::String(k.clone()), v.to_text()))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        }
    }
}
