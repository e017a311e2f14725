//! What happens to the objects of the extension: each one that is about to be dropped, altered or added to is shown to whoever
//! guards them, and so is each function, table, column or schema of a user's that is to go, to be renamed or to be of another type. PostgreSQL tells by
//! object_access_hook, which is asked on every route (DROP, DROP OWNED, CASCADE, ALTER EXTENSION); a sql_drop event trigger of the
//! extension would not be: it is gone with the extension. The library is loaded in time by the event trigger of sql/proof/guard.sql.
//! Let through unseen: our own statements, the scripts of the extension, pg_upgrade, and upkeep (VACUUM, REINDEX, CLUSTER, SET TABLESPACE …),
//! which makes, alters and drops relations of ours inside. Upkeep is judged by the innermost utility statement: what a function of a user's
//! does meanwhile (an index expression that ANALYZE evaluates) comes as a statement of its own.
mod catalog;
mod statement;

use super::compat::{self, Owned};
use super::error::entry::raising;
use super::error::failure::{Result, catch, finally};
use super::ffi;
use catalog::is_lasting_table;
use pgrx::pg_sys::{self, NodeTag, ObjectAccessType, Oid};
pub use statement::names_extension;
use statement::{Changed, Kind, kind};
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It goes, or is taken away from where we look for it.
    Remove,
    /// It becomes another, or something is added to it.
    Change,
}

/// A user's object that is to go, or to get another name.
#[derive(Debug, Clone, Copy)]
pub enum Users {
    Function(Oid),
    Schema(Oid),
    /// A table (0), or a column of one.
    Table(Oid, c_int),
    /// A constraint of a table.
    Constraint(Oid),
}

/// What the guards decide: an error is the refusal. `command` is the statement's tag, `object` PostgreSQL's description.
pub struct Guards {
    /// The tables that are asked.
    pub tables: &'static [&'static CStr],
    /// Whether the session has switched the guard off.
    pub is_off: fn() -> bool,
    pub ours: fn(act: Act, command: &str, object: &str) -> Result<()>,
    pub users: fn(object: Users, command: &str, description: &str) -> Result<()>,
}

#[derive(Clone, Copy)]
struct Statement {
    kind: Kind,
    /// PostgreSQL's constant.
    tag: *const c_char,
}

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

thread_local! {
    static GUARDS: Cell<Option<&'static Guards>> = const { Cell::new(None) };
    /// Whether a statement of our own is at work.
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
    /// The innermost utility statement that is running, and how many there are.
    static STATEMENT: Cell<Option<Statement>> = const { Cell::new(None) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Sets the hook; once a backend, from _PG_init.
pub fn init(guards: &'static Guards) {
    GUARDS.set(Some(guards));
    // SAFETY: _PG_init runs once a process, single-threaded; hooks are chained.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// Whose statements run, until it is dropped.
pub struct Whose(bool);

impl Drop for Whose {
    fn drop(&mut self) {
        IS_OWN.set(self.0);
    }
}

/// From here on, statements are ours.
pub fn own_work() -> Whose {
    Whose(IS_OWN.replace(true))
}

/// From here on, statements are a user's.
pub fn users_work() -> Whose {
    Whose(IS_OWN.replace(false))
}

/// Whether what runs may write our tables: a statement of our own, a script of the extension, or pg_upgrade.
pub fn is_own_work() -> bool {
    // SAFETY: plain variables of this backend; the look-up by name is one of a catalog.
    IS_OWN.get()
        || unsafe { pg_sys::IsBinaryUpgrade }
        || unsafe { pg_sys::creating_extension && is_extension(pg_sys::CurrentExtensionObject) }
}

/// # Safety
/// May raise.
unsafe fn is_extension(oid: Oid) -> bool {
    // SAFETY: a look-up.
    oid != pg_sys::InvalidOid && unsafe { ffi::get_extension_oid(c"eventstream".as_ptr(), true) } == oid
}

/// Runs a utility statement, and remembers meanwhile that it is the innermost one. It may span transactions (VACUUM, REINDEX CONCURRENTLY).
///
/// # Safety
/// A node of a statement; `run` only calls PostgreSQL and owns nothing.
pub unsafe fn during(node: *mut pg_sys::Node, run: impl FnOnce()) {
    // SAFETY: as the caller says.
    let now = unsafe { Statement::of(node) };
    let depth = DEPTH.get();
    let before = STATEMENT.replace(Some(now));
    DEPTH.set(depth + 1);
    finally(run, || {
        STATEMENT.set(if depth == 0 { None } else { before });
        DEPTH.set(depth);
    });
}

/// The statement that an event trigger is fired by, where the library was loaded too late to see it begin. Errors: ES051.
///
/// # Safety
/// Called by PostgreSQL as a function.
pub fn note_event(info: pg_sys::FunctionCallInfo) -> Result<()> {
    // SAFETY: EventTriggerData is what context points to where the node says so (commands/event_trigger.h).
    unsafe {
        let context = (*info).context;
        if DEPTH.get() == 0 && !context.is_null() && (*context).type_ == NodeTag::T_EventTriggerData {
            let node = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
            if !node.is_null() {
                STATEMENT.set(Some(Statement::of(node)));
                return refuse_alteration(node);
            }
        }
    }
    Ok(())
}

impl Statement {
    /// # Safety
    /// A node of a utility statement.
    unsafe fn of(node: *mut pg_sys::Node) -> Self {
        // SAFETY: as the caller says; tags are constants.
        unsafe { Self { kind: kind(node), tag: ffi::GetCommandTagName(ffi::CreateCommandTag(node)) } }
    }
}

/// Refuses to alter a relation of ours by what is no upkeep, before it is begun: PostgreSQL does not tell of all that ALTER TABLE, which may
/// name a view, a sequence or a row type too, does (SET UNLOGGED, row security, defaults). Errors: ES051.
///
/// # Safety
/// A node of a utility statement that is about to run.
pub unsafe fn refuse_alteration(node: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: the tag says what the node is (nodes/parsenodes.h); look-ups in catalogs, as the statement itself does without the right to it.
    unsafe {
        if (*node).type_ != NodeTag::T_AlterTableStmt {
            return Ok(());
        }
        let Some(guards) = GUARDS.get().filter(|guards| !(guards.is_off)()) else { return Ok(()) };
        let now = Statement::of(node);
        let described = catch(|| {
            if is_own_work() {
                return None;
            }
            let schemas = Schemas::look().filter(|schemas| schemas.are_whole())?;
            let named = (*node.cast::<pg_sys::AlterTableStmt>()).relation;
            let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
            let relation = ffi::RangeVarGetRelidExtended(named, 0, missing_ok, None, std::ptr::null_mut());
            let (class, object, part) = schemas.relation(relation)?;
            let passes = now.kind == Kind::Removal || now.kind == Kind::Upkeep && !is_view(class, object);
            // Whose it is not is refused by PostgreSQL, and learns nothing of the log.
            let is_refused = !passes && compat::owns(Owned::Relation(relation), pg_sys::GetUserId());
            is_refused.then(|| describe(class, object, part))
        })?;
        if let Some(described) = described {
            return (guards.ours)(Act::Change, &text_of(now.tag), &text_of(described));
        }
        for changed in statement::changed(node) {
            let found = catch(|| of_users(node.cast(), changed))?;
            found.map_or(Ok(()), |(user, described)| (guards.users)(user, &text_of(now.tag), &text_of(described)))?;
        }
        Ok(())
    }
}

/// What of a user's table a statement changes: a column of another type is another column to who writes it, and a key is what rows are written by.
///
/// # Safety
/// An ALTER TABLE, and what it changes. May raise.
unsafe fn of_users(statement: *mut pg_sys::AlterTableStmt, changed: Changed) -> Option<(Users, *const c_char)> {
    // SAFETY: as the caller says; look-ups in catalogs.
    unsafe {
        if is_own_work() || !Schemas::look()?.are_whole() {
            return None;
        }
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        let relation = ffi::RangeVarGetRelidExtended((*statement).relation, 0, missing_ok, None, std::ptr::null_mut());
        let is_theirs = relation != pg_sys::InvalidOid
            && is_lasting_table(relation)
            && compat::owns(Owned::Relation(relation), pg_sys::GetUserId());
        if !is_theirs {
            return None;
        }
        match changed {
            Changed::Type(column) => {
                let part = c_int::from(ffi::get_attnum(relation, column));
                (part > 0).then(|| (Users::Table(relation, part), describe(catalog::RELATION, relation, part)))
            }
            Changed::Constraint(name) => {
                let constraint = ffi::get_relation_constraint_oid(relation, name, true);
                (constraint != pg_sys::InvalidOid)
                    .then(|| (Users::Constraint(constraint), describe(catalog::CONSTRAINT, constraint, 0)))
            }
        }
    }
}

/// Whether it is a view: its options are its walls (security_barrier), so that none of them is upkeep.
///
/// # Safety
/// May raise.
unsafe fn is_view(class: Oid, object: Oid) -> bool {
    // SAFETY: a look-up in a cache.
    class == catalog::RELATION && unsafe { ffi::get_rel_relkind(object) } as u8 == pg_sys::RELKIND_VIEW
}

/// # Safety
/// A constant of PostgreSQL's, or a description in its memory, or NULL.
unsafe fn text_of<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: as the caller says.
    if text.is_null() { "an object".into() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() }
}

unsafe extern "C-unwind" fn on_access(
    access: ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    arg: *mut c_void,
) {
    // SAFETY: the hook's own protocol; nothing is alive here that needs dropping.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, part, arg);
        }
        if ![ObjectAccessType::OAT_DROP, ObjectAccessType::OAT_POST_ALTER, ObjectAccessType::OAT_POST_CREATE]
            .contains(&access)
        {
            return;
        }
        let statement = STATEMENT.get();
        let kind = statement.map_or(Kind::Other, |statement| statement.kind);
        raising("what happens to an object", || {
            if kind == Kind::Upkeep && !catch(|| is_view(class, object))? {
                return Ok(());
            }
            let Some(guards) = GUARDS.get().filter(|guards| !(guards.is_off)()) else { return Ok(()) };
            let act =
                if access == ObjectAccessType::OAT_DROP || kind == Kind::Removal { Act::Remove } else { Act::Change };
            let tag = statement.map_or(c"this command".as_ptr(), |statement| statement.tag);
            show(guards, access, (class, object, part), arg, act, kind, tag)
        });
    }
}

/// # Safety
/// The arguments of the hook.
unsafe fn show(
    guards: &Guards,
    access: ObjectAccessType::Type,
    (class, object, part): (Oid, Oid, c_int),
    arg: *mut c_void,
    act: Act,
    kind: Kind,
    tag: *const c_char,
) -> Result<()> {
    // SAFETY: look-ups in catalogs; what they return is in PostgreSQL's memory, or plain.
    let (found, user) = catch(|| unsafe {
        if is_own_work() {
            return (None, None);
        }
        let Some(schemas) = Schemas::look().filter(|schemas| schemas.are_whole()) else { return (None, None) };
        let other = if class == catalog::INHERITANCE && !arg.is_null() {
            (*arg.cast::<pg_sys::ObjectAccessPostAlter>()).auxiliary_id
        } else {
            pg_sys::InvalidOid
        };
        let is_new = access == ObjectAccessType::OAT_POST_CREATE;
        let found = schemas.owned(class, object, part, is_new).or_else(|| schemas.relation(other));
        // DROP EXTENSION meets its parts in some order: what is refused is the whole.
        let described = found.map(|(class, object, part)| match own_extension(class, object) {
            Some(extension) if kind == Kind::DropsExtension => describe(catalog::EXTENSION, extension, 0),
            _ => describe(class, object, part),
        });
        // Quietly go temporary objects alone, and what is made of them: kept, they would be in the way of every later session of that place.
        let dropped = arg.cast::<pg_sys::ObjectAccessDrop>().as_ref().filter(|_| access == ObjectAccessType::OAT_DROP);
        let is_swept = dropped.is_some_and(|drop| drop.dropflags as u32 & pg_sys::PERFORM_DELETION_QUIETLY != 0);
        let is_users = act == Act::Remove && found.is_none() && kind != Kind::DropsExtension && !is_swept;
        let user = match class {
            catalog::FUNCTION if is_users => Some(Users::Function(object)),
            catalog::RELATION if is_users && is_lasting_table(object) => Some(Users::Table(object, part)),
            // What is in a schema that is dropped is dropped first.
            catalog::SCHEMA if is_users && access != ObjectAccessType::OAT_DROP => Some(Users::Schema(object)),
            _ => None,
        };
        (described, user.map(|user| (user, describe(class, object, part))))
    })?;
    // SAFETY: constants of PostgreSQL's, and descriptions in its memory, or NULL.
    unsafe {
        if let Some(described) = found {
            (guards.ours)(act, &text_of(tag), &text_of(described))?;
        }
        user.map_or(Ok(()), |(user, described)| (guards.users)(user, &text_of(tag), &text_of(described)))
    }
}

/// # Safety
/// May raise.
unsafe fn describe(class: Oid, object: Oid, part: c_int) -> *const c_char {
    let address = pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: part };
    // SAFETY: a look-up; NULL where it is gone.
    unsafe { ffi::getObjectDescription(&address, true) }
}

type Address = (Oid, Oid, c_int);

/// The two schemas of the extension.
#[derive(Clone, Copy)]
struct Schemas {
    hidden: Oid,
    shown: Oid,
}

impl Schemas {
    /// None where the extension is not there, or goes.
    ///
    /// # Safety
    /// May raise, as all of these.
    unsafe fn look() -> Option<Self> {
        // SAFETY: look-ups in a cache.
        unsafe {
            let hidden = own_schema(c"_eventstream")?;
            let shown = own_schema(c"eventstream")?;
            Some(Self { hidden, shown })
        }
    }

    /// Whether the tables that are asked are still there: not while the extension goes, whose first object was let go.
    unsafe fn are_whole(self) -> bool {
        // SAFETY: look-ups in a cache.
        let is_there =
            |name: &&CStr| unsafe { ffi::get_relname_relid(name.as_ptr(), self.hidden) } != pg_sys::InvalidOid;
        GUARDS.get().is_some_and(|guards| guards.tables.iter().all(is_there))
    }

    /// What of ours is concerned, to be described: None where it is a user's.
    unsafe fn owned(self, class: Oid, object: Oid, part: c_int, is_new: bool) -> Option<Address> {
        let same = Some((class, object, part));
        // SAFETY: as the caller says.
        unsafe {
            match class {
                // A new relation is nobody's yet: an index that an operator adds, or the table of a dump.
                catalog::RELATION if is_new && part == 0 => None,
                catalog::RELATION if is_new => self.relation(object),
                catalog::RELATION => self.relation(object).and(same),
                catalog::INHERITANCE => self.relation(object),
                catalog::FUNCTION => (ffi::get_func_namespace(object) == self.hidden || is_member(class, object))
                    .then_some((class, object, part)),
                catalog::SCHEMA if is_member(class, object) => same,
                catalog::EXTENSION if is_extension(object) => same,
                catalog::EVENT_TRIGGER if is_member(class, object) => same,
                catalog::TYPE if is_new => None,
                catalog::TYPE if is_member(class, object) => same,
                catalog::TYPE
                | catalog::TRIGGER
                | catalog::CONSTRAINT
                | catalog::RULE
                | catalog::POLICY
                | catalog::COLUMN_DEFAULT => {
                    let relation = self.relation(relation_of(class, object));
                    if is_new { relation } else { relation.and(same) }
                }
                _ => None,
            }
        }
    }

    unsafe fn relation(self, relation: Oid) -> Option<Address> {
        if relation == pg_sys::InvalidOid {
            return None;
        }
        // SAFETY: as the caller says.
        let schema = unsafe { ffi::get_rel_namespace(relation) };
        let class = catalog::RELATION;
        // SAFETY: as above. Of a composite type it is the type that belongs to the extension.
        let is_members =
            || unsafe { is_member(class, relation) || is_member(catalog::TYPE, ffi::get_rel_type_id(relation)) };
        (schema == self.hidden || schema == self.shown && is_members()).then_some((class, relation, 0))
    }
}

/// The schema of that name, where the extension has made it: anybody who may create schemas can make one that looks like ours in a database
/// without the extension, and what we read there we would believe.
///
/// # Safety
/// May raise.
pub unsafe fn own_schema(name: &CStr) -> Option<Oid> {
    // SAFETY: look-ups; the first is in a cache, and finds nothing where the extension never was.
    unsafe {
        let schema = ffi::get_namespace_oid(name.as_ptr(), true);
        (schema != pg_sys::InvalidOid && is_member(catalog::SCHEMA, schema)).then_some(schema)
    }
}

/// Whether this database has no log.
pub fn is_absent() -> Result<bool> {
    // SAFETY: look-ups.
    catch(|| unsafe { own_schema(c"_eventstream").is_none() })
}

/// # Safety
/// May raise.
unsafe fn is_member(class: Oid, object: Oid) -> bool {
    // SAFETY: as the caller says.
    unsafe { is_extension(ffi::getExtensionOfObject(class, object)) }
}

/// The extension, where the object is a member.
///
/// # Safety
/// May raise.
unsafe fn own_extension(class: Oid, object: Oid) -> Option<Oid> {
    // SAFETY: as the caller says.
    unsafe { is_member(class, object).then(|| ffi::getExtensionOfObject(class, object)) }
}

/// The relation that a part of one belongs to: PostgreSQL notes that it goes with it. What it refers to besides is a normal dependency.
///
/// # Safety
/// May raise.
unsafe fn relation_of(class: Oid, object: Oid) -> Oid {
    // SAFETY: as systable_beginscan of access/index/genam.c, also of what this command has just noted; GETSTRUCT of
    // access/htup_details.h: the columns of pg_depend are fixed.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let table = ffi::table_open(catalog::DEPENDENCIES, lock);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        ffi::ScanKeyInit(&mut keys[0], 1, equal, Oid::from(pg_sys::F_OIDEQ), class.into());
        ffi::ScanKeyInit(&mut keys[1], 2, equal, Oid::from(pg_sys::F_OIDEQ), object.into());
        let mut snapshot = pg_sys::SnapshotSelfData;
        let scan = ffi::systable_beginscan(
            table,
            catalog::DEPENDENCIES_BY_DEPENDER,
            true,
            &mut snapshot,
            2,
            keys.as_mut_ptr(),
        );
        let mut found = pg_sys::InvalidOid;
        loop {
            let row = ffi::systable_getnext(scan);
            if row.is_null() {
                break;
            }
            let header = (*row).t_data;
            let row = &*header.cast::<u8>().add(usize::from((*header).t_hoff)).cast::<Dependency>();
            if row.on_class == catalog::RELATION && b"aiPS".contains(&row.kind) {
                found = row.on_object;
                break;
            }
        }
        ffi::systable_endscan(scan);
        ffi::table_close(table, lock);
        found
    }
}

/// A row of pg_depend.
#[repr(C)]
struct Dependency {
    class: Oid,
    object: Oid,
    part: i32,
    on_class: Oid,
    on_object: Oid,
    on_part: i32,
    kind: u8,
}
