//! What may be recorded in a tenant, as this backend knows it: whether it was closed, its declared event types, what is protected of events, the rules of its categories, its closed periods, and its invariants. The door in (src/command/write.rs) asks it of what is new.
//!
//! Promises: whoever asks behind the tenant's gate is answered by what had been committed when the gate was entered, also in a session that has known
//! another answer before; where a tenant has no rules, that costs one look in a map.
use super::category::{self, Categories};
use super::closed;
use super::covered;
use super::declared::{self, Declared};
use super::invariants::{self, Invariants};
use crate::access::{self, Ended};
use crate::log::judge::Rules;
use crate::log::request::Request;
use crate::log::retry::Residuals;
use crate::pg::error::failure::Result;
use crate::present::protected::{self, Protected};
use crate::shared::catalog;
use crate::shared::known::Known;
use eventstream_core::command::boundary::Found;
use eventstream_core::command::period::Periods;
use std::cell::RefCell;
use std::rc::Rc;

pub struct Ruling {
    ended: Option<Ended>,
    pub declared: Rc<Declared>,
    pub categories: Categories,
    periods: Periods,
    pub invariants: Invariants,
    pub protected: Rc<Protected>,
}

thread_local! {
    static RULING: RefCell<Known<i64, Rc<Ruling>>> = RefCell::default();
}

/// Of a tenant; reserved streams have none.
pub fn of(tenant_id: i64) -> Result<Rc<Ruling>> {
    Known::of(&RULING, catalog::rules_generation, tenant_id, || {
        Ok(Rc::new(Ruling {
            ended: access::ended(tenant_id)?,
            declared: Rc::new(declared::load(tenant_id)?),
            categories: category::load(tenant_id)?,
            periods: closed::load(tenant_id)?,
            invariants: invariants::load(tenant_id)?,
            protected: protected::of(tenant_id)?,
        }))
    })
}

impl Ruling {
    /// Errors: ES045.
    pub fn must_be_open(&self) -> Result<()> {
        self.ended.as_ref().map_or(Ok(()), |ended| Err(ended.refusal()?))
    }
}

impl Rules for Ruling {
    fn judge(&self, request: &mut Request, found: Found) -> Result<()> {
        self.must_be_open()?;
        // First, so that nobody repeats what looks like personal data.
        self.categories.judge(&self.declared, request, found)?;
        self.declared.judge(request)?;
        covered::judge(&self.protected, request)?;
        closed::judge(&self.periods, request)
    }

    fn residuals(&self) -> &dyn Residuals {
        &*self.protected
    }
}
