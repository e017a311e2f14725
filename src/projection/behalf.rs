//! On whose behalf a projection works: its registrant.
use crate::log::acting;
use crate::log::acting::Acting;
use crate::pg::error::failure::Result;
use crate::projection::projections::Projection;
use crate::shared::within;
use std::ffi::CString;
use std::rc::Rc;

/// What the projection is called in a CONTEXT.
pub fn what(projection: &Projection) -> CString {
    CString::new(format!("projection \"{}\"", projection.name)).unwrap_or_default()
}

/// Who acts while the projection's code runs.
pub fn acting(projection: &Projection) -> Rc<Acting> {
    Rc::new(Acting::handler(projection.registrant.role.clone(), &projection.name))
}

/// Runs the projection's code, inside of `as_registrant`: in the projection's tenant, whatever the session's is, and what it appends is
/// the registrant's.
pub fn on_behalf<T>(projection: &Projection, acting: &Rc<Acting>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    within::during(projection.tenant_id, &projection.tenant, || acting::during(acting, work))
}
