//! Utility statements as they run: each is made known to [`guard`], and to a [`Listener`] those that need a database for themselves (only for
//! those who may run them: nobody else can send its workers away), COMMIT PREPARED, and what renames or
//! drops a role: its grants and registrations here are noted in the same transaction (in other databases upkeep notes it).
use super::compat::{self, Owned};
use super::error::entry::raising;
use super::error::failure::{Result, catch};
use super::{ffi, guard, left_behind};
use pgrx::pg_sys::{self, NodeTag, Oid, PlannedStmt};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Who wants to know of such statements.
pub struct Listener {
    /// The statement that is about to run needs that database for itself.
    pub needs_database: fn(Oid) -> Result<()>,
    /// A database is about to be created.
    pub creates_database: fn(),
    /// A prepared transaction was committed.
    pub committed_prepared: fn() -> Result<()>,
}

/// What notes that roles have other names, or are gone.
static AFTER_ROLES: OnceLock<fn() -> Result<()>> = OnceLock::new();

/// Once a process, from _PG_init.
pub fn after_roles_change(note: fn() -> Result<()>) {
    let _ = AFTER_ROLES.set(note);
}

static mut LISTENER: Option<&Listener> = None;

/// Sets the hook; once a process, from _PG_init.
pub fn init(listener: &'static Listener) {
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        // Without preload there are no workers to send away.
        LISTENER = Some(listener).filter(|_| pg_sys::process_shared_preload_libraries_in_progress);
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

unsafe extern "C-unwind" fn process_utility(
    statement: *mut PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the hook's own protocol; nothing is alive here that needs dropping when the statement raises. The statement may be gone
    // after it ran.
    unsafe {
        let node = (*statement).utilityStmt;
        let listener = LISTENER;
        let commits_prepared = commits_prepared(node);
        let changes_roles = changes_roles(node);
        raising("the start of a utility statement", || {
            listener.map_or(Ok(()), |listener| prepare(listener, node))?;
            left_behind::before(node)?;
            guard::refuse_alteration(node)
        });
        guard::during(node, || match PREVIOUS {
            Some(previous) => {
                previous(statement, text, read_only_tree, context, params, environment, receiver, completion)
            }
            None => ffi::standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                params,
                environment,
                receiver,
                completion,
            ),
        });
        if changes_roles && let Some(note) = AFTER_ROLES.get() {
            raising("a change of roles", || catch(|| ffi::CommandCounterIncrement()).and_then(|()| note()));
        }
        if let Some(listener) = listener.filter(|_| commits_prepared) {
            raising("COMMIT PREPARED", listener.committed_prepared);
        }
    }
}

/// DROP ROLE, and ALTER ROLE … RENAME.
///
/// # Safety
/// A node of a statement.
unsafe fn changes_roles(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag says what the node is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_DropRoleStmt => true,
            NodeTag::T_RenameStmt => (*node.cast::<pg_sys::RenameStmt>()).renameType == pg_sys::ObjectType::OBJECT_ROLE,
            _ => false,
        }
    }
}

/// # Safety
/// A node of a statement.
unsafe fn commits_prepared(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag says what each node is (nodes/parsenodes.h).
    unsafe {
        (*node).type_ == NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
    }
}

/// # Safety
/// A node of a statement that is about to run.
unsafe fn prepare(listener: &Listener, node: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: the tag says what each node is (nodes/parsenodes.h).
    unsafe {
        match (*node).type_ {
            NodeTag::T_DropdbStmt => empty_named(listener, (*node.cast::<pg_sys::DropdbStmt>()).dbname),
            NodeTag::T_AlterDatabaseStmt => {
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                match option(statement.options, c"tablespace") {
                    Some(_) => empty_named(listener, statement.dbname),
                    None => Ok(()),
                }
            }
            NodeTag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                if statement.renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    empty_named(listener, statement.subname)
                } else {
                    Ok(())
                }
            }
            NodeTag::T_CreatedbStmt => {
                (listener.creates_database)();
                let Some(template) = option((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template") else {
                    return Ok(());
                };
                let name = catch(|| ffi::defGetString(template))?;
                empty_named(listener, name)
            }
            NodeTag::T_DropStmt => {
                let statement = &*node.cast::<pg_sys::DropStmt>();
                if statement.removeType == pg_sys::ObjectType::OBJECT_EXTENSION
                    && guard::names_extension(statement.objects)
                {
                    empty_of_extension(listener)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }
}

/// The option of that name that has a value: `= DEFAULT` is one without.
///
/// # Safety
/// A list of DefElem.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    let is_it = |option: &pg_sys::DefElem| {
        // SAFETY: an option's name is a cstring.
        !option.arg.is_null() && unsafe { CStr::from_ptr(option.defname) } == name
    };
    // SAFETY: as the caller says.
    unsafe { ffi::members::<pg_sys::DefElem>(options).find(|option| is_it(&**option)) }
}

/// # Safety
/// A cstring.
unsafe fn empty_named(listener: &Listener, name: *const c_char) -> Result<()> {
    let found = catch(|| {
        // SAFETY: look-ups; the statement itself takes the lock and looks again.
        unsafe {
            let oid = ffi::get_database_oid(name, true);
            (oid != pg_sys::InvalidOid && may(|role| compat::owns(Owned::Database(oid), role))).then_some(oid)
        }
    })?;
    found.map_or(Ok(()), listener.needs_database)
}

fn empty_of_extension(listener: &Listener) -> Result<()> {
    let found = catch(|| {
        // SAFETY: look-ups, and a plain variable of this backend.
        unsafe {
            let extension = ffi::get_extension_oid(c"eventstream".as_ptr(), true);
            let may = extension != pg_sys::InvalidOid && may(|role| compat::owns(Owned::Extension(extension), role));
            may.then_some(pg_sys::MyDatabaseId)
        }
    })?;
    found.map_or(Ok(()), listener.needs_database)
}

/// # Safety
/// May raise.
unsafe fn may(owns: impl FnOnce(Oid) -> bool) -> bool {
    // SAFETY: as the caller says.
    unsafe { ffi::superuser() || owns(pg_sys::GetUserId()) }
}
