//! Writing a state table's rows around those that cannot be written: a value that a column cannot take, a row that a constraint or a trigger of
//! the owner's refuses. Only where the one statement for all rows has failed.
use super::behalf;
use super::state_table::StateRow;
use super::state_table::StateTable;
use super::state_table::plan;
use crate::pg::error::failure::Caught;
use crate::pg::error::failure::Result;
use crate::pg::function::call;
use crate::pg::function::call::Code;
use crate::pg::function::call::Position;
use crate::pg::process::session::as_current;
use crate::pg::process::session::by_index;
use crate::pg::process::subtransaction::attempt;
use crate::pg::query::plan::View;
use crate::pg::value::datum::from_text;
use crate::pg::value::datum::text_array_of;
use crate::state::fit::MISFIT;
use crate::state::fit::Misfit;
use pgrx::pg_sys::JSONBOID;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::TEXTARRAYOID;
use pgrx::pg_sys::TEXTOID;
use std::ffi::CString;

/// What fails of another row's fault as well: it may be written once that one is.
const COLLISIONS: [&str; 3] = ["23503", "23505", "23P01"];

const MISFIT_OF: &[Oid] = &[TEXTOID, JSONBOID];
const REMOVE: &[Oid] = &[TEXTARRAYOID];

impl StateTable<'_> {
    /// Writes those of the rows that can be written, by halves: the places of the others, and why. Errors: what is not a row's own fault.
    ///
    /// `before` is called before each statement.
    pub fn write_around(&self, rows: &[StateRow], before: &dyn Fn()) -> Result<Vec<(usize, Caught)>> {
        let (mut left, mut parts) = (Vec::new(), std::iter::once(0..rows.len()).collect::<Vec<_>>());
        while let Some(part) = parts.pop() {
            if let Some(caught) = self.try_to_write(&rows[part.clone()], before)? {
                if part.len() == 1 {
                    left.push((part.start, caught));
                } else {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
            }
        }
        // A value may go from one stream to another: whoever takes it can be written once it is given up.
        loop {
            let (mut still, was) = (Vec::new(), left.len());
            for (place, caught) in left {
                if COLLISIONS.contains(&caught.sqlstate.as_str()) {
                    let again = self.try_to_write(std::slice::from_ref(&rows[place]), before)?;
                    still.extend(again.map(|caught| (place, caught)));
                } else {
                    still.push((place, caught));
                }
            }
            left = still;
            if left.len() == was {
                return Ok(left);
            }
        }
    }

    /// Whether a row that failed so is worth another try when others are written.
    pub fn is_collision(caught: &Caught) -> bool {
        COLLISIONS.contains(&caught.sqlstate.as_str())
    }

    /// Why they are not written, where one of them is at fault.
    fn try_to_write(&self, rows: &[StateRow], before: &dyn Fn()) -> Result<Option<Caught>> {
        before();
        // The definition's own faults are no row's.
        self.check()?;
        match attempt(|| self.write(rows))? {
            Ok(()) => Ok(None),
            Err(caught) if caught.is_of_event => Ok(Some(caught)),
            // What every row would meet is met again, and goes up as it was raised.
            Err(_) => self.write(rows).map(|()| None),
        }
    }

    /// What of the row the table does not take, without a word of what is in it: for those who may not read it.
    pub fn outline(&self, row: &StateRow, caught: &Caught) -> Result<String> {
        let misfit =
            attempt(|| self.misfit(row))?.unwrap_or_default().filter(|misfit| misfit.sqlstate == caught.sqlstate);
        Ok(match (misfit, &caught.constraint, &caught.column) {
            (Some(misfit), ..) => misfit.what,
            (None, Some(constraint), _) => {
                format!("constraint \"{constraint}\" refuses it (SQLSTATE {})", caught.sqlstate)
            }
            (None, None, Some(column)) => format!("column \"{column}\" refuses it (SQLSTATE {})", caught.sqlstate),
            (None, None, None) => format!("SQLSTATE {}", caught.sqlstate),
        })
    }

    /// The first column that cannot take what the state has for it, and the SQLSTATE; asked as the registrant, whose types they are.
    fn misfit(&self, row: &StateRow) -> Result<Option<Misfit>> {
        let registrant = &self.projection.registrant;
        let Some(role) = registrant.existing()? else { return Ok(None) };
        let args = [Some(from_text(&self.table.columns)?), Some(row.state.view().datum())];
        let statement = CString::new(MISFIT).unwrap_or_default();
        let plan = plan(role, &statement, MISFIT_OF)?;
        let what = behalf::what(self.projection);
        let at = Position::global(&what);
        call::as_registrant(role, &registrant.search_path, Code::Handler, &at, || {
            as_current(|db| plan.first(db, View::Latest, &args, Misfit::read))
        })
        .map(Option::flatten)
    }

    /// Removes the rows of streams whose states cannot be written: of how many. A row that something of the owner's keeps stays as it was.
    pub fn remove(&self, streams: &[String]) -> Result<u64> {
        if streams.is_empty() {
            return Ok(0);
        }
        let remove = |streams: &[String]| {
            let args = [Some(text_array_of(streams)?)];
            attempt(|| by_index(|| self.run(|made| &made.remove, REMOVE, &args)))
        };
        if let Ok(removed) = remove(streams)? {
            return Ok(removed);
        }
        let mut removed = 0;
        for stream in streams {
            removed += match remove(std::slice::from_ref(stream))? {
                Ok(removed) => removed,
                Err(caught) if caught.is_of_event => 0,
                // What every row would meet goes up as it was raised.
                Err(_) => {
                    self.run(|made| &made.remove, REMOVE, &[Some(text_array_of(std::slice::from_ref(stream))?)])?
                }
            };
        }
        Ok(removed)
    }
}
