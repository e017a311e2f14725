//! The databases of this server, and whether the extension is in this one.
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// A database of this server.
#[derive(Debug, Clone)]
pub struct Listed {
    pub oid: Oid,
    pub name: String,
    /// Whether a worker may connect: not a template, connections are allowed, and it is whole.
    pub is_open: bool,
}

/// datconnlimit of a database whose DROP was interrupted: DATCONNLIMIT_INVALID_DB, which the headers of 15 have since 15.4.
const INVALID: i32 = -2;

/// All of them, in a transaction; the process need not be connected to one.
pub fn list() -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    let table = catch(|| {
        // SAFETY: a catalog that all databases share, which is found without a connection to one.
        unsafe { ffi::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32) }
    })?;
    // SAFETY: the table is open; a sequential scan under the catalog's own snapshot.
    let scan = catch(|| unsafe {
        let none = std::ptr::null_mut();
        ffi::systable_beginscan(table, pg_sys::InvalidOid, false, none, 0, std::ptr::null_mut())
    })?;
    loop {
        // SAFETY: the scan is open; the row is used before the next one is fetched.
        let tuple = catch(|| unsafe { ffi::systable_getnext(scan) })?;
        if tuple.is_null() {
            break;
        }
        // SAFETY: GETSTRUCT of htup_details.h: the fixed columns come first.
        unsafe {
            let header = (*tuple).t_data;
            let row = &*header.cast::<u8>().add(usize::from((*header).t_hoff)).cast::<pg_sys::FormData_pg_database>();
            found.push(Listed {
                oid: row.oid,
                name: CStr::from_ptr(row.datname.data.as_ptr()).to_string_lossy().into_owned(),
                is_open: row.datallowconn && !row.datistemplate && row.datconnlimit != INVALID,
            });
        }
    }
    // SAFETY: both are open.
    catch(|| unsafe {
        ffi::systable_endscan(scan);
        ffi::table_close(table, pg_sys::AccessShareLock as i32);
    })?;
    Ok(found)
}

/// The name that this process's database has now.
pub fn own_name() -> Result<String> {
    // SAFETY: a look-up in this transaction; the database exists while this process is connected.
    let name = catch(|| unsafe { ffi::get_database_name(pg_sys::MyDatabaseId) })?;
    if name.is_null() {
        return Ok(String::new());
    }
    // SAFETY: a cstring in the transaction's memory.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// Whether the extension is in this database.
pub fn has_extension() -> Result<bool> {
    // SAFETY: a look-up in this transaction.
    catch(|| unsafe { ffi::get_extension_oid(c"eventstream".as_ptr(), true) != pg_sys::InvalidOid })
}
