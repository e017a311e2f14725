//! What an event did to a state, for people: an object with one member for each place that changed, by its JSON Pointer
//! (RFC 6901), each with what was there (`from`) and what is there now (`to`); a place that is new has no `from`, one that is gone
//! no `to`:
//!
//! ```text
//! {"balance": 1.00, "tags": ["a"]} → {"balance": 3.50, "tags": ["a", "b"], "open": true}
//! {"/balance": {"from": 1.00, "to": 3.50}, "/tags/1": {"to": "b"}, "/open": {"to": true}}
//! ```
//!
//! Objects are compared member by member. An array that only grew has a member for each element that came; any other change of an
//! array shows the whole array. Values are the same where their text is: 1.0 and 1.00 are not. The object is empty exactly where
//! both states are the same. Beyond the bounds below a change is shown as a whole, so that the size of what is shown follows
//! that of the states.
use crate::pg::error::failure::Result;
use crate::pg::jsonb::parts::{Members, ObjectBuilder, Part};
use crate::pg::jsonb::{Jsonb, Shape};

/// Objects and arrays are looked into down to this level, and where their own pointer has at most so many bytes.
const MOST_LEVELS: usize = 64;
const MOST_POINTER_BYTES: usize = 1024;
/// Where more places changed, the whole state is shown.
const MOST_PLACES: usize = 1000;

/// A place that changed.
struct Change<'a> {
    pointer: String,
    from: Option<Part<'a>>,
    to: Option<Part<'a>>,
}

/// Two values in the same place that are to be compared.
struct Pair<'a> {
    pointer: String,
    level: usize,
    from: Part<'a>,
    to: Part<'a>,
}

/// The changes from one state to the next, in the current memory context.
pub fn changes<'made>(from: Jsonb, to: Jsonb) -> Result<Jsonb<'made>> {
    let (from, to) = (Part::all_of(from)?, Part::all_of(to)?);
    let found = match places(from, to)? {
        Some(found) => found,
        None => vec![Change { pointer: String::new(), from: Some(from), to: Some(to) }],
    };
    let mut object = ObjectBuilder::begin()?;
    for change in &found {
        object.begin_member(&change.pointer)?;
        if let Some(from) = change.from {
            object.put("from", from)?;
        }
        if let Some(to) = change.to {
            object.put("to", to)?;
        }
        object.end_member()?;
    }
    object.finish()
}

/// The places that changed; None where there are too many.
fn places<'a>(from: Part<'a>, to: Part<'a>) -> Result<Option<Vec<Change<'a>>>> {
    let mut found = Vec::new();
    let mut open = vec![Pair { pointer: String::new(), level: 0, from, to }];
    while let Some(pair) = open.pop() {
        if pair.from.is_same(&pair.to) {
            continue;
        }
        let may_look_inside = pair.level < MOST_LEVELS && pair.pointer.len() <= MOST_POINTER_BYTES;
        let is_within = match (pair.from.shape(), pair.to.shape()) {
            (Shape::Object, Shape::Object) if may_look_inside => members(&pair, &mut open, &mut found)?,
            (Shape::Array, Shape::Array) if may_look_inside => appended(&pair, &mut found)?,
            _ => false,
        };
        if !is_within {
            found.push(Change { pointer: pair.pointer, from: Some(pair.from), to: Some(pair.to) });
        }
        if found.len() + open.len() > MOST_PLACES {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// The pointer of a member.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Compares two objects: members of one only are changes, those of both are still to be compared if they differ.
fn members<'a>(pair: &Pair<'a>, open: &mut Vec<Pair<'a>>, found: &mut Vec<Change<'a>>) -> Result<bool> {
    let (mut old_ones, mut new_ones) = (pair.from.members()?, pair.to.members()?);
    let (mut old, mut new) = (old_ones.next()?, new_ones.next()?);
    // The order in which PostgreSQL keeps the members of an object (lengthCompareJsonbStringValue of jsonb_util.c).
    let rank = |key: &'a str| (key.len(), key.as_bytes());
    while found.len() + open.len() <= MOST_PLACES {
        match (old, new) {
            (None, None) => break,
            (Some((key, from)), other) if other.is_none_or(|(other, _)| rank(key) < rank(other)) => {
                found.push(Change { pointer: below(&pair.pointer, key), from: Some(from), to: None });
                old = old_ones.next()?;
            }
            (other, Some((key, to))) if other.is_none_or(|(other, _)| rank(key) < rank(other)) => {
                found.push(Change { pointer: below(&pair.pointer, key), from: None, to: Some(to) });
                new = new_ones.next()?;
            }
            (Some((key, from)), Some((_, to))) => {
                if !from.is_same(&to) {
                    open.push(Pair { pointer: below(&pair.pointer, key), level: pair.level + 1, from, to });
                }
                (old, new) = (old_ones.next()?, new_ones.next()?);
            }
            _ => break,
        }
    }
    Ok(true)
}

/// The elements that came, if the array only grew.
fn appended<'a>(pair: &Pair<'a>, found: &mut Vec<Change<'a>>) -> Result<bool> {
    let (mut old_ones, mut new_ones) = (pair.from.members()?, pair.to.members()?);
    let mut place = 0_usize;
    while let Some((_, from)) = old_ones.next()? {
        match new_ones.next()? {
            Some((_, to)) if from.is_same(&to) => place += 1,
            _ => return Ok(false),
        }
    }
    append(&pair.pointer, place, &mut new_ones, found)?;
    Ok(true)
}

fn append<'a>(pointer: &str, first: usize, rest: &mut Members<'a>, found: &mut Vec<Change<'a>>) -> Result<()> {
    let mut place = first;
    while let Some((_, to)) = rest.next()? {
        found.push(Change { pointer: format!("{pointer}/{place}"), from: None, to: Some(to) });
        place += 1;
        if found.len() > MOST_PLACES {
            break;
        }
    }
    Ok(())
}
