//! The columns of state tables and temporal views, as es_create_state_table and es_create_temporal_view are given them: read here, and nowhere else.
use crate::pg::error::failure::{Failure, Result, invalid};
use crate::pg::jsonb::{Jsonb, Shape};
use eventstream_core::column::{self, Over};
use eventstream_core::options::ColumnElement;
use std::collections::HashSet;

/// A column, whose type is not looked at.
pub struct Column<'a> {
    pub name: &'a str,
    pub type_name: &'a str,
    pub path: &'a str,
    /// The path's.
    pub steps: Vec<String>,
}

/// Errors: ES005.
pub fn read(columns: Jsonb<'_>, over: Over) -> Result<Vec<Column<'_>>> {
    if columns.shape() != Shape::Array || columns.len() == 0 {
        return Err(invalid("columns", r#"must be an array of {"name", "type", "path"}, and not empty"#));
    }
    if columns.len() > over.most() {
        return Err(invalid("columns", format!("must be at most {}, not {}", over.most(), columns.len())));
    }
    let (mut found, mut names) = (Vec::with_capacity(columns.len()), HashSet::new());
    columns.each(|_, element| {
        let place = found.len();
        let column = element.read().and_then(|given: ColumnElement| {
            let steps = column::steps(&given, over, &mut names)?;
            let ColumnElement { name, type_name, path } = given;
            Ok(Column { name, type_name, path, steps })
        });
        found.push(column.map_err(|failure: Failure| failure.within(|| format!("columns[{place}]")))?);
        Ok(())
    })?;
    Ok(found)
}
