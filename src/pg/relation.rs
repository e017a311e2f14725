//! Relations and types, looked up by name in the schemas of the extension.
use super::error::failure::{Result, catch};
use super::{ffi, guard};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CStr;

/// A schema that belongs to the extension.
#[derive(Debug, Clone, Copy)]
pub struct Schema(Oid);

impl Schema {
    /// None where there is none of that name, or it is somebody else's.
    pub fn own(name: &CStr) -> Result<Option<Self>> {
        // SAFETY: look-ups by name.
        Ok(catch(|| unsafe { guard::own_schema(name) })?.map(Self))
    }

    /// The relation of that name; InvalidOid where there is none.
    pub fn relation(self, name: &CStr) -> Result<Oid> {
        // SAFETY: a look-up by name.
        catch(|| unsafe { ffi::get_relname_relid(name.as_ptr(), self.0) })
    }

    /// The composite type of that name, and its entry among the relations; InvalidOid where there is none.
    pub fn composite(self, name: &CStr) -> Result<(Oid, Oid)> {
        // SAFETY: look-ups by name.
        catch(|| unsafe {
            let of = ffi::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
                pg_sys::Anum_pg_type_oid as pg_sys::AttrNumber,
                Datum::from(name.as_ptr()),
                Datum::from(self.0),
                Datum::null(),
                Datum::null(),
            );
            (of, ffi::get_typ_typrelid(of))
        })
    }
}

/// Who owns a relation that is there.
pub fn owner(relation: Oid) -> Result<Oid> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: it raises where the relation is gone; its entry is read while it is open.
    catch(|| unsafe {
        let opened = ffi::relation_open(relation, lock);
        let owner = (*(*opened).rd_rel).relowner;
        ffi::relation_close(opened, lock);
        owner
    })
}

/// Whether a table has a row that is committed by now, or this transaction's own. Nobody is held to the answer: a SERIALIZABLE transaction does not
/// depend on it.
pub fn has_row(table: Oid) -> Result<bool> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: as systable_beginscan of access/index/genam.c, which takes any table; nothing of a row is looked at.
    catch(|| unsafe {
        let table = ffi::table_open(table, lock);
        let mut snapshot = pg_sys::SnapshotSelfData;
        let scan = ffi::systable_beginscan(table, pg_sys::InvalidOid, false, &mut snapshot, 0, std::ptr::null_mut());
        let is_found = !ffi::systable_getnext(scan).is_null();
        ffi::systable_endscan(scan);
        ffi::table_close(table, lock);
        is_found
    })
}

/// Whether nobody has ever written a row of the table, or truncated it since: who is writing one has made the page before the row is anywhere to be found.
pub fn is_without_page(table: Oid) -> Result<bool> {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: asks the file of a relation that is open.
    catch(|| unsafe {
        let opened = ffi::relation_open(table, lock);
        let pages = ffi::RelationGetNumberOfBlocksInFork(opened, pg_sys::ForkNumber::MAIN_FORKNUM);
        ffi::relation_close(opened, lock);
        pages == 0
    })
}

/// Whether a relation has columns of these types, and never had another.
pub fn has_columns(relation: Oid, types: &[Oid]) -> Result<bool> {
    // SAFETY: look-ups in a cache, which find no type of a column that was dropped.
    let is_of = |(place, of): (i16, Oid)| unsafe { ffi::get_atttype(relation, place) } == of;
    catch(|| (1..).zip(types.iter().copied().chain([pg_sys::InvalidOid])).all(is_of))
}
