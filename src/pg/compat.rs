//! Every difference between the supported PostgreSQL versions (15 to 18). `pre_pg17` and the like are set by build.rs: a newer
//! major version takes the newest branch.
use super::error::failure::{Result, catch};
use super::ffi::compared;
use pgrx::pg_sys::{self, Datum};
#[cfg(not(pre_pg16))]
use std::ffi::c_int;
use std::ffi::{CStr, c_char};

/// A fixed search path (pg_catalog only), until it is popped or the (sub)transaction ends.
#[derive(Clone, Copy)]
pub struct SearchPath {
    #[cfg(not(pre_pg17))]
    level: std::ffi::c_int,
}

#[cfg(pre_pg17)]
mod before_17 {
    use pgrx::pg_sys;
    crate::pg::ffi::compared! {
        pub fn PushOverrideSearchPath(path: *mut pg_sys::OverrideSearchPath);
        pub fn PopOverrideSearchPath();
    }
}

#[cfg(not(pre_pg17))]
mod since_17 {
    crate::pg::ffi::compared! {
        pub fn RestrictSearchPath();
    }
}

impl SearchPath {
    /// # Safety
    /// May raise: call it inside `catch`. PushOverrideSearchPath is gone since PostgreSQL 17.
    pub unsafe fn push() -> Self {
        #[cfg(pre_pg17)]
        // SAFETY: the struct is copied.
        unsafe {
            let mut path = pg_sys::OverrideSearchPath { addCatalog: true, ..Default::default() };
            before_17::PushOverrideSearchPath(&mut path);
            Self {}
        }
        #[cfg(not(pre_pg17))]
        // SAFETY: a nesting level of settings of our own.
        unsafe {
            let level = super::ffi::NewGUCNestLevel();
            since_17::RestrictSearchPath();
            Self { level }
        }
    }

    /// # Safety
    /// May raise: call it inside `catch`, once, in the (sub)transaction of `push`.
    pub unsafe fn pop(self) {
        #[cfg(pre_pg17)]
        // SAFETY: pops what `push` pushed.
        unsafe {
            before_17::PopOverrideSearchPath();
        }
        #[cfg(not(pre_pg17))]
        // SAFETY: ends the level that `push` began.
        unsafe {
            super::ffi::AtEOXact_GUC(true, self.level);
        }
    }
}

compared! {
    #[cfg(pre_pg16)]
    fn ExecInsertIndexTuples(
        target: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        state: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    #[cfg(not(pre_pg16))]
    fn ExecInsertIndexTuples(
        target: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        state: *mut pg_sys::EState,
        update: bool,
        no_duplicate_error: bool,
        conflict: *mut bool,
        arbiters: *mut pg_sys::List,
        only_summarizing: bool,
    ) -> *mut pg_sys::List;
}

/// Inserts the index entries of a row that was just inserted. PostgreSQL 16 added an argument, which concerns updates.
///
/// # Safety
/// May raise: call it inside `catch`. The indexes are open and the slot holds the row with its place in the table.
pub unsafe fn insert_index_tuples(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let none = std::ptr::null_mut();
    // SAFETY: as the caller says; no conflict is looked for, so nothing is written there.
    unsafe {
        #[cfg(pre_pg16)]
        ExecInsertIndexTuples(target, slot, state, false, false, none, std::ptr::null_mut());
        #[cfg(not(pre_pg16))]
        ExecInsertIndexTuples(target, slot, state, false, false, none, std::ptr::null_mut(), false);
    }
}

/// Closes the indexes that ExecOpenIndices opened. Up to 16 their locks are kept until the end of the transaction: whoever appends again takes them
/// without the shared lock table, and the table's own lock keeps out whoever they would.
///
/// # Safety
/// May raise: call it inside `catch`. The indexes are open.
pub unsafe fn close_indices(target: *mut pg_sys::ResultRelInfo) {
    // SAFETY: as the caller says; the array has so many places.
    unsafe {
        #[cfg(pre_pg17)]
        for place in 0..(*target).ri_NumIndices as usize {
            let index = *(*target).ri_IndexRelationDescs.add(place);
            if !index.is_null() {
                super::ffi::index_close(index, pg_sys::NoLock as i32);
            }
        }
        // Later ones let each index tidy up after its inserts.
        #[cfg(not(pre_pg17))]
        super::ffi::ExecCloseIndices(target);
    }
}

mod scans {
    use pgrx::pg_sys;
    crate::pg::ffi::compared! {
        #[cfg(pre_pg18)]
        pub fn index_beginscan(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        nkeys: i32,
        norderbys: i32,
    ) -> pg_sys::IndexScanDesc;
        #[cfg(not(pre_pg18))]
        pub fn index_beginscan(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        instrument: *mut pg_sys::IndexScanInstrumentation,
        nkeys: i32,
        norderbys: i32,
    ) -> pg_sys::IndexScanDesc;
    }
}

/// Begins a scan with `nkeys` conditions. PostgreSQL 18 added an argument, for EXPLAIN.
///
/// # Safety
/// May raise: call it inside `catch`. Table and index are open; the snapshot stays pushed or registered until the scan's end.
pub unsafe fn index_beginscan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    nkeys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(pre_pg18)]
        return scans::index_beginscan(table, index, snapshot, nkeys, 0);
        #[cfg(not(pre_pg18))]
        return scans::index_beginscan(table, index, snapshot, std::ptr::null_mut(), nkeys, 0);
    }
}

compared! {
    #[cfg(pre_pg16)]
    fn pg_proc_aclcheck(function: pg_sys::Oid, role: pg_sys::Oid, mode: pg_sys::AclMode) -> pg_sys::AclResult::Type;
    #[cfg(not(pre_pg16))]
    fn object_aclcheck(
        class: pg_sys::Oid,
        object: pg_sys::Oid,
        role: pg_sys::Oid,
        mode: pg_sys::AclMode,
    ) -> pg_sys::AclResult::Type;
}

compared! {
    #[cfg(pre_pg16)]
    fn is_member_of_role(member: pg_sys::Oid, role: pg_sys::Oid) -> bool;
    #[cfg(not(pre_pg16))]
    fn member_can_set_role(member: pg_sys::Oid, role: pg_sys::Oid) -> bool;
}

/// Whether SET ROLE lets the one become the other.
///
/// # Safety
/// May raise: call it inside `catch`.
pub unsafe fn may_become(member: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups.
    unsafe {
        #[cfg(pre_pg16)]
        return is_member_of_role(member, role);
        #[cfg(not(pre_pg16))]
        return member_can_set_role(member, role);
    }
}

/// Whether the role may call the function. PostgreSQL 16 made one function of those for each kind of object.
///
/// # Safety
/// May raise: call it inside `catch`.
pub unsafe fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a syscache look-up.
    unsafe {
        #[cfg(pre_pg16)]
        return pg_proc_aclcheck(function, role, mode) == pg_sys::AclResult::ACLCHECK_OK;
        #[cfg(not(pre_pg16))]
        return object_aclcheck(pg_sys::ProcedureRelationId, function, role, mode) == pg_sys::AclResult::ACLCHECK_OK;
    }
}

/// This backend's number, from 0, below [`backend_slots`].
pub fn backend_number() -> usize {
    #[cfg(pre_pg17)]
    // SAFETY: set before any of our functions can run; counts from 1.
    unsafe {
        (pg_sys::MyBackendId - 1) as usize
    }
    #[cfg(not(pre_pg17))]
    // SAFETY: set before any of our functions can run; counts from 0.
    unsafe {
        pg_sys::MyProcNumber as usize
    }
}

mod rows {
    use pgrx::pg_sys::{Datum, HeapTuple, TupleDesc, Tuplestorestate};

    #[cfg(pre_pg17)]
    type Const<T> = *mut T;
    #[cfg(not(pre_pg17))]
    type Const<T> = *const T;

    crate::pg::ffi::compared! {
        pub fn heap_form_tuple(desc: TupleDesc, values: Const<Datum>, nulls: Const<bool>) -> HeapTuple;
        pub fn tuplestore_putvalues(store: *mut Tuplestorestate, desc: TupleDesc, values: Const<Datum>, nulls: Const<bool>);
    }
}

/// A row of these values, which it copies. PostgreSQL says so since 17.
///
/// # Safety
/// May raise: call it inside `catch`. One value and one flag for each column of the descriptor.
pub unsafe fn form_row(desc: pg_sys::TupleDesc, values: *const Datum, nulls: *const bool) -> pg_sys::HeapTuple {
    // SAFETY: as the caller says.
    unsafe { rows::heap_form_tuple(desc, values.cast_mut(), nulls.cast_mut()) }
}

/// Puts such a row into a store.
///
/// # Safety
/// As [`form_row`].
pub unsafe fn put_row(
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
    values: *const Datum,
    nulls: *const bool,
) {
    // SAFETY: as the caller says.
    unsafe { rows::tuplestore_putvalues(store, desc, values.cast_mut(), nulls.cast_mut()) }
}

/// Whether that process is a backend of this server now, and the one of that number.
pub fn is_backend(pid: i32, number: usize) -> Result<bool> {
    catch(|| {
        // SAFETY: a look at the backends, under their lock; the place of one stays in shared memory when it ends.
        unsafe {
            let process = super::ffi::BackendPidGetProc(pid);
            if process.is_null() {
                return false;
            }
            #[cfg(pre_pg17)]
            let found = (*process).backendId - 1;
            #[cfg(not(pre_pg17))]
            let found = (*process).vxid.procNumber;
            usize::try_from(found) == Ok(number)
        }
    })
}

/// How many backends there can be; final when shared memory is requested.
pub fn backend_slots() -> usize {
    // SAFETY: computed before shmem_request_hook runs (InitializeMaxBackends of postinit.c).
    unsafe { pg_sys::MaxBackends as usize }
}

/// Whether a column, from 0, is passed by value. PostgreSQL 18 keeps what is needed of each column in a compact form.
///
/// # Safety
/// The descriptor has that column.
pub unsafe fn is_by_value(desc: pg_sys::TupleDesc, column: usize) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(pre_pg18)]
        let columns = (*desc).attrs.as_slice(column + 1);
        #[cfg(not(pre_pg18))]
        let columns = (*desc).compact_attrs.as_slice(column + 1);
        columns[column].attbyval
    }
}

compared! {
    #[cfg(pre_pg16)]
    fn pg_database_ownercheck(database: pg_sys::Oid, role: pg_sys::Oid) -> bool;
    #[cfg(pre_pg16)]
    fn pg_extension_ownercheck(extension: pg_sys::Oid, role: pg_sys::Oid) -> bool;
    #[cfg(pre_pg16)]
    fn pg_class_ownercheck(relation: pg_sys::Oid, role: pg_sys::Oid) -> bool;
    #[cfg(not(pre_pg16))]
    fn object_ownercheck(class: pg_sys::Oid, object: pg_sys::Oid, role: pg_sys::Oid) -> bool;
}

/// What has an owner.
#[derive(Debug, Clone, Copy)]
pub enum Owned {
    Database(pg_sys::Oid),
    Extension(pg_sys::Oid),
    Relation(pg_sys::Oid),
}

/// Whether the role has the rights of the owner. PostgreSQL 16 made one function of those for each kind of object.
///
/// # Safety
/// May raise: call it inside `catch`.
pub unsafe fn owns(owned: Owned, role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up.
    #[cfg(pre_pg16)]
    return unsafe {
        match owned {
            Owned::Database(oid) => pg_database_ownercheck(oid, role),
            Owned::Extension(oid) => pg_extension_ownercheck(oid, role),
            Owned::Relation(oid) => pg_class_ownercheck(oid, role),
        }
    };
    #[cfg(not(pre_pg16))]
    {
        let (class, object) = match owned {
            Owned::Database(oid) => (pg_sys::DatabaseRelationId, oid),
            Owned::Extension(oid) => (pg_sys::ExtensionRelationId, oid),
            Owned::Relation(oid) => (pg_sys::RelationRelationId, oid),
        };
        // SAFETY: a syscache look-up.
        unsafe { object_ownercheck(class, object, role) }
    }
}

/// Sets what a signal does. The function has another name since PostgreSQL 18.
///
/// # Safety
/// The handler does only what a signal handler may.
pub unsafe fn handle_signal(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(pre_pg18)]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(not(pre_pg18))]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// The settings that could end a worker's transaction, or keep it from writing, whatever the database's own settings say.
pub const TIMEOUTS: &[&std::ffi::CStr] = &[
    c"statement_timeout",
    c"lock_timeout",
    c"idle_in_transaction_session_timeout",
    c"idle_session_timeout",
    #[cfg(not(pre_pg17))]
    c"transaction_timeout",
];

/// utils/timeout.h (TimeoutId): the first of those that a library may take. The number is asked for, and another is given where it is taken.
pub const USER_TIMEOUT: std::ffi::c_int = if cfg!(pre_pg17) { 12 } else { 13 };

/// The record of a setting, NULL where there is none of that name (as PostgreSQL compares names, without regard to case).
///
/// # Safety
/// May raise before PostgreSQL 16, out of memory.
pub unsafe fn find_setting(name: &CStr) -> *mut pg_sys::config_generic {
    #[cfg(pre_pg16)]
    // SAFETY: guc.c keeps the records sorted by name.
    unsafe {
        let lower = |name: &CStr| name.to_bytes().to_ascii_lowercase();
        let records = std::slice::from_raw_parts(pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions() as usize);
        let wanted = lower(name);
        let found = records.binary_search_by(|record| lower(CStr::from_ptr((**record).name)).cmp(&wanted));
        found.map_or(std::ptr::null_mut(), |place| records[place])
    }
    #[cfg(not(pre_pg16))]
    // SAFETY: makes no placeholder, and raises nothing.
    unsafe {
        pg_sys::find_option(name.as_ptr(), false, true, 0)
    }
}

/// A copy of a text that guc.c may keep as a setting's value; NULL where there is no memory. PostgreSQL 16 gave these a memory context.
///
/// # Safety
/// guc.c frees it.
pub unsafe fn setting_text(text: &CStr) -> *mut c_char {
    #[cfg(pre_pg16)]
    // SAFETY: the C library's.
    unsafe {
        strdup(text.as_ptr())
    }
    #[cfg(not(pre_pg16))]
    // SAFETY: at this level it raises nothing.
    unsafe {
        pg_sys::guc_strdup(pg_sys::LOG as c_int, text.as_ptr())
    }
}

/// # Safety
/// Of a text that guc.c made, or [`setting_text`].
pub unsafe fn free_setting_text(text: *mut c_char) {
    #[cfg(pre_pg16)]
    // SAFETY: as the caller says.
    unsafe {
        free(text.cast());
    }
    #[cfg(not(pre_pg16))]
    // SAFETY: as the caller says.
    unsafe {
        pg_sys::guc_free(text.cast());
    }
}

#[cfg(pre_pg16)]
unsafe extern "C" {
    fn strdup(text: *const c_char) -> *mut c_char;
    fn free(memory: *mut std::ffi::c_void);
}

compared! {
    #[cfg(pre_pg16)]
    fn set_ps_display(activity: *const c_char);
    #[cfg(not(pre_pg16))]
    fn set_ps_display_with_len(activity: *const c_char, length: usize);
}

/// Shows a text behind this process's name, in ps. May raise. set_ps_display is an inline function since PostgreSQL 16.
pub fn show_in_title(text: &std::ffi::CStr) {
    // SAFETY: the text is copied.
    unsafe {
        #[cfg(pre_pg16)]
        set_ps_display(text.as_ptr());
        #[cfg(not(pre_pg16))]
        set_ps_display_with_len(text.as_ptr(), text.to_bytes().len());
    }
}

/// The view that a subquery after rewriting stands for; none where it is no view. Before PostgreSQL 16 the first relation in it says so, OLD of
/// the view's rule.
///
/// # Safety
/// A subquery in FROM of a query after rewriting.
pub unsafe fn view_of(entry: *const pg_sys::RangeTblEntry) -> pg_sys::Oid {
    // SAFETY: as the caller says.
    unsafe {
        #[cfg(pre_pg16)]
        {
            let relations = (*(*entry).subquery).rtable;
            if relations.is_null() || (*relations).length == 0 {
                return pg_sys::InvalidOid;
            }
            let first = (*(*relations).elements).ptr_value.cast::<pg_sys::RangeTblEntry>();
            let is_view =
                (*first).rtekind == pg_sys::RTEKind::RTE_RELATION && (*first).relkind as u8 == pg_sys::RELKIND_VIEW;
            if is_view { (*first).relid } else { pg_sys::InvalidOid }
        }
        #[cfg(not(pre_pg16))]
        (*entry).relid
    }
}
