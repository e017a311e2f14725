//! Settings `eventstream.*`. Limits and durability belong to the superuser: a session cannot talk itself out of them.
use crate::pg::guc::{self, Integer, Text};
use eventstream_core::error::Error;
use eventstream_core::{json, moment, shown};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// What an append's commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum Durability {
    #[name = c"strict"]
    Strict,
    #[name = c"session"]
    Session,
}

/// What becomes of an event whose upcaster fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum OnUpcastError {
    #[name = c"fail"]
    Fail,
    #[name = c"skip"]
    Skip,
}

/// Which tenant the session means; only a choice among those that its role was granted.
static TENANT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// An acknowledged append is on disk (and on the synchronous standby), whatever synchronous_commit says.
static DURABILITY: GucSetting<Durability> = GucSetting::<Durability>::new(Durability::Strict);
/// The moment that temporal views show, in valid time and in transaction time.
static AS_OF: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KNOWN_AT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// Who acts, for statements that do not say: proxies and pools set it.
static METADATA: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
/// Failing is safe; skipping lets an operator read on past a broken upcaster. It changes what states are, so it is the superuser's.
static ON_UPCAST_ERROR: GucSetting<OnUpcastError> = GucSetting::<OnUpcastError>::new(OnUpcastError::Fail);
/// Small enough that one partition's indexes stay in memory, large enough that a year of them plans quickly.
static PARTITION_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1 << 24);
/// An event is a fact, not a file.
static MAX_PAYLOAD_BYTES: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);
/// A batch is one transaction, and holds its streams' locks that long.
static MAX_BATCH_EVENTS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
/// All of them are in memory at the commit, and its locks are held meanwhile.
static MAX_INVARIANT_EVENTS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
/// Readers in other languages recurse.
static MAX_JSON_DEPTH: GucSetting<i32> = GucSetting::<i32>::new(64);
/// `1e131071` takes 8 bytes to write and 131,072 to print.
static MAX_NUMBER_DIGITS: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// A wrong clock at a client must not push a stream's valid time ahead for good.
static MAX_FUTURE_SKEW: GucSetting<i32> = GucSetting::<i32>::new(86_400);
/// A state is a summary of its events, not an archive of them; also what keeps hostile rules from filling the memory.
static MAX_STATE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(16 << 20);
/// Enough for thousands of ordinary states, little beside a backend's other memory.
static STATE_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8192);
/// Appends of the tenant wait behind who asks for its gate: so short is what the slowest of them notices.
static GATE_WAIT: GucSetting<i32> = GucSetting::<i32>::new(100);
static GATE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
/// Few enough that a transaction which meets them all leaves room in the table of locks, many enough that decisions on different tags seldom meet.
static TAG_BUCKETS: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Snapshots cost little beside their events, and old ones make old states quick.
static SNAPSHOT_KEEP: GucSetting<i32> = GucSetting::<i32>::new(0);
static SNAPSHOT_MAX_AGE: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Long enough for a client to renew it now and then, short enough that one which leaked is over soon.
static TOKEN_MAX_LIFETIME: GucSetting<i32> = GucSetting::<i32>::new(900);
/// Whoever throws a log away, or changes its tables, says so first.
static ALLOW_DROP: GucSetting<bool> = GucSetting::<bool>::new(false);

const INTEGERS: [Integer; 13] = [
    Integer {
        name: c"eventstream.partition_size",
        short: c"How many global positions a new partition of the log covers.",
        long: c"The first partition always covers 1 to 16777215.",
        setting: &PARTITION_SIZE,
        range: 100..=1 << 30,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.max_payload_bytes",
        short: c"The most bytes of text that a payload, or a metadata, may have.",
        long: c"",
        setting: &MAX_PAYLOAD_BYTES,
        range: 1024..=64 << 20,
        flags: GucFlags::UNIT_BYTE,
    },
    Integer {
        name: c"eventstream.max_batch_events",
        short: c"The most events that one call may append.",
        long: c"",
        setting: &MAX_BATCH_EVENTS,
        range: 1..=1_000_000,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.max_invariant_events",
        short: c"The most events of a transaction that invariants with a handler judge at its commit.",
        long: c"",
        setting: &MAX_INVARIANT_EVENTS,
        range: 1..=1_000_000,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.max_json_depth",
        short: c"The deepest nesting that a payload or metadata may have.",
        long: c"",
        setting: &MAX_JSON_DEPTH,
        range: 1..=1_000,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.max_number_digits",
        short: c"The most digits that a number in a payload or metadata may print as.",
        long: c"",
        setting: &MAX_NUMBER_DIGITS,
        range: 20..=20_000,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.max_future_skew",
        short: c"How far ahead of the database's clock occurred_at may lie.",
        long: c"",
        setting: &MAX_FUTURE_SKEW,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_S,
    },
    Integer {
        name: c"eventstream.max_state_bytes",
        short: c"The most bytes that a state may take while it is folded.",
        long: c"",
        setting: &MAX_STATE_BYTES,
        range: 1024..=256 << 20,
        flags: GucFlags::UNIT_BYTE,
    },
    Integer {
        name: c"eventstream.gate_wait",
        short: c"How long who needs a tenant's appends to rest lets them queue behind it at a time.",
        long: c"After each such while it lets them pass for as long, and asks again, until eventstream.gate_timeout.",
        setting: &GATE_WAIT,
        range: 1..=60_000,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.gate_timeout",
        short: c"How long who needs a tenant's appends to rest tries to get that; then it fails with 55P03.",
        long: c"Also how long its transaction may then stay idle before its session is ended.",
        setting: &GATE_TIMEOUT,
        range: 1..=3_600_000,
        flags: GucFlags::UNIT_MS,
    },
    Integer {
        name: c"eventstream.snapshot_keep",
        short: c"How many snapshots of each stream and fold es_maintain leaves, the newest ones.",
        long: c"0: all of them.",
        setting: &SNAPSHOT_KEEP,
        range: 0..=i32::MAX,
        flags: GucFlags::empty(),
    },
    Integer {
        name: c"eventstream.snapshot_max_age",
        short: c"How old a snapshot must be before es_maintain removes it.",
        long:
            c"0: any age, where eventstream.snapshot_keep is set. The newest one of each stream and fold always stays.",
        setting: &SNAPSHOT_MAX_AGE,
        range: 0..=i32::MAX,
        flags: GucFlags::UNIT_S,
    },
    Integer {
        name: c"eventstream.token_max_lifetime",
        short: c"How long a token may live, from iat to exp.",
        long: c"es_use_token refuses one that lives longer.",
        setting: &TOKEN_MAX_LIFETIME,
        range: 1..=86_400,
        flags: GucFlags::UNIT_S,
    },
];

/// Defines the settings; once a backend, from _PG_init.
pub fn init() {
    let plain = GucFlags::empty();
    guc::define_text::<Tenant>(
        c"The tenant that es_* functions and views work in.",
        c"Unset: the role's only tenant. A role may name only a tenant that es_grant allowed it.",
        &TENANT,
    );
    let moment = c"ISO 8601 with a time and a zone. Unset: no bound.";
    guc::define_text::<AsOf>(c"The moment in valid time that temporal views show.", moment, &AS_OF);
    guc::define_text::<KnownAt>(c"The moment in transaction time that temporal views show.", moment, &KNOWN_AT);
    guc::define_text::<Metadata>(
        c"Members that the metadata of appended events gets, where the caller gives none of that name.",
        c"A JSON object. Unset: none.",
        &METADATA,
    );
    GucRegistry::define_enum_guc(
        c"eventstream.durability",
        c"What the commit of an append waits for.",
        c"strict: the disk, and the synchronous standby if there is one. session: what synchronous_commit says.",
        &DURABILITY,
        GucContext::Suset,
        plain,
    );
    GucRegistry::define_enum_guc(
        c"eventstream.on_upcast_error",
        c"What becomes of an event whose upcaster fails.",
        c"fail: an error. skip: a WARNING, and the event as the last step that succeeded left it; such states are not kept.",
        &ON_UPCAST_ERROR,
        GucContext::Suset,
        plain,
    );
    guc::define_integers(&INTEGERS, || GucContext::Suset);
    GucRegistry::define_int_guc(
        c"eventstream.state_cache_size",
        c"How much memory a session keeps for the states of streams that it asked for.",
        c"0: none. Least recently used states go first.",
        &STATE_CACHE_SIZE,
        0,
        1 << 20,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"eventstream.allow_drop",
        c"Whether this session may drop a log that has events, or alter what belongs to it.",
        c"Meant for one session, or one transaction: off again as soon as it is done.",
        &ALLOW_DROP,
        GucContext::Suset,
        GucFlags::DISALLOW_IN_FILE,
    );
    guc::define_integers(&FIXED, fixed);
    super::live_settings::init();
    guc::reserve(c"eventstream");
}

const FIXED: [Integer; 1] = [Integer {
    name: c"eventstream.tag_buckets",
    short: c"How many buckets the tags of each tenant are in, by which conditions and appends with tags keep out of each other's way.",
    long: c"Each may be a lock of a transaction that appends events with many tags.",
    setting: &TAG_BUCKETS,
    range: 1..=1 << 16,
    flags: GucFlags::empty(),
}];

/// All sessions must have the same: it is fixed when the server starts, and the default where the library is not preloaded.
fn fixed() -> GucContext {
    if guc::is_preloading() { GucContext::Postmaster } else { GucContext::Internal }
}

/// The tenant that the session names, if any; empty counts as none.
pub fn tenant() -> Option<String> {
    TENANT.get().map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

pub fn is_durability_strict() -> bool {
    DURABILITY.get() == Durability::Strict
}

/// In positions.
pub fn partition_size() -> i64 {
    PARTITION_SIZE.get().into()
}

pub fn max_payload_bytes() -> i64 {
    MAX_PAYLOAD_BYTES.get().into()
}

pub fn max_batch_events() -> i64 {
    MAX_BATCH_EVENTS.get().into()
}

pub fn max_invariant_events() -> i64 {
    MAX_INVARIANT_EVENTS.get().into()
}

pub fn max_json_depth() -> i64 {
    MAX_JSON_DEPTH.get().into()
}

pub fn max_number_digits() -> i64 {
    MAX_NUMBER_DIGITS.get().into()
}

pub fn tag_buckets() -> u32 {
    TAG_BUCKETS.get().unsigned_abs().max(1)
}

pub fn gate_wait() -> Duration {
    Duration::from_millis(u64::from(GATE_WAIT.get().unsigned_abs()))
}

pub fn gate_timeout() -> Duration {
    Duration::from_millis(u64::from(GATE_TIMEOUT.get().unsigned_abs()))
}

/// In seconds.
pub fn token_max_lifetime() -> i64 {
    TOKEN_MAX_LIFETIME.get().into()
}

/// In seconds.
pub fn max_future_skew() -> i64 {
    MAX_FUTURE_SKEW.get().into()
}

pub fn max_state_bytes() -> usize {
    MAX_STATE_BYTES.get().unsigned_abs() as usize
}

pub fn state_cache_bytes() -> usize {
    STATE_CACHE_SIZE.get().unsigned_abs() as usize * 1024
}

/// How many snapshots of each stream and fold stay whatever their age; None: all of them.
pub fn snapshot_keep() -> Option<i64> {
    match (SNAPSHOT_KEEP.get(), SNAPSHOT_MAX_AGE.get()) {
        (0, 0) => None,
        (0, _) => Some(1),
        (keep, _) => Some(keep.into()),
    }
}

/// In seconds; None: whatever their age.
pub fn snapshot_max_age() -> Option<i64> {
    Some(SNAPSHOT_MAX_AGE.get().into()).filter(|&age| age > 0)
}

pub fn are_failed_upcasts_skipped() -> bool {
    ON_UPCAST_ERROR.get() == OnUpcastError::Skip
}

/// Whether the guard of the log is off in this session.
pub fn allows_drop() -> bool {
    ALLOW_DROP.get()
}

/// The text of eventstream.as_of, and of eventstream.known_at; empty counts as unset.
pub fn as_of() -> Option<String> {
    text_of(&AS_OF)
}

pub fn known_at() -> Option<String> {
    text_of(&KNOWN_AT)
}

/// The text of eventstream.metadata; empty counts as unset.
pub fn metadata() -> Option<String> {
    text_of(&METADATA)
}

/// What eventstream.metadata must be, for messages, and what to do.
pub const METADATA_RULE: &str = "must be a JSON object of at most 16384 bytes";
pub const METADATA_HINT: &str = r#"For example: set local eventstream.metadata = '{"actor": "clerk-7"}'"#;

const MOST_METADATA_BYTES: usize = 16_384;

pub fn is_metadata(text: &str) -> bool {
    text.len() <= MOST_METADATA_BYTES && matches!(json::Value::parse(text), Ok(json::Value::Object(_)))
}

fn text_of(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().map(|text| text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

/// More than any tenant's name, and any moment, has.
const MOST_BYTES: usize = 512;

struct Tenant;
struct AsOf;
struct KnownAt;
struct Metadata;

impl Text for Tenant {
    const NAME: &CStr = c"eventstream.tenant";
    const MOST_BYTES: usize = MOST_BYTES;

    /// Whoever uses it says which ones there are.
    fn check(_: &str) -> Result<(), Error> {
        Ok(())
    }
}

impl Text for AsOf {
    const NAME: &CStr = c"eventstream.as_of";
    const MOST_BYTES: usize = MOST_BYTES;

    fn check(text: &str) -> Result<(), Error> {
        must_be_moment("eventstream.as_of", text)
    }
}

impl Text for KnownAt {
    const NAME: &CStr = c"eventstream.known_at";
    const MOST_BYTES: usize = MOST_BYTES;

    fn check(text: &str) -> Result<(), Error> {
        must_be_moment("eventstream.known_at", text)
    }
}

impl Text for Metadata {
    const NAME: &CStr = c"eventstream.metadata";
    /// One byte more than may be is still refused.
    const MOST_BYTES: usize = MOST_METADATA_BYTES + 1;

    fn check(text: &str) -> Result<(), Error> {
        if is_metadata(text) {
            return Ok(());
        }
        Err(Error::InvalidArgument {
            argument: "eventstream.metadata".into(),
            reason: format!("{METADATA_RULE}, not {}", shown(text)),
            hint: Some(METADATA_HINT.into()),
        })
    }
}

fn must_be_moment(setting: &str, text: &str) -> Result<(), Error> {
    if moment::read(text).is_some() {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        argument: setting.into(),
        reason: format!("{}, not {}", moment::RULE, shown(text)),
        hint: Some(MOMENT_HINT.into()),
    })
}

/// What to do about a moment that was refused.
pub const MOMENT_HINT: &str = "A day ends when it ends where the books are kept: select es_day_end('2024-10-31', 'Europe/Vienna')::text \
                               gives the moment.";
