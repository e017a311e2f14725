//! What a session leaves behind for whoever comes next, in the session or as the same role: cursors WITH HOLD, settings and passwords of roles, settings of the server, default privileges, prepared transactions, large objects.
//! Whoever must agree is asked before.
use super::error::entry::raising;
use super::error::failure::Result;
use super::ffi;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// A cursor WITH HOLD.
    HeldCursor,
    /// What does that, as it is called.
    Lasting(&'static str),
}

static ASK: OnceLock<fn(Left) -> Result<()>> = OnceLock::new();
static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// Sets the hook; once a process, from _PG_init.
pub fn init(ask: fn(Left) -> Result<()>) {
    let _ = ASK.set(ask);
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// A utility statement is about to run.
///
/// # Safety
/// A node of a statement.
pub unsafe fn before(node: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: as the caller says.
    match (ASK.get(), unsafe { of(node) }) {
        (Some(ask), Some(left)) => ask(left),
        _ => Ok(()),
    }
}

/// # Safety
/// A node of a statement.
unsafe fn of(node: *mut pg_sys::Node) -> Option<Left> {
    // SAFETY: the tag says what the node is (nodes/parsenodes.h); a plain variable of this backend.
    unsafe {
        match (*node).type_ {
            NodeTag::T_DeclareCursorStmt => {
                let options = (*node.cast::<pg_sys::DeclareCursorStmt>()).options;
                (options & pg_sys::CURSOR_OPT_HOLD as i32 != 0).then_some(Left::HeldCursor)
            }
            NodeTag::T_TransactionStmt => {
                let kind = (*node.cast::<pg_sys::TransactionStmt>()).kind;
                // After an error it only rolls back.
                (kind == pg_sys::TransactionStmtKind::TRANS_STMT_PREPARE && !pg_sys::IsAbortedTransactionBlockState())
                    .then_some(Left::Lasting("PREPARE TRANSACTION"))
            }
            NodeTag::T_AlterRoleStmt | NodeTag::T_AlterRoleSetStmt => Some(Left::Lasting("ALTER ROLE")),
            NodeTag::T_AlterSystemStmt => Some(Left::Lasting("ALTER SYSTEM")),
            NodeTag::T_GrantStmt
                if (*node.cast::<pg_sys::GrantStmt>()).objtype == pg_sys::ObjectType::OBJECT_PARAMETER_ACL =>
            {
                Some(Left::Lasting("GRANT and REVOKE of a parameter"))
            }
            NodeTag::T_AlterDefaultPrivilegesStmt => Some(Left::Lasting("ALTER DEFAULT PRIVILEGES")),
            NodeTag::T_DropOwnedStmt => Some(Left::Lasting("DROP OWNED")),
            NodeTag::T_ReassignOwnedStmt => Some(Left::Lasting("REASSIGN OWNED")),
            NodeTag::T_GrantRoleStmt => Some(Left::Lasting("GRANT and REVOKE of a role")),
            _ => None,
        }
    }
}

unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: as objectaccess.c calls the hook; nothing is alive here that needs dropping when it raises.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_POST_CREATE
            && class == ffi::LargeObjectRelationId
            && let Some(ask) = ASK.get()
        {
            raising("a new large object", || ask(Left::Lasting("a large object")));
        }
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, part, argument);
        }
    }
}
