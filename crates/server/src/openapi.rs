//! The description of the REST interface. It is a file of its own, which tests hold against the router.
use crate::Failure;

const DOCUMENT: &str = include_str!("../openapi.json");

/// OpenAPI 3.1, as JSON.
pub fn document() -> Result<&'static str, Failure> {
    Ok(DOCUMENT)
}
