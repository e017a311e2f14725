//! The query of an address: its parameters by name, each at most once but for lists, none that is not known. So a misspelt one is an error, and not left out in silence.
use crate::problem::Problem;
use eventstream_client::Json;
use percent_encoding::percent_decode_str;
use std::str::FromStr;

/// What is asked for in an address.
pub struct Query {
    given: Vec<(String, String)>,
}

impl Query {
    /// Of the raw query; `known` are the names that the path takes, besides `numbers`.
    pub fn of(raw: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut given: Vec<(String, String)> = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if name != "numbers" && !known.contains(&name.as_str()) {
                let known =
                    known.iter().chain(&["numbers"]).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
                return Err(Problem::bad_request(format!(
                    "the query parameter \"{name}\" is not known here; known are {known}"
                )));
            }
            given.push((name, value));
        }
        Ok(Self { given })
    }

    /// All values of a name.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        let found: Vec<_> =
            self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect();
        (!found.is_empty()).then_some(found)
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut found = self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Problem::bad_request(format!("the query parameter \"{name}\" was given twice"))),
            (only, None) => Ok(only),
        }
    }

    pub fn required(&self, name: &str) -> Result<&str, Problem> {
        self.text(name)?.ok_or_else(|| Problem::bad_request(format!("the query parameter \"{name}\" is missing")))
    }

    pub fn parsed<T: FromStr>(&self, name: &str, form: &str) -> Result<Option<T>, Problem> {
        let wrong =
            |text: &str| Problem::bad_request(format!("the query parameter \"{name}\" must be {form}, not \"{text}\""));
        self.text(name)?.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.parsed(name, "a whole number")
    }

    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// A moment, with its zone.
    pub fn moment(&self, name: &str) -> Result<Option<String>, Problem> {
        moment(self.text(name)?).map_err(|text| {
            Problem::bad_request(format!(
                "the query parameter \"{name}\" must be a moment with its zone (2026-11-03T17:00:00Z), not \"{text}\""
            ))
        })
    }

    /// Whether numbers are wanted as strings.
    pub fn numbers_as_strings(&self) -> Result<bool, Problem> {
        match self.text("numbers")? {
            None | Some("number") => Ok(false),
            Some("string") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!("numbers must be number or string, not \"{other}\""))),
        }
    }
}

/// A moment as PostgreSQL takes it, if it has a date, a time and a zone.
fn moment(text: Option<&str>) -> Result<Option<String>, &str> {
    let Some(text) = text else { return Ok(None) };
    // A plus that was not encoded came as a blank.
    let whole = text.replace(' ', "+");
    whole.parse::<eventstream_client::Timestamp>().map(|moment| Some(moment.to_string())).map_err(|_| text)
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    percent_decode_str(&text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Problem::bad_request("the query of the address is not UTF-8"))
}

/// A body that is one JSON document.
pub fn document(body: &[u8]) -> Result<Json, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    Json::parse_text(text).map_err(|cause| Problem::bad_request(format!("the body is no JSON document: {cause}")))
}
