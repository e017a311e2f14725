//! One row of health: what was looked at, what it found, and what mends it.
use crate::pg::error::failure::Result;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::Plan;
use crate::pg::query::plan::View;
use crate::shared::session::as_owner;
use eventstream_core::counted;
use eventstream_core::quote_literal;

thread_local! {
    static PLACE: Plan = const { Plan::new(
        "select case when n.nspname = 'public' then '' else quote_ident(n.nspname) || '.' end, \
                (select count(*) from _eventstream.tenants) > 1 \
         from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'eventstream'",
        &[],
    ) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: String,
    /// None: the database's or the server's.
    pub tenant: Option<String>,
    pub level: Level,
    /// What is wrong, in a word: a change of it is worth telling, a change of the numbers in `detail` is not.
    pub problem: &'static str,
    pub detail: String,
    pub fix: Option<String>,
}

impl Check {
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        Self { name, tenant: None, level: Level::Ok, problem: "", detail, fix: None }
    }

    pub fn bad(name: impl Into<String>, level: Level, problem: &'static str, detail: String, fix: String) -> Self {
        Self { name: name.into(), tenant: None, level, problem, detail, fix: Some(fix) }
    }

    pub fn of(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
    }
}

/// How statements are written here: where the functions stand, and whether a tenant has to be chosen.
pub struct Writing {
    schema: String,
    names_tenant: bool,
}

impl Writing {
    pub fn look() -> Result<Self> {
        let found = as_owner(Planning::ByIndex, |db, _| {
            PLACE.with(|place| {
                place.first(db, View::Latest, &[], |row| {
                    Ok(Self { schema: row.text(0)?.to_owned(), names_tenant: row.boolean(1)? })
                })
            })
        })?;
        Ok(found.unwrap_or(Self { schema: String::new(), names_tenant: true }))
    }

    /// `select NAME(ARGUMENTS);`, in the tenant.
    pub fn call(&self, tenant: Option<&str>, name: &str, arguments: &str) -> String {
        format!("{}select {}{name}({arguments});", self.choice(tenant), self.schema)
    }

    /// What chooses the tenant, where there are several.
    pub fn choice(&self, tenant: Option<&str>) -> String {
        match tenant {
            Some(tenant) if self.names_tenant => format!("set eventstream.tenant = {};\n", quote_literal(tenant)),
            _ => String::new(),
        }
    }

    /// What is about to go, to be looked at first.
    pub fn look_up(&self, view: &str, name: &str) -> String {
        format!("select * from eventstream.{view} where name = {};", quote_literal(name))
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }
}

/// The first of a fix's statements, where they are many.
pub fn first_lines(statements: impl ExactSizeIterator<Item = String>, most: usize) -> Vec<String> {
    let more = statements.len().saturating_sub(most);
    let note = (more > 0).then(|| format!("-- and {more} more: look again then, and the next ones are named"));
    statements.take(most).chain(note).collect()
}

/// "12.3 s", for people.
pub fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

/// Of a projection or a subscription.
pub fn dead_letters(kind: &str, tenant: &str, name: &str, count: i64, writing: &Writing) -> Check {
    let fix = format!(
        "{}select {}es_retry_dead_letter(id) from eventstream.dead_letters where {kind} = {} order by id;",
        writing.choice(Some(tenant)),
        writing.schema(),
        quote_literal(name)
    );
    let events = counted(count, "event", "events");
    let detail = format!(
        "{events} could not be processed by {kind} {name} and went to the dead letters: mend the cause, then try again, or give up with \
         es_drop_dead_letter(id, reason)"
    );
    Check::bad(format!("dead letters of {name}"), Level::Critical, "dead letters", detail, fix).of(tenant)
}
