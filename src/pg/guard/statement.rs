//! What a utility statement is to the guard.
use crate::pg::ffi;
use pgrx::pg_sys::{self, AlterTableType, NodeTag, ObjectType};
use std::ffi::{CStr, c_char};

/// What a utility statement is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Upkeep,
    /// It takes away what it alters: DETACH PARTITION, ALTER EXTENSION … DROP, SET SCHEMA, RENAME.
    Removal,
    /// DROP EXTENSION eventstream: functions that folds use may go along.
    DropsExtension,
    Other,
}

/// # Safety
/// A node of a utility statement.
pub unsafe fn kind(node: *mut pg_sys::Node) -> Kind {
    // SAFETY: the tag says what each node is (nodes/parsenodes.h).
    unsafe {
        match (*node).type_ {
            NodeTag::T_VacuumStmt
            | NodeTag::T_ReindexStmt
            | NodeTag::T_ClusterStmt
            | NodeTag::T_AlterTableMoveAllStmt => Kind::Upkeep,
            NodeTag::T_AlterTableStmt => {
                let statement = &*node.cast::<pg_sys::AlterTableStmt>();
                let kind = kind_of_commands(statement.cmds);
                // A view's options are its walls (security_barrier).
                let keeps = [ObjectType::OBJECT_TABLE, ObjectType::OBJECT_INDEX].contains(&statement.objtype);
                if kind == Kind::Upkeep && !keeps { Kind::Other } else { kind }
            }
            NodeTag::T_AlterExtensionContentsStmt | NodeTag::T_RenameStmt | NodeTag::T_AlterObjectSchemaStmt => {
                Kind::Removal
            }
            NodeTag::T_DropStmt => {
                let statement = &*node.cast::<pg_sys::DropStmt>();
                let is_it = statement.removeType == ObjectType::OBJECT_EXTENSION && names_extension(statement.objects);
                if is_it { Kind::DropsExtension } else { Kind::Other }
            }
            _ => Kind::Other,
        }
    }
}

/// What takes a partition away, and what leaves a table's contents and rules as they are.
const DETACHING: [AlterTableType::Type; 2] =
    [AlterTableType::AT_DetachPartition, AlterTableType::AT_DetachPartitionFinalize];
const KEEPING: [AlterTableType::Type; 10] = [
    AlterTableType::AT_SetTableSpace,
    AlterTableType::AT_SetRelOptions,
    AlterTableType::AT_ResetRelOptions,
    AlterTableType::AT_SetStatistics,
    AlterTableType::AT_SetOptions,
    AlterTableType::AT_SetStorage,
    AlterTableType::AT_SetCompression,
    AlterTableType::AT_ReplicaIdentity,
    AlterTableType::AT_ClusterOn,
    AlterTableType::AT_DropCluster,
];

/// # Safety
/// The list of commands of an ALTER TABLE or ALTER INDEX.
unsafe fn kind_of_commands(commands: *mut pg_sys::List) -> Kind {
    let mut kind = Kind::Upkeep;
    // SAFETY: as the caller says.
    for command in unsafe { ffi::members::<pg_sys::AlterTableCmd>(commands) } {
        // SAFETY: as above.
        let command = unsafe { (*command).subtype };
        if DETACHING.contains(&command) {
            return Kind::Removal;
        }
        if !KEEPING.contains(&command) {
            kind = Kind::Other;
        }
    }
    kind
}

/// # Safety
/// A list of String nodes, as DROP EXTENSION has.
pub unsafe fn names_extension(objects: *mut pg_sys::List) -> bool {
    // SAFETY: as the caller says.
    unsafe { ffi::members::<pg_sys::String>(objects).any(|name| CStr::from_ptr((*name).sval) == c"eventstream") }
}

/// What of its table an ALTER TABLE changes, where PostgreSQL would not tell in time.
#[derive(Clone, Copy)]
pub enum Changed {
    /// The column of that name gets another type.
    Type(*const c_char),
    /// The constraint of that name goes.
    Constraint(*const c_char),
}

/// # Safety
/// A node of an ALTER TABLE.
pub unsafe fn changed(node: *mut pg_sys::Node) -> impl Iterator<Item = Changed> {
    // SAFETY: as the caller says; commands of these kinds have a name.
    unsafe {
        ffi::members::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds).filter_map(|command| {
            let name = (*command).name.cast_const();
            match (*command).subtype {
                AlterTableType::AT_AlterColumnType => Some(Changed::Type(name)),
                AlterTableType::AT_DropConstraint => Some(Changed::Constraint(name)),
                _ => None,
            }
        })
    }
}
