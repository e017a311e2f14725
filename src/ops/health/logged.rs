//! What the server's log is told of values that a statement is given: by the settings that sessions of this database begin with, each role's own included, and not by those of whoever asks.
use super::check::{Check, Level, first_lines};
use crate::pg::error::failure::Result;
use crate::pg::guc;
use crate::pg::process::session::Planning;
use crate::pg::query::plan::{Plan, View};
use crate::pg::value::datum::{from_text, text_array_of};
use crate::shared::session::as_owner;
use eventstream_core::{quote_identifier, shown};
use pgrx::pg_sys::{TEXTARRAYOID, TEXTOID};
use std::ffi::CStr;

/// A setting under which the log holds no values: what it has to be, and which values are that.
type Demanded = (&'static CStr, &'static str, fn(&str) -> bool);
const DEMANDED: [Demanded; 3] = [
    (c"log_parameter_max_length", "0", is_nothing),
    (c"log_parameter_max_length_on_error", "0", is_nothing),
    (c"log_min_error_statement", "panic", |value| ["panic", "fatal", "log"].contains(&value)),
];

/// Zero of whichever unit, as somebody wrote it.
fn is_nothing(value: &str) -> bool {
    value.starts_with('0') && value.trim_start_matches('0').trim().chars().all(|unit| unit.is_ascii_alphabetic())
}

/// Whose value it is (process_settings of utils/init/postinit.c, from the weakest on).
const SERVER: i32 = 0;
const ALL_ROLES: i32 = 1;
const DATABASE: i32 = 3;
const ROLE: i32 = 5;

/// So many settings of roles are named.
const MOST_NAMED: usize = 20;

thread_local! {
    /// What a session begins with: of those who have nothing of their own (whose name is NULL), and of each role that has. Each role is looked up by itself,
    /// whatever was known of their number when the plan was made.
    static BEGINNINGS: Plan = const { Plan::new(
        "with said (role, place, name, value) as ( \
             select s.setrole, (s.setrole <> 0)::int * 4 + (s.setdatabase <> 0)::int * 2 + 1, split_part(c.line, '=', 1), lower(substr(c.line, strpos(c.line, '=') + 1)) \
             from pg_db_role_setting s cross join unnest(s.setconfig) c (line) \
             where s.setdatabase in (0, (select oid from pg_database where datname = current_database())) and split_part(c.line, '=', 1) = any ($1) \
         ), of_all (name, place, value) as ( \
             select distinct on (v.name) v.name, v.place, v.value \
             from (select s.name, s.place, s.value from said s where s.role = 0 \
                   union all select p.name, 0, lower(p.value) from unnest($1, $2) p (name, value)) v order by v.name, v.place desc \
         ), own (role, name, place, value) as ( \
             select distinct on (s.role, s.name) s.role, s.name, s.place, s.value from said s where s.role <> 0 order by s.role, s.name, s.place desc \
         ) \
         select a.name, null as role, a.place, a.value, current_database()::text from of_all a \
         union all \
         select o.name, r.name, o.place, o.value, current_database()::text \
         from own o cross join lateral (select r.rolname::text as name from pg_roles r where r.oid = o.role and r.rolcanlogin offset 0) r \
         order by role nulls first, name",
        &[TEXTARRAYOID, TEXTARRAYOID],
    ) };
    /// By the files and what PostgreSQL itself begins with.
    static WRITTEN: Plan = const { Plan::new(
        "select coalesce((select f.setting from pg_show_all_file_settings() f where f.name = s.name and f.applied order by f.seqno desc limit 1), s.boot_val) \
         from pg_settings s where s.name = $1",
        &[TEXTOID],
    ) };
}

/// A value that is not as it has to be.
struct Other {
    setting: String,
    demanded: &'static str,
    role: Option<String>,
    place: i32,
    value: String,
    database: String,
}

pub fn check() -> Result<Check> {
    let others = others()?;
    if others.is_empty() {
        return Ok(Check::ok("protected fields", "the server's log is given no values of statements"));
    }
    let (of_role, of_all): (Vec<_>, Vec<_>) = others.iter().partition(|other| other.role.is_some());
    let mut found = Vec::new();
    if !of_all.is_empty() {
        let unset: Vec<_> = of_all.iter().map(|other| format!("{} = {}", other.setting, other.demanded)).collect();
        found.push(format!("{} is not set", unset.join(", ")));
    }
    if !of_role.is_empty() {
        let named = of_role.iter().take(MOST_NAMED).map(|other| {
            format!(
                "{} begins with {} = {}",
                shown(other.role.as_deref().unwrap_or_default()),
                other.setting,
                other.value
            )
        });
        let more = if of_role.len() > MOST_NAMED { ", …" } else { "" };
        found.push(format!("role {}{more}", named.collect::<Vec<_>>().join(", role ")));
    }
    let detail = format!(
        "the server's log may hold values of protected fields, with statements that are slow or fail: {}. What clients send as literals, and not as parameters, stands in such statements whatever is set but \
         log_min_error_statement; log_statement and log_min_duration_statement write them, too",
        found.join("; ")
    );
    let mut fix: Vec<_> = of_all.into_iter().map(Other::fix).collect();
    fix.extend(first_lines(of_role.into_iter().map(Other::fix), MOST_NAMED));
    fix.push("select pg_reload_conf();".to_owned());
    Ok(Check::bad("protected fields", Level::Warning, "values in the log", detail, fix.join("\n")))
}

impl Other {
    fn fix(&self) -> String {
        let (setting, database) = (&self.setting, quote_identifier(&self.database));
        let role = self.role.as_deref().map(quote_identifier).unwrap_or_default();
        match self.place {
            SERVER => format!("alter system set {setting} = {};", self.demanded),
            ALL_ROLES => format!("alter role all reset {setting};"),
            DATABASE => format!("alter database {database} reset {setting};"),
            ROLE => format!("alter role {role} reset {setting};"),
            _ => format!("alter role {role} in database {database} reset {setting};"),
        }
    }
}

fn others() -> Result<Vec<Other>> {
    let names: Vec<_> = DEMANDED.iter().map(|(name, ..)| name.to_string_lossy().into_owned()).collect();
    let values: Vec<_> = DEMANDED.iter().map(|(name, ..)| standing(name)).collect::<Result<_>>()?;
    let arguments = [Some(text_array_of(&names)?), Some(text_array_of(&values)?)];
    as_owner(Planning::ByIndex, |db, _| {
        BEGINNINGS.with(|plan| {
            let mut others = Vec::new();
            plan.rows(db, View::Latest, 0, &arguments, |row| {
                let (setting, value) = (row.text(0)?, row.text(3)?);
                let demanded = DEMANDED.iter().find(|(name, ..)| name.to_bytes() == setting.as_bytes());
                if let Some((_, demanded, _)) = demanded.filter(|(_, _, is_good)| !is_good(value)) {
                    let role = row.text_opt(1)?.map(ToOwned::to_owned);
                    let (setting, value, database) = (setting.to_owned(), value.to_owned(), row.text(4)?.to_owned());
                    others.push(Other { setting, demanded, role, place: row.int4(2)?, value, database });
                }
                Ok(())
            })?;
            Ok(others)
        })
    })
}

/// What the server's configuration says.
fn standing(name: &'static CStr) -> Result<String> {
    if let Some(value) = guc::standing(name)? {
        return Ok(value);
    }
    let name = [Some(from_text(&name.to_string_lossy())?)];
    let written = as_owner(Planning::ByCost, |db, _| {
        WRITTEN.with(|plan| plan.first(db, View::Latest, &name, |row| Ok(row.text_opt(0)?.map(ToOwned::to_owned))))
    })?;
    Ok(written.flatten().unwrap_or_default())
}
