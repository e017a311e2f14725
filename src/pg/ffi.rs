//! PostgreSQL's functions as PostgreSQL declares them. pgrx's own bindings catch an error and rewrite it (SQLSTATE,
//! DETAIL and CONTEXT suffer); these let it pass, so every call that can raise stands inside [`super::error::failure::catch`].
//!
//! pgrx reads its bindings from the headers of the PostgreSQL that is built for. What it binds too is compared here when it is compiled: a major version that changes a function does not build until this file says so.
use pgrx::pg_sys::*;
use std::ffi::{c_char, c_int, c_long, c_void};

/// Declares functions, each of which must be what pgrx binds under that name.
macro_rules! compared {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        unsafe extern "C-unwind" {
            $($(#[$attribute])* $visibility fn $name($($argument: $kind),*) $(-> $result)?;)*
        }
        $($(#[$attribute])* const _: unsafe fn($($kind),*) $(-> $result)? = pgrx::pg_sys::$name;)*
    };
}
pub(super) use compared;

/// Declares functions that pgrx does not bind. One that it binds by now is ambiguous below: it belongs to those that are compared.
macro_rules! unbound {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        unsafe extern "C-unwind" {
            $($(#[$attribute])* $visibility fn $name($($argument: $kind),*) $(-> $result)?;)*
        }
        const _: () = {
            mod both {
                mod declared {
                    $($(#[$attribute])* #[allow(non_upper_case_globals)] pub const $name: () = ();)*
                }
                #[allow(unused_imports)]
                use {self::declared::*, pgrx::pg_sys::*};
                $($(#[$attribute])* const _: () = $name;)*
            }
        };
    };
}

/// PostgreSQL's numbers that pgrx does not bind; the same in all supported versions. One that it binds by now is ambiguous below: take that.
macro_rules! unbound_numbers {
    ($(pub const $name:ident: $kind:ty = $value:expr;)*) => {
        $(#[allow(non_upper_case_globals)] pub const $name: $kind = $value;)*
        const _: () = {
            mod both {
                mod declared {
                    $(#[allow(non_upper_case_globals)] pub const $name: () = ();)*
                }
                #[allow(unused_imports)]
                use {self::declared::*, pgrx::pg_sys::*};
                $(const _: () = $name;)*
            }
        };
    };
}

unbound_numbers! {
    // utils/bytea.h (ByteaOutputType), utils/timeout.h (TimeoutId)
    pub const BYTEA_OUTPUT_HEX: c_int = 1;
    pub const STATEMENT_TIMEOUT: c_int = 3;
    // catalog/pg_*.h: oids, which never change
    pub const InheritsRelationId: Oid = Oid::from_u32(2611);
    pub const ConstraintRelationId: Oid = Oid::from_u32(2606);
    pub const RewriteRelationId: Oid = Oid::from_u32(2618);
    pub const PolicyRelationId: Oid = Oid::from_u32(3256);
    pub const AttrDefaultRelationId: Oid = Oid::from_u32(2604);
    pub const DependRelationId: Oid = Oid::from_u32(2608);
    pub const DependDependerIndexId: Oid = Oid::from_u32(2673);
    pub const LargeObjectRelationId: Oid = Oid::from_u32(2613);
    // catalog/pg_operator.dat, where it has no name: bigint = bigint
    pub const INT8_EQUAL_OPERATOR: Oid = Oid::from_u32(410);
}

compared! {
    // utils/error/elog.c
    pub fn set_errcontext_domain(domain: *const c_char) -> c_int;
    pub fn CopyErrorData() -> *mut ErrorData;
    pub fn FlushErrorState();
    pub fn FreeErrorData(error: *mut ErrorData);
    // executor/spi.c
    pub fn SPI_connect() -> c_int;
    pub fn SPI_finish() -> c_int;
    pub fn SPI_execute(sql: *const c_char, read_only: bool, count: c_long) -> c_int;
    pub fn SPI_execute_with_args(
        sql: *const c_char,
        nargs: c_int,
        types: *mut Oid,
        values: *mut Datum,
        nulls: *const c_char,
        read_only: bool,
        count: c_long,
    ) -> c_int;
    pub fn SPI_prepare_cursor(sql: *const c_char, nargs: c_int, types: *mut Oid, options: c_int) -> SPIPlanPtr;
    pub fn SPI_keepplan(plan: SPIPlanPtr) -> c_int;
    pub fn SPI_freeplan(plan: SPIPlanPtr) -> c_int;
    pub fn SPI_execute_snapshot(
        plan: SPIPlanPtr,
        values: *mut Datum,
        nulls: *const c_char,
        snapshot: Snapshot,
        crosscheck: Snapshot,
        read_only: bool,
        fire_triggers: bool,
        count: c_long,
    ) -> c_int;
    pub fn SPI_execute_plan_extended(plan: SPIPlanPtr, options: *const SPIExecuteOptions) -> c_int;
    pub fn SPI_freetuptable(table: *mut SPITupleTable);
    // optimizer/plan/planner.c, nodes/makefuncs.c, nodes/list.c
    pub fn standard_planner(
        query: *mut Query,
        text: *const c_char,
        options: c_int,
        params: ParamListInfo,
    ) -> *mut PlannedStmt;
    pub fn makeVar(varno: c_int, column: i16, kind: Oid, modifier: i32, collation: Oid, levels_up: u32) -> *mut Var;
    pub fn pull_var_clause(node: *mut Node, flags: c_int) -> *mut List;
    pub fn make_opclause(
        operator: Oid,
        result: Oid,
        returns_set: bool,
        left: *mut Expr,
        right: *mut Expr,
        result_collation: Oid,
        input_collation: Oid,
    ) -> *mut Expr;
    pub fn copyObjectImpl(from: *const c_void) -> *mut c_void;
    pub fn make_and_qual(one: *mut Node, other: *mut Node) -> *mut Node;
    pub fn list_concat(one: *mut List, other: *const List) -> *mut List;
    pub fn lappend(list: *mut List, datum: *mut c_void) -> *mut List;
    // optimizer/path/indxpath.c, optimizer/util/pathnode.c, utils/cache/lsyscache.c
    pub fn create_index_paths(root: *mut PlannerInfo, table: *mut RelOptInfo);
    pub fn add_path(table: *mut RelOptInfo, path: *mut Path);
    pub fn add_partial_path(table: *mut RelOptInfo, path: *mut Path);
    pub fn get_attname(relation: Oid, column: AttrNumber, missing_ok: bool) -> *mut c_char;
    pub fn get_attnum(relation: Oid, column: *const c_char) -> AttrNumber;
    // nodes/params.c
    pub fn makeParamList(count: c_int) -> ParamListInfo;
    // executor/tstoreReceiver.c, utils/sort/tuplestore.c
    pub fn tuplestore_begin_heap(random_access: bool, inter_xact: bool, max_kilobytes: c_int) -> *mut Tuplestorestate;
    pub fn tuplestore_gettupleslot(
        store: *mut Tuplestorestate,
        forward: bool,
        copy: bool,
        slot: *mut TupleTableSlot,
    ) -> bool;
    pub fn tuplestore_end(store: *mut Tuplestorestate);
    pub fn lookup_rowtype_tupdesc_copy(row_type: Oid, modifier: i32) -> TupleDesc;
    // utils/fmgr/funcapi.c, access/common/heaptuple.c, executor/execTuples.c
    pub fn get_call_result_type(info: FunctionCallInfo, oid: *mut Oid, desc: *mut TupleDesc) -> TypeFuncClass::Type;
    pub fn get_func_arg_info(
        row: HeapTuple,
        types: *mut *mut Oid,
        names: *mut *mut *mut c_char,
        modes: *mut *mut c_char,
    ) -> c_int;
    pub fn init_MultiFuncCall(info: FunctionCallInfo) -> *mut FuncCallContext;
    pub fn end_MultiFuncCall(info: FunctionCallInfo, context: *mut FuncCallContext);
    pub fn BlessTupleDesc(desc: TupleDesc) -> TupleDesc;
    pub fn heap_freetuple(row: HeapTuple);
    pub fn HeapTupleHeaderGetDatum(header: HeapTupleHeader) -> Datum;
    // utils/adt/expandedrecord.c
    pub fn make_expanded_record_from_typeid(
        row_type: Oid,
        modifier: i32,
        parent: MemoryContext,
    ) -> *mut ExpandedRecordHeader;
    pub fn make_expanded_record_from_exprecord(
        model: *mut ExpandedRecordHeader,
        parent: MemoryContext,
    ) -> *mut ExpandedRecordHeader;
    pub fn slot_getsomeattrs_int(slot: *mut TupleTableSlot, attributes: c_int);
    // executor/execUtils.c, execMain.c, execIndexing.c, access/table/tableam.c
    pub fn CreateExecutorState() -> *mut EState;
    pub fn FreeExecutorState(state: *mut EState);
    pub fn InitResultRelInfo(
        target: *mut ResultRelInfo,
        relation: Relation,
        range_table_index: Index,
        root: *mut ResultRelInfo,
        instrument: c_int,
    );
    pub fn ExecOpenIndices(target: *mut ResultRelInfo, speculative: bool);
    #[cfg(not(pre_pg17))]
    pub fn ExecCloseIndices(target: *mut ResultRelInfo);
    pub fn MakeSingleTupleTableSlot(desc: TupleDesc, kind: *const TupleTableSlotOps) -> *mut TupleTableSlot;
    pub fn ExecFetchSlotHeapTuple(slot: *mut TupleTableSlot, materialize: bool, should_free: *mut bool) -> HeapTuple;
    pub fn ExecDropSingleTupleTableSlot(slot: *mut TupleTableSlot);
    pub fn ExecStoreVirtualTuple(slot: *mut TupleTableSlot) -> *mut TupleTableSlot;
    pub fn simple_table_tuple_insert(relation: Relation, slot: *mut TupleTableSlot);
    // access/index/indexam.c, access/common/scankey.c, access/table/tableam.c, utils/cache/relcache.c
    pub fn index_open(index: Oid, lock: LOCKMODE) -> Relation;
    pub fn index_close(index: Relation, lock: LOCKMODE);
    pub fn index_rescan(scan: IndexScanDesc, keys: ScanKey, nkeys: c_int, orderbys: ScanKey, norderbys: c_int);
    pub fn GetCurrentCommandId(used: bool) -> CommandId;
    pub fn index_getnext_slot(scan: IndexScanDesc, direction: ScanDirection::Type, slot: *mut TupleTableSlot) -> bool;
    pub fn index_endscan(scan: IndexScanDesc);
    pub fn ScanKeyInit(
        entry: ScanKey,
        attribute: AttrNumber,
        strategy: StrategyNumber,
        procedure: Oid,
        argument: Datum,
    );
    pub fn table_slot_callbacks(relation: Relation) -> *const TupleTableSlotOps;
    pub fn RelationGetIndexPredicate(index: Relation) -> *mut List;
    pub fn RelationGetIndexList(relation: Relation) -> *mut List;
    pub fn list_free(list: *mut List);
    // utils/time/snapmgr.c
    pub fn GetLatestSnapshot() -> Snapshot;
    pub fn GetCatalogSnapshot(relation: Oid) -> Snapshot;
    pub fn PushActiveSnapshot(snapshot: Snapshot);
    pub fn PopActiveSnapshot();
    // access/transam/xact.c
    pub fn CommandCounterIncrement();
    pub fn PreventCommandIfReadOnly(command: *const c_char);
    pub fn BeginInternalSubTransaction(name: *const c_char);
    pub fn ReleaseCurrentSubTransaction();
    pub fn RollbackAndReleaseCurrentSubTransaction();
    // utils/cache/inval.c
    pub fn AcceptInvalidationMessages();
    pub fn CacheInvalidateRelcacheByRelid(relation: Oid);
    // utils/adt/jsonb_util.c, jsonb.c
    pub fn JsonbIteratorInit(container: *mut JsonbContainer) -> *mut JsonbIterator;
    pub fn JsonbIteratorNext(
        iterator: *mut *mut JsonbIterator,
        value: *mut JsonbValue,
        skip_nested: bool,
    ) -> JsonbIteratorToken::Type;
    pub fn JsonbToCString(out: StringInfo, container: *mut JsonbContainer, estimated_len: c_int) -> *mut c_char;
    pub fn JsonbValueToJsonb(value: *mut JsonbValue) -> *mut Jsonb;
    pub fn pushJsonbValue(
        state: *mut *mut JsonbParseState,
        token: JsonbIteratorToken::Type,
        value: *mut JsonbValue,
    ) -> *mut JsonbValue;
    pub fn getKeyJsonValueFromContainer(
        container: *mut JsonbContainer,
        key: *const c_char,
        key_length: c_int,
        result: *mut JsonbValue,
    ) -> *mut JsonbValue;
    pub fn getIthJsonbValueFromContainer(container: *mut JsonbContainer, place: u32) -> *mut JsonbValue;
    // utils/fmgr/fmgr.c
    pub fn fmgr_info(function: Oid, info: *mut FmgrInfo);
    pub fn DirectFunctionCall1Coll(function: PGFunction, collation: Oid, a: Datum) -> Datum;
    pub fn DirectFunctionCall3Coll(function: PGFunction, collation: Oid, a: Datum, b: Datum, c: Datum) -> Datum;
    pub fn pg_detoast_datum(datum: *mut varlena) -> *mut varlena;
    pub fn toast_raw_datum_size(value: Datum) -> usize;
    pub fn pg_detoast_datum_copy(datum: *mut varlena) -> *mut varlena;
    pub fn pg_detoast_datum_packed(datum: *mut varlena) -> *mut varlena;
    // utils/adt: input functions that DirectFunctionCall takes
    pub fn jsonb_contains(info: FunctionCallInfo) -> Datum;
    pub fn jsonb_in(info: FunctionCallInfo) -> Datum;
    pub fn int8_numeric(info: FunctionCallInfo) -> Datum;
    pub fn uuid_in(info: FunctionCallInfo) -> Datum;
    pub fn regprocedurein(info: FunctionCallInfo) -> Datum;
    pub fn timestamptz_in(info: FunctionCallInfo) -> Datum;
    pub fn timestamptz_out(info: FunctionCallInfo) -> Datum;
    pub fn timestamptz_mi_interval(info: FunctionCallInfo) -> Datum;
    // storage/lmgr/lock.c
    pub fn LockAcquire(tag: *const LOCKTAG, mode: c_int, is_session: bool, does_not_wait: bool) -> u32;
    // storage/lmgr/predicate.c
    pub fn LockRelease(tag: *const LOCKTAG, mode: c_int, is_session: bool) -> bool;
    // storage/ipc/procarray.c
    pub fn BackendPidGetProc(pid: c_int) -> *mut PGPROC;
    // storage/lmgr/lmgr.c
    pub fn XactLockTableWait(
        xid: TransactionId,
        relation: Relation,
        ctid: *mut ItemPointerData,
        what_for: XLTW_Oper::Type,
    );
    // utils/adt/json.c
    pub fn JsonEncodeDateTime(buffer: *mut c_char, value: Datum, type_oid: Oid, zone: *const c_int) -> *mut c_char;
    // utils/adt/arrayfuncs.c
    pub fn deconstruct_array(
        array: *mut ArrayType,
        element: Oid,
        length: c_int,
        by_value: bool,
        alignment: c_char,
        elements: *mut *mut Datum,
        nulls: *mut *mut bool,
        count: *mut c_int,
    );
    pub fn construct_array(
        elements: *mut Datum,
        count: c_int,
        element: Oid,
        length: c_int,
        by_value: bool,
        alignment: c_char,
    ) -> *mut ArrayType;
    // utils/mmgr/mcxt.c, aset.c
    pub fn palloc0(size: usize) -> *mut c_void;
    pub fn palloc(size: usize) -> *mut c_void;
    pub fn AllocSetContextCreateInternal(
        parent: MemoryContext,
        name: *const c_char,
        min: usize,
        initial: usize,
        max: usize,
    ) -> MemoryContext;
    pub fn MemoryContextAllocHuge(context: MemoryContext, size: usize) -> *mut c_void;
    pub fn repalloc_huge(pointer: *mut c_void, size: usize) -> *mut c_void;
    pub fn MemoryContextReset(context: MemoryContext);
    pub fn MemoryContextDelete(context: MemoryContext);
    // catalog/namespace.c, utils/cache/lsyscache.c, miscinit.c
    pub fn get_namespace_oid(name: *const c_char, missing_ok: bool) -> Oid;
    pub fn get_relname_relid(name: *const c_char, namespace: Oid) -> Oid;
    pub fn GetUserNameFromId(role: Oid, no_error: bool) -> *mut c_char;
    pub fn superuser_arg(role: Oid) -> bool;
    pub fn get_role_oid(name: *const c_char, missing_ok: bool) -> Oid;
    pub fn has_privs_of_role(member: Oid, role: Oid) -> bool;
    // commands/sequence.c
    pub fn DirectFunctionCall2Coll(function: PGFunction, collation: Oid, a: Datum, b: Datum) -> Datum;
    pub fn setval_oid(info: FunctionCallInfo) -> Datum;
    pub fn relation_open(relation: Oid, lock: LOCKMODE) -> Relation;
    pub fn LockRelationOid(relation: Oid, lock: LOCKMODE);
    pub fn LockDatabaseObject(catalog: Oid, object: Oid, part: u16, lock: LOCKMODE);
    pub fn relation_close(relation: Relation, lock: LOCKMODE);
    pub fn ReadBuffer(relation: Relation, block: BlockNumber) -> Buffer;
    pub fn LockBuffer(buffer: Buffer, mode: c_int);
    pub fn UnlockReleaseBuffer(buffer: Buffer);
    pub fn XLogFlush(position: XLogRecPtr);
    pub fn GetSystemIdentifier() -> u64;
    pub fn GetWALInsertionTimeLine() -> TimeLineID;
    pub fn GetXLogReplayRecPtr(timeline: *mut TimeLineID) -> XLogRecPtr;
    // postmaster/bgworker.c
    pub fn RegisterDynamicBackgroundWorker(
        worker: *mut BackgroundWorker,
        handle: *mut *mut BackgroundWorkerHandle,
    ) -> bool;
    pub fn WaitForBackgroundWorkerShutdown(handle: *mut BackgroundWorkerHandle) -> BgwHandleStatus::Type;
    pub fn BackgroundWorkerUnblockSignals();
    pub fn BackgroundWorkerInitializeConnection(database: *const c_char, role: *const c_char, flags: u32);
    pub fn BackgroundWorkerInitializeConnectionByOid(database: Oid, role: Oid, flags: u32);
    pub fn RegisterBackgroundWorker(worker: *mut BackgroundWorker);
    pub fn GetBackgroundWorkerPid(handle: *mut BackgroundWorkerHandle, pid: *mut c_int) -> BgwHandleStatus::Type;
    pub fn pfree(memory: *mut c_void);
    // utils/misc/guc.c
    pub fn set_config_option(
        name: *const c_char,
        value: *const c_char,
        context: GucContext::Type,
        source: GucSource::Type,
        action: GucAction::Type,
        change: bool,
        level: c_int,
        reload: bool,
    ) -> c_int;
    pub fn GetConfigOptionResetString(name: *const c_char) -> *const c_char;
    pub fn GetConfigOptionByName(name: *const c_char, canonical: *mut *const c_char, missing_ok: bool) -> *mut c_char;
    pub fn NewGUCNestLevel() -> c_int;
    pub fn AtEOXact_GUC(is_commit: bool, level: c_int);
    // catalog/namespace.c, utils/cache/syscache.c
    pub fn SearchSysCache1(cache: c_int, key: Datum) -> HeapTuple;
    pub fn ReleaseSysCache(row: HeapTuple);
    pub fn SearchSysCacheExists(cache: c_int, a: Datum, b: Datum, c: Datum, d: Datum) -> bool;
    pub fn GetSysCacheOid(cache: c_int, column: AttrNumber, a: Datum, b: Datum, c: Datum, d: Datum) -> Oid;
    // replication/syncrep.c
    #[cfg(pre_pg16)]
    pub fn assign_synchronous_commit(level: c_int, extra: *mut c_void);
    // tcop/postgres.c, storage/ipc/latch.c, and the C library
    pub fn ProcessInterrupts();
    pub fn SetLatch(latch: *mut Latch);
    pub fn ResetLatch(latch: *mut Latch);
    pub fn WaitLatch(latch: *mut Latch, events: c_int, timeout: c_long, wait_event_info: u32) -> c_int;
    // access/transam/xact.c, utils/time/snapmgr.c, tcop/postgres.c
    pub fn SetCurrentStatementStartTimestamp();
    pub fn StartTransactionCommand();
    pub fn CommitTransactionCommand();
    pub fn AbortCurrentTransaction();
    pub fn GetTransactionSnapshot() -> Snapshot;
    pub fn die(signal: c_int);
    pub fn SignalHandlerForConfigReload(signal: c_int);
    // utils/misc/guc-file.l, timeout.c
    pub fn ProcessConfigFile(context: GucContext::Type);
    pub fn SetConfigOption(
        name: *const c_char,
        value: *const c_char,
        context: GucContext::Type,
        source: GucSource::Type,
    );
    // what a session leaves behind: storage/lmgr/lock.c, jit/jit.c, utils/activity
    pub fn LockReleaseAll(method: LOCKMETHODID, all_locks: bool);
    pub fn jit_reset_after_error();
    pub fn pgstat_report_stat(force: bool) -> c_long;
    pub fn pgstat_report_activity(state: BackendState::Type, what: *const c_char);
    // access/table/table.c, access/index/genam.c, storage/buffer/bufmgr.c
    pub fn RelationGetNumberOfBlocksInFork(relation: Relation, fork: ForkNumber::Type) -> BlockNumber;
    pub fn table_open(relation: Oid, lock: LOCKMODE) -> Relation;
    pub fn table_close(relation: Relation, lock: LOCKMODE);
    pub fn systable_beginscan(
        table: Relation,
        index: Oid,
        index_ok: bool,
        snapshot: Snapshot,
        keys: c_int,
        key: *mut ScanKeyData,
    ) -> SysScanDesc;
    pub fn systable_getnext(scan: SysScanDesc) -> HeapTuple;
    pub fn systable_endscan(scan: SysScanDesc);
    // commands/dbcommands.c, extension.c, async.c, define.c
    pub fn get_database_oid(name: *const c_char, missing_ok: bool) -> Oid;
    pub fn get_database_name(database: Oid) -> *mut c_char;
    pub fn get_extension_oid(name: *const c_char, missing_ok: bool) -> Oid;
    pub fn defGetString(option: *mut DefElem) -> *mut c_char;
    pub fn superuser() -> bool;
    // catalog/pg_depend.c, objectaddress.c, utils/cache/lsyscache.c
    pub fn getExtensionOfObject(class: Oid, object: Oid) -> Oid;
    pub fn getObjectDescription(object: *const ObjectAddress, missing_ok: bool) -> *mut c_char;
    pub fn GetDefaultOpClass(kind: Oid, method: Oid) -> Oid;
    pub fn get_opclass_family(class: Oid) -> Oid;
    pub fn get_rel_namespace(relation: Oid) -> Oid;
    pub fn get_func_namespace(function: Oid) -> Oid;
    pub fn get_rel_persistence(relation: Oid) -> c_char;
    pub fn get_rel_relkind(relation: Oid) -> c_char;
    pub fn get_rel_type_id(relation: Oid) -> Oid;
    pub fn get_typ_typrelid(of: Oid) -> Oid;
    pub fn get_atttype(relation: Oid, column: AttrNumber) -> Oid;
    // catalog/namespace.c
    pub fn RangeVarGetRelidExtended(
        named: *const RangeVar,
        lock: LOCKMODE,
        flags: u32,
        callback: RangeVarGetRelidCallback,
        callback_arg: *mut c_void,
    ) -> Oid;
    // tcop/utility.c, cmdtag.c
    pub fn CreateCommandTag(statement: *mut Node) -> CommandTag::Type;
    pub fn GetCommandTagName(tag: CommandTag::Type) -> *const c_char;
    pub fn standard_ProcessUtility(
        statement: *mut PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: ProcessUtilityContext::Type,
        params: ParamListInfo,
        environment: *mut QueryEnvironment,
        receiver: *mut DestReceiver,
        completion: *mut QueryCompletion,
    );
}

unbound! {
    // catalog/pg_constraint.c
    pub fn get_relation_constraint_oid(relation: Oid, constraint: *const c_char, missing_ok: bool) -> Oid;
    // utils/misc/guc.c; its declaration has moved to a header that pgrx does not read
    #[cfg(not(pre_pg16))]
    pub fn assign_synchronous_commit(level: c_int, extra: *mut c_void);
    // utils/error/elog.c
    pub fn pg_re_throw() -> !;
    // executor/tstoreReceiver.c, utils/sort/tuplestore.c
    pub fn CreateTuplestoreDestReceiver() -> *mut DestReceiver;
    pub fn SetTuplestoreDestReceiverParams(
        receiver: *mut DestReceiver,
        store: *mut Tuplestorestate,
        context: MemoryContext,
        detoast: bool,
        target: TupleDesc,
        map_failure_message: *const c_char,
    );
    // storage/lmgr/predicate.c
    pub fn PredicateLockTID(relation: Relation, tid: ItemPointer, snapshot: Snapshot, writer: TransactionId);
    pub fn CheckForSerializableConflictIn(relation: Relation, tid: ItemPointer, block: BlockNumber);
    // commands/sequence.c
    pub fn nextval_internal(sequence: Oid, check_permissions: bool) -> i64;
    // storage/ipc/latch.c, and the C library
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    // utils/misc/guc-file.l, timeout.c
    pub fn enable_timeout_every(id: c_int, first: TimestampTz, every_milliseconds: c_int);
    pub fn disable_timeout(id: c_int, keep_indicator: bool);
    pub fn RegisterTimeout(id: c_int, handler: Option<unsafe extern "C-unwind" fn()>) -> c_int;
    // commands/dbcommands.c, extension.c, async.c, define.c
    pub fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

// How an error is made, which pgrx keeps to itself; what does not return, which pgrx knows of some versions only; and a setting that it does not bind.
unsafe extern "C-unwind" {
    // storage/ipc/ipc.c, utils/adt/varlena.c
    pub fn proc_exit(code: c_int) -> !;
    pub static mut bytea_output: c_int;
    // utils/error/elog.c
    pub fn ReThrowError(error: *mut ErrorData) -> !;
    pub fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    pub fn errcode(code: c_int) -> c_int;
    pub fn errmsg(format: *const c_char, ...) -> c_int;
    pub fn errdetail(format: *const c_char, ...) -> c_int;
    pub fn errhint(format: *const c_char, ...) -> c_int;
    pub fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    pub fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// # Safety
/// A list of pointers (nodes/pg_list.h), or NULL.
pub unsafe fn members<T>(list: *mut List) -> impl Iterator<Item = *mut T> {
    // SAFETY: as the caller says.
    unsafe {
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        (0..count).map(move |place| (*(*list).elements.add(place)).ptr_value.cast::<T>())
    }
}
