//! Operations that a program executes outside of the database, once a key: a payment at a bank, a letter. Sole owner of the table operations.
//!
//! ```text
//! es_begin_command ─▶ the row of (tenant, operation, key)? ─┬─ none ─▶ a new row: execute
//!                                                           ├─ says what came of it ─▶ replay: nothing is locked or written
//!                                                           ├─ an attempt is under way ─▶ in progress, or a wait for its end
//!                                                           └─ its attempt came to nothing ─▶ the row is locked, and judged again: execute
//! es_complete_command, es_fail_command, es_extend_command ─▶ the row of the token, while its attempt is the newest
//! ```
//! Promises: of all calls with a key one executes at a time, and after one has completed none does, under whatever interleaving and isolation level; what an attempt
//! reserved is there for others with its transaction's commit, and gone with its rollback; an attempt that was superseded finishes nothing; a request is kept
//! as a salted digest only. Rules: crates/core, command/operation.rs.
use super::{covered, ended};
use crate::log::activation;
use crate::log::document::print;
use crate::log::gate;
use crate::log::target::Target;
use crate::pg::error::failure::{Failure, Result};
use crate::pg::jsonb::Jsonb;
use crate::pg::process::lock;
use crate::pg::process::server;
use crate::pg::process::session::{Db, Planning};
use crate::pg::query::columns::columns;
use crate::pg::query::plan::{Plan, View};
use crate::pg::query::row::Row;
use crate::pg::value::datum::{Nullable, from_text, from_uuid, varlena};
use crate::shared::counters::{self, Counter};
use crate::shared::session::as_owner;
use crate::shared::trial;
use eventstream_core::command::operation::{Known, Outcome, Stage, event_id, request_digest};
use eventstream_core::error::Error;
use eventstream_core::event_id::to_uuid_text;
use eventstream_core::hash::Hash;
use eventstream_core::shown;
use eventstream_core::word::Word as _;
use pgrx::pg_sys::{
    BOOLOID, BYTEAOID, Datum, INT8OID, INTERVALOID, JSONBOID, TEXTOID, TIMESTAMPTZOID, TransactionId, UUIDOID,
};
use std::time::{Duration, Instant};

/// The first id of a transaction that was ever given.
const FIRST_NORMAL: u32 = 3;
/// How often somebody who waits looks again.
const PAUSE: Duration = Duration::from_millis(50);
/// What is waited for a row that somebody has in hand, where the caller would not wait.
const GLANCE: Duration = Duration::from_millis(1);
/// The most answers that are forgotten in a step of upkeep.
const MOST_FORGOTTEN: i64 = 1_000;

/// What es_begin_command is given, checked. Lengths of time in microseconds.
pub struct Asked<'a> {
    pub operation: &'a str,
    pub key: &'a str,
    pub request: Jsonb<'a>,
    pub lease: i64,
    pub wait: i64,
    pub keep: Option<Datum>,
    pub subject: Option<&'a str>,
}

/// What it is answered.
pub struct Begun {
    /// execute, replay, in_progress
    pub outcome: &'static str,
    pub attempt: Option<i32>,
    pub token: Option<[u8; 16]>,
    pub lease_until: Option<i64>,
    /// JSON as text.
    pub result: Option<String>,
    /// JSON as text.
    pub error: Option<String>,
}

columns! {
    mod of, selected;
    STAGE = "stage",
    ATTEMPT = "attempt",
    LEASE_UNTIL = "lease_until",
    SALT = "salt",
    REQUEST_DIGEST = "request_digest",
    IS_RETRYABLE = "is_retryable",
    FORGET_AT = "forget_at",
    BEGUN_AT = "begun_at",
    RESULT = "result::text",
    LAST_ERROR = "last_error::text",
    CHANGED_BY = "xmax::text::bigint",
}

thread_local! {
    static KNOWN: Plan = const { Plan::new("select from _eventstream.operations where tenant_id = $1 and operation = $2 limit 1", &[INT8OID, TEXTOID]) };
    static LOOK: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.operations where tenant_id = $1 and operation = $2 and command_key = $3"),
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static LOCK: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.operations where tenant_id = $1 and operation = $2 and command_key = $3 for update"),
        &[INT8OID, TEXTOID, TEXTOID],
    ) };
    static INSERT: Plan = const { Plan::new(
        "insert into _eventstream.operations (tenant_id, operation, command_key, stage, attempt, attempt_token, lease_until, salt, request_digest, \
                                              keep, subject, begun_by, begun_at, attempted_at) \
         values ($1, $2, $3, 'executing', 1, $4, $5, $6, $7, $8, $9, $10, $11, $11) on conflict (tenant_id, operation, command_key) do nothing",
        &[INT8OID, TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, INTERVALOID, TEXTOID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static FIRST: Plan = const { Plan::new(
        "update _eventstream.operations set stage = 'executing', attempt = 1, attempt_token = $4, lease_until = $5, salt = $6, request_digest = $7, \
             keep = $8, subject = $9, begun_by = $10, begun_at = $11, attempted_at = $11, is_retryable = false, result = null, last_error = null, \
             finished_at = null, forget_at = null \
         where tenant_id = $1 and operation = $2 and command_key = $3",
        &[INT8OID, TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, INTERVALOID, TEXTOID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static AGAIN: Plan = const { Plan::new(
        "update _eventstream.operations set stage = 'executing', attempt = attempt + 1, attempt_token = $4, lease_until = $5, begun_by = $6, \
             attempted_at = $7, is_retryable = false, last_error = null, finished_at = null, forget_at = null \
         where tenant_id = $1 and operation = $2 and command_key = $3 returning attempt",
        &[INT8OID, TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID],
    ) };
    static FINISH: Plan = const { Plan::new(
        "update _eventstream.operations set stage = $3, result = $4, last_error = $5, is_retryable = $6, finished_at = $7, forget_at = case when $6 then null else $7 + keep end \
         where attempt_token = $1 and tenant_id = $2 and stage = 'executing' returning attempt",
        &[UUIDOID, INT8OID, TEXTOID, JSONBOID, JSONBOID, BOOLOID, TIMESTAMPTZOID],
    ) };
    static EXTEND: Plan = const { Plan::new(
        "update _eventstream.operations set lease_until = greatest(lease_until, $3) \
         where attempt_token = $1 and tenant_id = $2 and stage = 'executing' returning lease_until",
        &[UUIDOID, INT8OID, TIMESTAMPTZOID],
    ) };
    static BY_TOKEN: Plan = const { Plan::new(
        concat!("select ", selected!(), " from _eventstream.operations where attempt_token = $1 and tenant_id = $2"),
        &[UUIDOID, INT8OID],
    ) };
    static FORGET: Plan = const { Plan::new(
        "update _eventstream.operations set stage = 'forgotten', result = null, last_error = null, subject = null, forget_at = null \
         where ctid = any (array(select ctid from _eventstream.operations where forget_at <= $1 and ($2 is null or tenant_id = $2) \
                                 order by forget_at limit $3 for update skip locked))",
        &[TIMESTAMPTZOID, INT8OID, INT8OID],
    ) };
}

/// A row, as far as calls of its key depend on it.
struct Found {
    stage: Stage,
    attempt: i32,
    lease_until: i64,
    salt: Vec<u8>,
    digest: Vec<u8>,
    is_retryable: bool,
    forget_at: Option<i64>,
    begun_at: i64,
    result: Option<String>,
    error: Option<String>,
    /// The transaction that has its row in hand, or had.
    changed_by: i64,
}

fn found(row: &Row) -> Result<Found> {
    let stage = row.text(of::STAGE)?;
    Ok(Found {
        stage: Stage::named(stage).ok_or_else(|| Error::Internal { what: format!("an operation is {stage}") })?,
        attempt: row.int4(of::ATTEMPT)?,
        lease_until: row.int8(of::LEASE_UNTIL)?,
        salt: row.bytes_opt(of::SALT)?.unwrap_or_default().to_vec(),
        digest: row.bytes_opt(of::REQUEST_DIGEST)?.unwrap_or_default().to_vec(),
        is_retryable: row.boolean(of::IS_RETRYABLE)?,
        forget_at: row.int8_opt(of::FORGET_AT),
        begun_at: row.int8(of::BEGUN_AT)?,
        result: row.text_opt(of::RESULT)?.map(ToOwned::to_owned),
        error: row.text_opt(of::LAST_ERROR)?.map(ToOwned::to_owned),
        changed_by: row.int8(of::CHANGED_BY)?,
    })
}

/// One call of es_begin_command.
struct Call<'a> {
    target: Target<'a>,
    asked: &'a Asked<'a>,
    /// As PostgreSQL prints it, without what is protected.
    request: &'a [u8],
    begun_by: String,
}

/// An attempt that is under way.
#[derive(Clone, Copy)]
struct Attempt {
    number: i32,
    lease_until: i64,
    changed_by: i64,
}

impl Attempt {
    fn of(row: &Found) -> Self {
        Self { number: row.attempt, lease_until: row.lease_until, changed_by: row.changed_by }
    }
}

/// What a look at the row came to.
enum Step {
    Done(Begun),
    /// By an attempt that is under way, if it can be seen already.
    InProgress(Option<Attempt>),
    /// Somebody else was faster: look again.
    Changed,
}

/// Errors: ES005, ES007, ES026, ES030.
pub fn begin(target: Target, asked: &Asked) -> Result<Begun> {
    activation::must_be_active("es_begin_command")?;
    let request = covered::compared("request", target.id, asked.operation, &print("request", asked.request)?)?;
    let begun_by = server::role_name(server::session_role())?;
    let call = Call { target, asked, request, begun_by };
    let (began, wait) = (Instant::now(), Duration::from_micros(asked.wait.unsigned_abs()));
    loop {
        let left = wait.saturating_sub(began.elapsed());
        match call.step(left)? {
            Step::Done(begun) => return Ok(begun),
            Step::Changed => server::check_for_interrupts()?,
            Step::InProgress(attempt) if left.is_zero() => {
                return Ok(Begun {
                    attempt: attempt.map(|attempt| attempt.number),
                    lease_until: attempt.map(|attempt| attempt.lease_until),
                    ..Begun::of("in_progress")
                });
            }
            Step::InProgress(attempt) => call.wait(attempt, left)?,
        }
    }
}

impl Begun {
    const fn of(outcome: &'static str) -> Self {
        Self { outcome, attempt: None, token: None, lease_until: None, result: None, error: None }
    }
}

impl Call<'_> {
    fn key(&self) -> Result<[Nullable; 3]> {
        let Asked { operation, key, .. } = self.asked;
        Ok([Some(Datum::from(self.target.id)), Some(from_text(operation)?), Some(from_text(&trial::key(key))?)])
    }

    fn step(&self, left: Duration) -> Result<Step> {
        let row =
            as_owner(Planning::ByIndex, |db, _| LOOK.with(|plan| plan.first(db, View::Latest, &self.key()?, found)))?;
        if let Some(row) = &row {
            match self.outcome(row) {
                Outcome::First | Outcome::Again => {}
                outcome => return self.told(row, outcome),
            }
        }
        server::must_be_writable(c"es_begin_command")?;
        let passing = gate::pass(self.target.id)?;
        ended::must_be_open(self.target.id)?;
        // Whoever has it in hand is waited for with everybody's locks, so that a deadlock is one.
        let had = lock::patiently(left.max(GLANCE), || {
            as_owner(Planning::ByIndex, |db, _| match row {
                None => self.insert(db),
                Some(_) => self.take_over(db),
            })
        })?;
        match had {
            Some(Step::Done(begun)) => Ok(Step::Done(begun)),
            // Who waits for another's attempt keeps nobody from closing the tenant.
            other => {
                passing.leave()?;
                Ok(other.unwrap_or(Step::InProgress(row.as_ref().map(Attempt::of))))
            }
        }
    }

    /// Waits for the end of the transaction that has the row in hand, so that a deadlock is one; where nobody has, for a moment.
    fn wait(&self, attempt: Option<Attempt>, left: Duration) -> Result<()> {
        let began = Instant::now();
        if let Some(changed_by) =
            attempt.and_then(|attempt| u32::try_from(attempt.changed_by).ok()).filter(|&id| id >= FIRST_NORMAL)
        {
            lock::patiently(left, || lock::wait_for_end_of(TransactionId::from(changed_by)))?;
        }
        if began.elapsed() < PAUSE { server::pause(PAUSE.min(left)) } else { Ok(()) }
    }

    fn outcome(&self, row: &Found) -> Outcome {
        let digest: Hash = request_digest(&row.salt, self.request);
        let known = Known {
            stage: row.stage,
            is_same: digest[..] == row.digest[..],
            is_retryable: row.is_retryable,
            lease_until: row.lease_until,
            forget_at: row.forget_at,
        };
        known.outcome(server::clock())
    }

    /// What needs no attempt.
    fn told(&self, row: &Found, outcome: Outcome) -> Result<Step> {
        match outcome {
            Outcome::Differs => {
                let of = format!("operation {}", shown(self.asked.operation));
                Err(covered::reused(self.target.id, self.asked.operation, of, self.asked.key, Some(row.begun_at))?
                    .into())
            }
            Outcome::Replay => {
                counters::add(Counter::CommandsReplayed, 1);
                let (tenant_id, operation) = (self.target.id, self.asked.operation);
                let result = self.shown(row.result.as_deref(), |result| {
                    Ok(covered::result(tenant_id, operation, Some(result))?.unwrap_or(result))
                })?;
                let error = self.shown(row.error.as_deref(), |error| covered::error(tenant_id, operation, error))?;
                Ok(Step::Done(Begun { attempt: Some(row.attempt), result, error, ..Begun::of("replay") }))
            }
            Outcome::InProgress => Ok(Step::InProgress(Some(Attempt::of(row)))),
            Outcome::First | Outcome::Again => Ok(Step::Changed),
        }
    }

    /// What came of it, as it is told.
    fn shown(&self, document: Option<&str>, told: impl Fn(Jsonb) -> Result<Jsonb>) -> Result<Option<String>> {
        let Some(text) = document else { return Ok(None) };
        if !covered::has_secrets(self.target.id, self.asked.operation)? {
            return Ok(Some(text.to_owned()));
        }
        Ok(Some(String::from_utf8_lossy(told(Jsonb::parse(text)?)?.text()?).into_owned()))
    }

    fn insert(&self, db: &Db) -> Result<Step> {
        let (row, begun) = self.fresh()?;
        Ok(if INSERT.with(|plan| plan.write(db, &row))? == 1 { Step::Done(begun) } else { Step::Changed })
    }

    /// Judged again behind the row's lock.
    fn take_over(&self, db: &Db) -> Result<Step> {
        let row = LOCK.with(|plan| plan.first(db, View::Write, &self.key()?, found))?;
        let Some(row) = row else { return Ok(Step::Changed) };
        match self.outcome(&row) {
            Outcome::First => {
                let (row, begun) = self.fresh()?;
                FIRST.with(|plan| plan.write(db, &row))?;
                Ok(Step::Done(begun))
            }
            Outcome::Again => self.again(db).map(Step::Done),
            outcome => self.told(&row, outcome),
        }
    }

    /// The first attempt of what is new, or was forgotten: with a request and a salt of its own.
    fn fresh(&self) -> Result<([Nullable; 11], Begun)> {
        let (token, salt, now) = (new_token()?, server::random_bytes()?, server::clock());
        let lease_until = now.saturating_add(self.asked.lease);
        let [tenant, operation, key] = self.key()?;
        let row = [
            tenant,
            operation,
            key,
            Some(from_uuid(&token)?),
            Some(Datum::from(lease_until)),
            Some(varlena(&salt)?),
            Some(varlena(&request_digest(&salt, self.request))?),
            self.asked.keep,
            self.asked.subject.map(from_text).transpose()?,
            Some(from_text(&self.begun_by)?),
            Some(Datum::from(now)),
        ];
        Ok((row, execute(1, token, lease_until)))
    }

    fn again(&self, db: &Db) -> Result<Begun> {
        let (token, now) = (new_token()?, server::clock());
        let lease_until = now.saturating_add(self.asked.lease);
        let [tenant, operation, key] = self.key()?;
        let row = [
            tenant,
            operation,
            key,
            Some(from_uuid(&token)?),
            Some(Datum::from(lease_until)),
            Some(from_text(&self.begun_by)?),
            Some(Datum::from(now)),
        ];
        let attempt = AGAIN.with(|plan| plan.first(db, View::Write, &row, |row| row.int4(0)))?;
        let attempt = attempt.ok_or_else(|| Error::Internal { what: "a locked operation is gone".into() })?;
        Ok(execute(attempt, token, lease_until))
    }
}

fn execute(attempt: i32, token: [u8; 16], lease_until: i64) -> Begun {
    Begun { attempt: Some(attempt), token: Some(token), lease_until: Some(lease_until), ..Begun::of("execute") }
}

/// Whoever has it may finish the attempt, so nobody guesses one. A uuid of version 4.
fn new_token() -> Result<[u8; 16]> {
    let mut token = server::random_bytes()?;
    token[6] = token[6] & 0x0F | 0x40;
    token[8] = token[8] & 0x3F | 0x80;
    Ok(token)
}

/// How an attempt ended.
#[derive(Clone, Copy)]
pub enum End<'a> {
    Completed(Jsonb<'a>),
    Failed { error: Jsonb<'a>, is_retryable: bool },
}

/// Ends an attempt; its number. Said again as it was, it is answered as the first time. Errors: ES007, ES031.
pub fn finish(target: Target, token: &[u8; 16], end: End) -> Result<i32> {
    let (stage, argument, document, is_retryable) = match end {
        End::Completed(result) => (Stage::Completed, "result", result, false),
        End::Failed { error, is_retryable } => (Stage::Failed, "error", error, is_retryable),
    };
    let text = print(argument, document)?.text;
    let (result, error) = if stage == Stage::Completed { (Some(document), None) } else { (None, Some(document)) };
    as_owner(Planning::ByIndex, |db, _| {
        let row = [
            Some(from_uuid(token)?),
            Some(Datum::from(target.id)),
            Some(from_text(stage.as_str())?),
            result.map(Jsonb::datum),
            error.map(Jsonb::datum),
            Some(Datum::from(is_retryable)),
            Some(Datum::from(server::clock())),
        ];
        if let Some(attempt) = FINISH.with(|plan| plan.first(db, View::Write, &row, |row| row.int4(0)))? {
            return Ok(attempt);
        }
        let row = by_token(db, target, token)?;
        let said = if stage == Stage::Completed { &row.result } else { &row.error };
        let is_said_again = row.stage == stage && row.is_retryable == is_retryable;
        if is_said_again && said.as_ref().is_some_and(|said| said.as_bytes() == text) {
            return Ok(row.attempt);
        }
        Err(lost(token, format!("it has {} already, with another answer", row.stage.as_str())))
    })
}

/// Has the lease of an attempt end no sooner than so many microseconds from now; when it does. Errors: ES031.
pub fn extend(target: Target, token: &[u8; 16], by: i64) -> Result<i64> {
    as_owner(Planning::ByIndex, |db, _| {
        let until = server::clock().saturating_add(by);
        let row = [Some(from_uuid(token)?), Some(Datum::from(target.id)), Some(Datum::from(until))];
        if let Some(until) = EXTEND.with(|plan| plan.first(db, View::Write, &row, |row| row.int8(0)))? {
            return Ok(until);
        }
        let row = by_token(db, target, token)?;
        Err(lost(token, format!("it has {} already", row.stage.as_str())))
    })
}

/// The id of the n-th event of the attempt's operation. Errors: ES031.
pub fn nth_event_id(target: Target, token: &[u8; 16], n: i64) -> Result<[u8; 16]> {
    as_owner(Planning::ByIndex, |db, _| Ok(event_id(&by_token(db, target, token)?.salt, n)))
}

/// The row whose newest attempt that is. Errors: ES031.
fn by_token(db: &Db, target: Target, token: &[u8; 16]) -> Result<Found> {
    let key = [Some(from_uuid(token)?), Some(Datum::from(target.id))];
    let row = BY_TOKEN.with(|plan| plan.first(db, View::Latest, &key, found))?;
    row.ok_or_else(|| lost(token, "it was superseded by another attempt, or never begun".into()))
}

fn lost(token: &[u8; 16], reason: String) -> Failure {
    Error::AttemptLost { attempt_token: to_uuid_text(token), reason }.into()
}

/// Whether one of that name was begun, and is not forgotten.
pub fn is_known(tenant_id: i64, operation: &str) -> Result<bool> {
    let key = [Some(Datum::from(tenant_id)), Some(from_text(operation)?)];
    as_owner(Planning::ByIndex, |db, _| KNOWN.with(|plan| plan.first(db, View::Latest, &key, |_| Ok(()))))
        .map(|found| found.is_some())
}

/// Forgets answers that were to be kept no longer, of a tenant or (None) of all: a bounded number. How many.
pub fn forget(tenant_id: Option<i64>) -> Result<i64> {
    as_owner(Planning::ByIndex, |db, _| {
        let row = [Some(Datum::from(server::clock())), tenant_id.map(Datum::from), Some(Datum::from(MOST_FORGOTTEN))];
        FORGET.with(|plan| plan.write(db, &row)).map(|forgotten| forgotten as i64)
    })
}
