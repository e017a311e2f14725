//! Whether a state fits the columns of a temporal view, which are cast from its text: asked before the view's own casts, which could say neither
//! which stream it is nor how many there are. Errors: those of the casts.
use crate::pg::error::failure::Result;
use crate::pg::jsonb::Stored;
use crate::pg::process::session::Planning;
use crate::pg::process::session::as_caller;
use crate::pg::query::plan::Plan;
use crate::pg::query::plan::View;
use crate::pg::query::row::Row;
use crate::pg::value::datum::from_text;
use crate::shared::session::as_owner;
use eventstream_core::error::Error;
use pgrx::pg_sys::JSONBOID;
use pgrx::pg_sys::TEXTOID;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The first column of a list that cannot take what a state has for it; read by [`Misfit::read`].
pub const MISFIT: &str = "select m.column_name, m.type_name, m.value_kind, m.error_state, m.error_message from eventstream.misfit($1::pg_catalog.jsonb, $2) m";

/// So many lists of columns a backend keeps.
const MOST_KEPT: usize = 64;

thread_local! {
    static CASTS: Plan = const { Plan::new(
        "select string_agg(c.expression, ', ' order by c.place) filter (where c.expression like 'cast(%') \
         from eventstream.column_expressions($1::jsonb) c",
        &[TEXTOID],
    ) };
    static NAME: Plan = const { Plan::new(MISFIT, &[TEXTOID, JSONBOID]) };
    /// By their lists.
    static KEPT: RefCell<HashMap<String, Option<Rc<Plan>>>> = RefCell::default();
}

/// A column that cannot take what a state has for it.
pub struct Misfit {
    /// Which, and what kind of value it is, without the value.
    pub what: String,
    pub sqlstate: String,
    pub message: String,
}

impl Misfit {
    pub fn read(row: &Row) -> Result<Option<Self>> {
        let Some(column) = row.text_opt(0)?.map(str::to_owned) else { return Ok(None) };
        let what = format!("column \"{column}\" ({}) cannot take {}", row.text(1)?, row.text(2)?);
        Ok(Some(Self { what, sqlstate: row.text(3)?.to_owned(), message: row.text(4)?.to_owned() }))
    }
}

/// A view's columns, as es_create_temporal_view was given them.
pub struct Columns<'a> {
    list: &'a str,
    /// None: they take whatever there is.
    casts: Option<Rc<Plan>>,
}

impl<'a> Columns<'a> {
    pub fn of(list: &'a str) -> Result<Self> {
        if let Some(casts) = KEPT.with_borrow(|kept| kept.get(list).cloned()) {
            return Ok(Self { list, casts });
        }
        let args = [Some(from_text(list)?)];
        let found = as_owner(Planning::ByIndex, |db, _| {
            CASTS.with(|plan| plan.first(db, View::Latest, &args, |row| Ok(row.text_opt(0)?.map(str::to_owned))))
        })?;
        let statement = found.flatten().map(|casts| format!("select {casts} from (select $1) t (state)"));
        let casts = statement.map(|statement| Rc::new(Plan::made(statement, &[JSONBOID])));
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= MOST_KEPT {
                kept.clear();
            }
            kept.insert(list.to_owned(), casts.clone());
        });
        Ok(Self { list, casts })
    }

    /// Makes the casts, as the caller, whose view it is.
    pub fn take(&self, state: &Stored) -> Result<()> {
        let Some(casts) = &self.casts else { return Ok(()) };
        as_caller(|db| casts.first(db, View::Caller, &[Some(state.view().datum())], |_| Ok(()))).map(drop)
    }

    /// Which of them it is that [`Columns::take`] failed on.
    pub fn misfit(&self, state: &Stored) -> Result<Misfit> {
        let args = [Some(from_text(self.list)?), Some(state.view().datum())];
        let found = as_caller(|db| NAME.with(|plan| plan.first(db, View::Caller, &args, Misfit::read)))?;
        found.flatten().ok_or_else(|| Error::Internal { what: "a cast failed once and not again".into() }.into())
    }
}
