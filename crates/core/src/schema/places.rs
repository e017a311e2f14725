//! The places in a schema where subschemas stand: each gets the keyword that counts (tank.rs), and references may lead to nothing else, so that none
//! is tried without being counted. On the way: what else the schema says of itself, which names of properties and which patterns it has.
use super::loops::Loops;
use super::patterns::{Patterns, Weights};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The keyword of our own (tank.rs); a schema that has it by itself has it replaced.
pub const KEYWORD: &str = "$eventstream";
/// The most bytes of all pointers to keywords: the library keeps one for each.
const MOST_POINTER_BYTES: usize = 16 << 20;
/// The most bytes of all copies of schemas that the library keeps.
const MOST_COPIED_BYTES: usize = 32 << 20;

/// Keywords whose value is a schema.
const ONE: [&str; 11] = [
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is an array of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const MAP: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "$defs"];
/// Those of them whose schemas judge the same value as the schema that they stand in.
const SAME: [&str; 8] = ["not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas"];
/// Those of them whose schema the library keeps a copy of, with all that stands in it.
const COPIED: [&str; 2] = ["not", "contentSchema"];
/// The other keywords of JSON Schema 2020-12.
const OTHER: [&str; 42] = [
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "type",
    "enum",
    "const",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
    "contentEncoding",
    "contentMediaType",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "definitions",
    "dependencies",
    "$recursiveRef",
    "$recursiveAnchor",
];

/// What a value can be.
const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// A pointer into the schema, and what is wrong there.
type Fault = (String, String);

/// What a schema says of itself.
pub struct Prepared {
    /// Keywords that JSON Schema does not have.
    pub unknown: Vec<String>,
    /// The properties that it names.
    pub names: HashSet<String>,
    /// Those that it requires, by the pointer to the schema that does.
    pub required: HashMap<String, Vec<String>>,
    pub weights: Weights,
}

struct Reference {
    /// The schema that it stands in, by its number.
    of: usize,
    pointer: String,
    to: String,
}

#[derive(Default)]
struct Found {
    /// The numbers of schemas, by where they stand.
    places: HashMap<String, usize>,
    pointer_bytes: usize,
    copied_bytes: usize,
    names: HashSet<String>,
    required: HashMap<String, Vec<String>>,
    patterns: Patterns,
    /// The numbers of the schemas that have them.
    anchors: HashMap<String, usize>,
    references: Vec<Reference>,
    loops: Loops,
    unknown: BTreeSet<String>,
}

/// Puts the keyword into each subschema, and writes references as the library takes them.
pub fn prepare(schema: &mut Value) -> Result<Prepared, Fault> {
    let mut found = Found::default();
    found.walk(schema, String::new())?;
    found.follow(schema)?;
    if let Some(reference) = found.loops.find() {
        let reason = "must not lead back to itself without going deeper into the payload";
        return Err((found.references.swap_remove(reference).pointer, reason.into()));
    }
    let Found { unknown, names, required, patterns, .. } = found;
    Ok(Prepared { unknown: unknown.into_iter().collect(), names, required, weights: patterns.weights })
}

impl Found {
    /// The number that the schema got.
    fn walk(&mut self, schema: &mut Value, pointer: String) -> Result<usize, Fault> {
        let number = self.loops.add();
        if let Value::Object(keywords) = schema {
            self.pointer_bytes += (pointer.len() + KEYWORD.len()) * (keywords.len() + 1);
            if self.pointer_bytes > MOST_POINTER_BYTES {
                let reason =
                    format!("must be flatter: pointers to its keywords have more than {MOST_POINTER_BYTES} bytes");
                return Err((String::new(), reason));
            }
            self.note(keywords, &pointer, number)?;
            for (keyword, value) in keywords.iter_mut() {
                let below = format!("{pointer}/{}", escaped(keyword));
                let is_same = SAME.contains(&keyword.as_str());
                let mut go = |schema: &mut Value, place: String| -> Result<(), Fault> {
                    let inner = self.walk(schema, place)?;
                    if is_same {
                        self.loops.note_same(number, inner);
                    }
                    Ok(())
                };
                match value {
                    value if ONE.contains(&keyword.as_str()) => {
                        go(value, below)?;
                        self.note_copy(keyword, value)?;
                    }
                    Value::Array(schemas) if LIST.contains(&keyword.as_str()) => {
                        for (place, schema) in schemas.iter_mut().enumerate() {
                            go(schema, format!("{below}/{place}"))?;
                        }
                    }
                    Value::Object(schemas) if MAP.contains(&keyword.as_str()) => {
                        for (name, schema) in schemas.iter_mut() {
                            go(schema, format!("{below}/{}", escaped(name)))?;
                        }
                    }
                    _ => {}
                }
            }
            keywords.insert(KEYWORD.into(), Value::Bool(true));
        }
        self.places.insert(pointer, number);
        Ok(number)
    }

    fn note(&mut self, keywords: &Map<String, Value>, pointer: &str, number: usize) -> Result<(), Fault> {
        for (keyword, value) in keywords {
            let at = || format!("{pointer}/{}", escaped(keyword));
            let keyword = keyword.as_str();
            match (keyword, value) {
                // Another document within this one: pointers would count from there.
                ("$id", _) if !pointer.is_empty() => return Err((at(), "must stand at the top only".into())),
                ("$ref" | "$dynamicRef", Value::String(to)) => {
                    self.references.push(Reference { of: number, pointer: at(), to: to.clone() });
                }
                ("$anchor" | "$dynamicAnchor", Value::String(name)) => {
                    let other = self.anchors.insert(name.clone(), number);
                    if other.is_some() {
                        return Err((at(), "must be an anchor that stands once in the schema".into()));
                    }
                }
                ("pattern", Value::String(pattern)) => {
                    self.patterns.note(pattern, false).map_err(|fault| (at(), fault))?
                }
                ("patternProperties", Value::Object(schemas)) => {
                    for pattern in schemas.keys() {
                        let fault = |fault| (format!("{}/{}", at(), escaped(pattern)), fault);
                        self.patterns.note(pattern, true).map_err(fault)?;
                    }
                }
                ("type", given) if !is_type(given) => {
                    return Err((at(), format!("must be {}, or an array of such names", TYPES.join(", "))));
                }
                ("required", Value::Array(names)) => {
                    let names: Vec<String> = names.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
                    self.names.extend(names.iter().cloned());
                    self.required.insert(pointer.to_owned(), names);
                }
                ("properties" | "dependentSchemas" | "dependentRequired", Value::Object(of)) => {
                    self.names.extend(of.keys().cloned());
                }
                _ => {}
            }
            let is_known =
                ONE.contains(&keyword) || LIST.contains(&keyword) || MAP.contains(&keyword) || OTHER.contains(&keyword);
            if !is_known && !keyword.starts_with("x-") && keyword != KEYWORD {
                self.unknown.insert(keyword.to_owned());
            }
        }
        Ok(())
    }

    fn note_copy(&mut self, keyword: &str, schema: &Value) -> Result<(), Fault> {
        if COPIED.contains(&keyword) {
            self.copied_bytes += room(schema);
        }
        if self.copied_bytes > MOST_COPIED_BYTES {
            let within = COPIED.join(" and ");
            let reason = format!(
                "must be flatter: what stands within {within}, once for each around it, takes more than {MOST_COPIED_BYTES} bytes"
            );
            return Err((String::new(), reason));
        }
        Ok(())
    }

    /// Where references lead; in the schema each is written as the library takes it.
    fn follow(&mut self, schema: &mut Value) -> Result<(), Fault> {
        for (number, Reference { of, pointer, to }) in self.references.iter().enumerate() {
            let Some((to, written)) = self.led_to(to) else {
                let reason = "must refer to a schema within this one: # with a JSON Pointer to it, or its anchor";
                return Err((pointer.clone(), reason.into()));
            };
            self.loops.note_reference(*of, number, to);
            if let Some(reference) = schema.pointer_mut(pointer) {
                *reference = Value::String(written);
            }
        }
        Ok(())
    }

    /// The number of the schema that a reference leads to, if it is one, and how that is written.
    fn led_to(&self, reference: &str) -> Option<(usize, String)> {
        let fragment = decoded(reference.strip_prefix('#')?)?;
        let number = self.places.get(&fragment).or_else(|| self.anchors.get(&fragment))?;
        Some((*number, format!("#{}", encoded(&fragment))))
    }
}

/// About how many bytes a value takes; objects are B-trees, with room for some members that are not there.
fn room(value: &Value) -> usize {
    let below = match value {
        Value::Null | Value::Bool(_) => 0,
        Value::Number(number) => 16 + number.as_str().len(),
        Value::String(text) => 16 + text.len(),
        Value::Array(values) => values.iter().map(room).sum(),
        Value::Object(members) => 600 + members.iter().map(|(key, value)| 64 + key.len() + room(value)).sum::<usize>(),
    };
    size_of::<Value>() + below
}

/// What may stand after `type`.
fn is_type(given: &Value) -> bool {
    let is_name = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    match given {
        // Whether there are any, and each once, is judged by JSON Schema's own schema.
        Value::Array(names) => names.iter().all(is_name),
        name => is_name(name),
    }
}

/// A key as JSON Pointer writes it.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Without percent signs that stand for others.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        // To from_str_radix a sign is a number's.
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// With percent signs for all that may not stand in a fragment of a URI as it is.
fn encoded(fragment: &str) -> String {
    let mut text = String::with_capacity(fragment.len());
    for byte in fragment.bytes() {
        if byte.is_ascii_alphanumeric() || b"/$-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[test]
fn a_reference_is_kept_once_however_many_schemas_are_around_it() {
    use serde_json::json;
    let (references, depth) = (2_000, 100);
    let inner = json!({"allOf": vec![json!({"$ref": "#/$defs/a"}); references]});
    let mut schema = (0..depth).fold(inner, |inner, _| json!({"if": inner}));
    schema["$defs"] = json!({"a": {"type": "integer"}});
    let mut found = Found::default();
    found.walk(&mut schema, String::new()).expect("a schema");
    found.follow(&mut schema).expect("references that lead somewhere");
    // One to each schema that judges the same, and one of each reference.
    assert_eq!(found.loops.count_steps(), depth + references + references);
    assert_eq!(found.loops.find(), None);
}
