//! A keyword of our own, which stands in each subschema (places.rs): making one ready spends of the tank (fuel.rs), and so does trying one, also where nothing
//! of the payload is looked at.
use super::fuel::spend;
use super::metered::{Metered, Seen};
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

/// What a subschema costs when it is made ready, beside the length of its place.
const MAKING: u64 = 100;

/// Makes the keyword of a subschema.
#[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value)] // as the library calls it
pub fn tank<'a>(
    _: &'a Map<String, Value>,
    _: &'a Value,
    place: Location,
) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>> {
    spend(MAKING + place.as_str().len() as u64);
    Ok(Box::new(Tank))
}

struct Tank;

impl<'i> Keyword<'i, Metered> for Tank {
    fn validate(&self, _: Seen<'i>) -> Result<(), ValidationError<'i>> {
        spend(1);
        Ok(())
    }

    fn is_valid(&self, _: Seen<'i>) -> bool {
        spend(1);
        true
    }
}
