//! Facts about this server, session and role, and the few things that change them.
use crate::pg::error::failure::{Result, catch};
use crate::pg::value::{datum, input};
use crate::pg::{compat, ffi};
use eventstream_core::error::Error;
use eventstream_core::undecided::Undecided;
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// Microseconds since 2000-01-01 UTC, by the server's clock.
pub fn clock() -> i64 {
    // SAFETY: gettimeofday.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Of this process.
pub fn pid() -> i32 {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::MyProcPid }
}

/// max_worker_processes; final once shared memory is asked for.
pub fn worker_processes() -> usize {
    // SAFETY: a plain variable.
    unsafe { pg_sys::max_worker_processes as usize }
}

pub fn is_standby() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

pub fn is_read_only_transaction() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether every statement of this transaction sees what the first one saw: REPEATABLE READ, SERIALIZABLE.
pub fn keeps_its_snapshot() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

pub fn is_serializable() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

thread_local! {
    /// Whose code may only read, and what to do.
    static ONLY_READS: Cell<Option<(&'static str, &'static str)>> = const { Cell::new(None) };
}

/// What runs until this is dropped calls no function of ours that writes.
pub struct OnlyReading(Option<(&'static str, &'static str)>);

impl OnlyReading {
    /// `who`: "a decider"; `hint`: what it does instead.
    pub fn begin(who: &'static str, hint: &'static str) -> Self {
        Self(ONLY_READS.replace(Some((who, hint))))
    }
}

impl Drop for OnlyReading {
    fn drop(&mut self) {
        ONLY_READS.set(self.0);
    }
}

/// 0A000 where what runs may only read.
pub fn must_not_only_read(call: &CStr) -> Result<()> {
    let Some((who, hint)) = ONLY_READS.get() else { return Ok(()) };
    Err(Error::FeatureNotSupported {
        what: format!("{} is not for {who}: it may only read", call.to_string_lossy()),
        hint: Some(hint.into()),
    }
    .into())
}

/// ES009 on a standby, 25006 in a read-only transaction, 0A000 where what runs may only read.
pub fn must_be_writable(call: &CStr) -> Result<()> {
    must_not_only_read(call)?;
    must_be_primary(call)?;
    let call = call.as_ptr();
    // SAFETY: raises, or does nothing.
    catch(|| unsafe { ffi::PreventCommandIfReadOnly(call) })
}

/// ES009 on a standby.
pub fn must_be_primary(call: &CStr) -> Result<()> {
    if is_standby() {
        return Err(Error::PrimaryRequired { what: call.to_string_lossy().into_owned() }.into());
    }
    Ok(())
}

/// The role whose rights are checked: the effective one, before we become the owner.
pub fn current_role() -> Oid {
    // SAFETY: reads the session's state.
    unsafe { pg_sys::GetUserId() }
}

/// The role that logged in: SET ROLE and SECURITY DEFINER do not hide it.
pub fn session_role() -> Oid {
    // SAFETY: reads the session's state.
    unsafe { pg_sys::GetSessionUserId() }
}

/// The role that SET ROLE has chosen, else the session's: SECURITY DEFINER does not hide it.
pub fn outer_role() -> Oid {
    // SAFETY: reads the session's state.
    unsafe { pg_sys::GetOuterUserId() }
}

pub fn role_name(role: Oid) -> Result<String> {
    // SAFETY: a syscache look-up; raises where the role was dropped meanwhile.
    catch(|| unsafe { CStr::from_ptr(ffi::GetUserNameFromId(role, false)) })
        .map(|name| name.to_string_lossy().into_owned())
}

/// Superusers and whoever has the owner's rights.
pub fn may_everything(role: Oid, owner: Oid) -> Result<bool> {
    // SAFETY: syscache look-ups.
    catch(|| unsafe { ffi::superuser_arg(role) || ffi::has_privs_of_role(role, owner) })
}

/// Whether code that `owner` may change may run with the rights of `role`: its own, a superuser's, or that of a role that has the rights of `role`
/// anyway, as then everybody has who may act as the owner. Not that of a group which `role` is in: its other members may change it, too. (Who has
/// a superuser's rights as a member is no superuser.)
pub fn may_run_code_of(role: Oid, owner: Oid) -> Result<bool> {
    // SAFETY: syscache look-ups.
    catch(|| unsafe {
        role == owner || ffi::superuser_arg(owner) || !ffi::superuser_arg(role) && ffi::has_privs_of_role(owner, role)
    })
}

/// The role of that name, if the current one may become it by SET ROLE. Errors: 42704, 42501.
pub fn role_to_become(name: &str) -> Result<Oid> {
    let name = CString::new(name).map_err(|_| Error::Internal { what: "a name holds a zero byte".into() })?;
    let (name, current) = (name.as_ptr(), current_role());
    // SAFETY: syscache look-ups.
    let (role, may) = catch(|| unsafe {
        let role = ffi::get_role_oid(name, false);
        (role, compat::may_become(current, role))
    })?;
    if may {
        return Ok(role);
    }
    Err(Error::Undecided(Box::new(Undecided::OtherRole { role: role_name(current)?, other: role_name(role)? })).into())
}

/// Whether there is a role of that oid.
pub fn role_exists(role: Oid) -> Result<bool> {
    let (cache, column) =
        (pg_sys::SysCacheIdentifier::AUTHOID as i32, pg_sys::Anum_pg_authid_oid as pg_sys::AttrNumber);
    let (key, none) = (pg_sys::Datum::from(role), pg_sys::Datum::null());
    // SAFETY: a syscache look-up.
    let found = catch(|| unsafe { ffi::GetSysCacheOid(cache, column, key, none, none, none) })?;
    Ok(found != pg_sys::InvalidOid)
}

/// Whether the current role is a member of pg_monitor, as superusers are of every role.
pub fn may_monitor() -> Result<bool> {
    let role = current_role();
    // SAFETY: a syscache look-up.
    catch(|| unsafe { ffi::has_privs_of_role(role, Oid::from(pg_sys::ROLE_PG_MONITOR)) })
}

/// Random bytes that nobody can guess, drawn from the system in larger portions; what was handed out is forgotten.
pub fn random_bytes() -> Result<[u8; 16]> {
    const PORTION: usize = 64 * 16;
    thread_local! {
        // Filled by a backend for itself, after the fork: no two processes share a portion.
        static PORTION_LEFT: RefCell<([u8; PORTION], usize)> = const { RefCell::new(([0; PORTION], 0)) };
    }
    PORTION_LEFT.with_borrow_mut(|(portion, left)| {
        if *left == 0 {
            // SAFETY: fills the portion, or says that it could not.
            if !unsafe { pg_sys::pg_strong_random(portion.as_mut_ptr().cast(), PORTION) } {
                return Err(Error::Internal { what: "the system gives no random bytes".into() }.into());
            }
            *left = PORTION;
        }
        *left -= 16;
        let mut bytes = [0; 16];
        bytes.swap_with_slice(&mut portion[*left..*left + 16]);
        Ok(bytes)
    })
}

/// The oid of the current database.
pub fn database() -> Oid {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::MyDatabaseId }
}

pub fn system_identifier() -> Result<i64> {
    // SAFETY: reads the control file's copy.
    catch(|| unsafe { ffi::GetSystemIdentifier() as i64 })
}

pub fn timeline() -> Result<i32> {
    let standby = is_standby();
    catch(|| {
        // SAFETY: each of the two is for its own state of the server.
        unsafe {
            if standby {
                let mut timeline = 0;
                ffi::GetXLogReplayRecPtr(&mut timeline);
                timeline as i32
            } else {
                ffi::GetWALInsertionTimeLine() as i32
            }
        }
    })
}

/// Whether what is set until the end of the transaction may be forgotten as soon as this call's statement is over: it is a client's own, outside of
/// a transaction block, by itself or the first of a pipeline. Within a function or procedure of a user's the next of its statements sees it.
pub fn may_end_with_statement(info: pg_sys::FunctionCallInfo) -> Result<bool> {
    // In a pipeline more of the same transaction may follow.
    const PIPELINING: i32 = pg_sys::XACT_FLAGS_PIPELINING as i32;
    catch(|| {
        // SAFETY: PostgreSQL's state of this backend. A query that a client has sent is that of the active portal; what a function runs has an
        // executor's memory of its own.
        unsafe {
            if pg_sys::IsTransactionBlock() || pg_sys::IsSubTransaction() || pg_sys::MyXactFlags & PIPELINING != 0 {
                return false;
            }
            let (portal, function) = (pg_sys::ActivePortal, (*info).flinfo);
            if portal.is_null() || function.is_null() || (*portal).queryDesc.is_null() {
                return false;
            }
            let state = (*(*portal).queryDesc).estate;
            !state.is_null() && (*state).es_query_cxt == (*function).fn_mcxt
        }
    })
}

/// `set local NAME = VALUE`, with the session's own rights.
pub fn set_locally(name: &CStr, value: &str) -> Result<()> {
    let value = CString::new(value).map_err(|_| Error::Internal { what: "a setting holds a zero byte".into() })?;
    let (name, value) = (name.as_ptr(), value.as_ptr());
    catch(|| {
        // SAFETY: as set_config_by_name of guc.c does.
        unsafe {
            ffi::set_config_option(
                name,
                value,
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_LOCAL,
                true,
                0,
                false,
            );
        }
    })
}

/// After how long the session is ended when it idles in a transaction; None: never.
pub fn idle_in_transaction_timeout() -> Option<Duration> {
    // SAFETY: a plain variable of this backend.
    let milliseconds = unsafe { pg_sys::IdleInTransactionSessionTimeout };
    (milliseconds > 0).then(|| Duration::from_millis(u64::from(milliseconds.unsigned_abs())))
}

/// The value of a setting, as SHOW prints it. Errors: ES005 where it is longer than anybody needs.
pub fn setting(name: &'static CStr) -> Result<String> {
    const MOST_BYTES: usize = 64 << 10;
    // SAFETY: gives a string for a setting that exists, else raises.
    let value =
        catch(|| unsafe { CStr::from_ptr(ffi::GetConfigOptionByName(name.as_ptr(), std::ptr::null_mut(), false)) })?;
    let bytes = value.to_bytes().len();
    if bytes > MOST_BYTES {
        let reason = format!("must have at most {MOST_BYTES} bytes, not {bytes}");
        return Err(Error::InvalidArgument { argument: name.to_string_lossy().into(), reason, hint: None }.into());
    }
    Ok(value.to_string_lossy().into_owned())
}

/// A moment as PostgreSQL prints it in the session's zone.
pub fn print_time(moment: i64) -> Result<String> {
    let printed = catch(|| {
        // SAFETY: timestamptz_out takes a timestamptz and gives a cstring.
        unsafe {
            ffi::DirectFunctionCall1Coll(Some(ffi::timestamptz_out), pg_sys::InvalidOid, pg_sys::Datum::from(moment))
        }
    })?;
    // SAFETY: a cstring.
    Ok(unsafe { CStr::from_ptr(printed.cast_mut_ptr()) }.to_string_lossy().into_owned())
}

/// A moment as JSON has it: ISO 8601 in UTC, whatever the session's zone and style are.
pub fn print_time_utc(moment: i64) -> Result<String> {
    let mut buffer = [0 as std::ffi::c_char; pg_sys::MAXDATELEN as usize + 1];
    let into = buffer.as_mut_ptr();
    catch(|| {
        let utc: std::ffi::c_int = 0;
        // SAFETY: it writes at most MAXDATELEN + 1 bytes.
        unsafe { ffi::JsonEncodeDateTime(into, pg_sys::Datum::from(moment), pg_sys::TIMESTAMPTZOID, &utc) };
    })?;
    // SAFETY: zero-terminated.
    Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

/// A moment an interval before another.
pub fn before(moment: i64, interval: pg_sys::Datum) -> Result<i64> {
    catch(|| {
        // SAFETY: timestamptz_mi_interval takes a timestamptz and an interval, which the caller was declared with.
        unsafe {
            let none = pg_sys::InvalidOid;
            let moment = pg_sys::Datum::from(moment);
            ffi::DirectFunctionCall2Coll(Some(ffi::timestamptz_mi_interval), none, moment, interval)
        }
    })
    .map(|moment| moment.value() as i64)
}

/// A moment from text, as a timestamptz literal is read.
pub fn read_time(text: &str) -> Result<i64> {
    input::read_value(ffi::timestamptz_in, text).map(|value| value.value() as i64)
}

/// A uuid from text, in any form that PostgreSQL reads.
pub fn read_uuid(text: &str) -> Result<[u8; 16]> {
    // SAFETY: uuid_in gives a uuid.
    input::read_value(ffi::uuid_in, text).map(|value| unsafe { datum::uuid(value) })
}

/// Ends here where a cancel, a timeout or a shutdown waits.
pub fn check_for_interrupts() -> Result<()> {
    catch(crate::pg::jsonb::check_for_interrupts)
}

/// Whether something waits to be done, as [`check_for_interrupts`] does it.
pub fn is_interrupted() -> bool {
    // SAFETY: a flag that signal handlers set.
    unsafe { std::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 }
}

/// Whether code of somebody's runs for others: with the rights of a registrant of ours, or in an index, a materialized view and the like.
pub fn is_restricted() -> bool {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads variables of this backend.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    context & pg_sys::SECURITY_RESTRICTED_OPERATION as i32 != 0
}

/// Sleeps, and wakes up for a cancel.
pub fn pause(time: Duration) -> Result<()> {
    catch(|| {
        crate::pg::jsonb::check_for_interrupts();
        std::thread::sleep(time);
    })
}

/// What a trigger is called for.
pub struct Fired {
    pub operation: &'static str,
    pub table: String,
    /// What a trigger returns that lets it happen: the row, or nothing for a statement.
    pub goes_on: pg_sys::Datum,
}

/// None where the function was not called as a trigger.
pub fn trigger(info: pg_sys::FunctionCallInfo) -> Result<Option<Fired>> {
    // SAFETY: TriggerData is what context points to where the node says so (CALLED_AS_TRIGGER of trigger.h).
    unsafe {
        let context = (*info).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Ok(None);
        }
        let data = context.cast::<pg_sys::TriggerData>();
        let (operation, row) = match (*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => ("INSERT", (*data).tg_trigtuple),
            pg_sys::TRIGGER_EVENT_DELETE => ("DELETE", (*data).tg_trigtuple),
            pg_sys::TRIGGER_EVENT_UPDATE => ("UPDATE", (*data).tg_newtuple),
            _ => ("TRUNCATE", std::ptr::null_mut()),
        };
        let is_for_row = (*data).tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
        let goes_on = if is_for_row { pg_sys::Datum::from(row) } else { pg_sys::Datum::null() };
        let name = CStr::from_ptr((*(*(*data).tg_relation).rd_rel).relname.data.as_ptr());
        Ok(Some(Fired { operation, table: format!("_eventstream.{}", name.to_string_lossy()), goes_on }))
    }
}

/// Whether this is a worker of logical replication.
pub fn applies_replication() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// When the statement that runs began: also of each change that logical replication applies.
pub fn statement_began() -> i64 {
    // SAFETY: reads a variable of this backend.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}
