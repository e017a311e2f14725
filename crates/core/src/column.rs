//! Typed columns over states: which ones es_create_state_table and es_create_temporal_view may be asked for. Their SQL types are PostgreSQL's to know.
use crate::error::Error;
use crate::options::ColumnElement;
use crate::quote::shown;
use crate::rules::Pointer;
use std::collections::HashSet;

/// What has the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A state table.
    Table,
    /// A temporal view, which has one column more.
    View,
}

impl Over {
    /// A relation has 1600 columns at most: these beside ours.
    #[must_use]
    pub fn most(self) -> usize {
        match self {
            Self::Table => 1598,
            Self::View => 1597,
        }
    }
}

/// The most bytes of a name in PostgreSQL.
const MOST_NAME_BYTES: usize = 63;

fn wrong(place: &str, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { argument: place.into(), reason: reason.into(), hint: None }
}

/// Where the column's value is in a state, step by step, if it can stand beside those before it, whose names are in `names`.
///
/// # Errors
/// ES005, at a key of the element.
pub fn steps<'a>(column: &ColumnElement<'a>, over: Over, names: &mut HashSet<&'a str>) -> Result<Vec<String>, Error> {
    let bytes = column.name.len();
    if !(1..=MOST_NAME_BYTES).contains(&bytes) {
        return Err(wrong("name", format!("must have 1 to {MOST_NAME_BYTES} bytes, not {bytes}")));
    }
    match (column.name, over) {
        ("stream" | "version", _) => {
            return Err(wrong("name", "must not be stream or version: these two columns are always there"));
        }
        ("problem", Over::View) => return Err(wrong("name", "must not be problem: the view's last column is")),
        _ => {}
    }
    if !names.insert(column.name) {
        return Err(wrong("name", format!("must be another than those before: {} comes again", shown(column.name))));
    }
    let path = Pointer::parse(column.path).map_err(|reason| Error::InvalidArgument {
        argument: "path".into(),
        reason: format!("{reason}, not {}", shown(column.path)),
        hint: Some("A JSON Pointer into the state, such as /balance.".into()),
    })?;
    Ok(path.tokens().map(|token| token.as_str().to_owned()).collect())
}
