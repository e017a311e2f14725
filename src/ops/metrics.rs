//! es_metrics: everything that is counted and measured, and how followers stand, in Prometheus' text exposition format 0.0.4
//! (https://prometheus.io/docs/instrumenting/exposition_formats/). Durations are in seconds.
use super::health;
use super::health::check::Level;
use super::health::{commands, event_types, scheduled};
use super::overview::subscriptions;
use super::overview::{self, Moment};
use crate::log::horizon;
use crate::pg::error::failure::Result;
use crate::pg::process::server;
use crate::pg::process::session::Planning;
use crate::shared::board::{self, runner};
use crate::shared::counters::{self, BOUNDS, Counter, Histogram};
use crate::shared::open_appends;
use crate::shared::session::as_owner;
use eventstream_core::word::Standing;
use std::fmt::{Display, Write};

/// A page of metrics.
struct Page(String);

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// What follows are samples of the metric `eventstream_NAME`.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP eventstream_{name} {help}\n# TYPE eventstream_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels, value: impl Display) {
        let _ = write!(self.0, "eventstream_{name}");
        for (place, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if place == 0 { "{" } else { "," });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    /// One metric for each of `all`.
    fn each<T, V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        all: &[T],
        labels: impl Fn(&T) -> [(&str, &str); 2],
        value: impl Fn(&T) -> V,
    ) {
        if !all.is_empty() {
            self.metric(name, kind, help);
        }
        for one in all {
            self.sample(name, &labels(one), value(one));
        }
    }
}

/// The whole page, of every tenant.
pub fn page() -> Result<String> {
    let mut page = Page(String::with_capacity(16 << 10));
    let moment = Moment::look()?;
    for counter in Counter::ALL {
        page.single(&format!("{}_total", counter.name()), "counter", counter.meaning(), counters::get(counter));
    }
    for histogram in Histogram::ALL {
        durations(&mut page, histogram);
    }
    database(&mut page, &moment)?;
    projections(&mut page, &moment)?;
    subscriptions(&mut page, &moment)?;
    schema_versions(&mut page)?;
    attempts(&mut page)?;
    scheduled_commands(&mut page)?;
    page.metric("health_status", "gauge", "The checks of eventstream.health: 0 ok, 1 warning, 2 critical");
    for check in health::look(None)? {
        let level = match check.level {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
        };
        let tenant = check.tenant.as_deref().unwrap_or_default();
        page.sample("health_status", &[("check", &check.name), ("tenant", tenant)], level);
    }
    Ok(page.0)
}

fn durations(page: &mut Page, histogram: Histogram) {
    let name = format!("{}_seconds", histogram.name());
    page.metric(&name, "histogram", histogram.meaning());
    let measured = counters::measured(histogram);
    let mut so_far = 0;
    for (bucket, bound) in measured.buckets.iter().zip(BOUNDS) {
        so_far += bucket;
        let bound = (bound as f64 / 1e6).to_string();
        page.sample(&format!("{name}_bucket"), &[("le", &bound)], so_far);
    }
    page.sample(&format!("{name}_bucket"), &[("le", "+Inf")], measured.count());
    page.sample(&format!("{name}_sum"), &[], measured.microseconds as f64 / 1e6);
    page.sample(&format!("{name}_count"), &[], measured.count());
}

fn database(page: &mut Page, moment: &Moment) -> Result<()> {
    let last_position = as_owner(Planning::ByIndex, |_, catalog| horizon::last_position(catalog))?;
    page.single("last_position", "gauge", "The last global position handed out", last_position);
    page.single(
        "settled_position",
        "gauge",
        "The position up to which the log is settled (the horizon of the tenant that is held back most)",
        moment.settled.lowest(),
    );
    let holders = open_appends::holders();
    let oldest = holders.iter().map(|held| held.since).min();
    let held = oldest.map_or(0.0, |since| (moment.now - since).max(0) as f64 / 1e6);
    page.single("horizon_held_seconds", "gauge", "Since when the oldest open transaction appends", held);
    let open = holders.len();
    page.single("open_appends", "gauge", "Open transactions that have appended", open);
    let is_active = i32::from(moment.is_active);
    page.single(
        "active",
        "gauge",
        "1 where this database is its log's home, 0 where es_activate() is waited for",
        is_active,
    );
    let scheduler = i32::from(board::database::is_scheduler_running());
    page.single("scheduler_running", "gauge", "1 where a scheduler works for this database", scheduler);
    let runners = runner::of_database(server::database()).filter(|runner| runner.process().pid().is_some()).count();
    page.single("runners", "gauge", "Background workers that advance projections of this database", runners);
    let missing = board::missing_workers();
    page.single("runners_missing", "gauge", "Runners for which max_worker_processes leaves no place", missing);
    Ok(())
}

fn schema_versions(page: &mut Page) -> Result<()> {
    let all = event_types::unreadable(None)?;
    if !all.is_empty() {
        let help = "Stored schema versions that no upcasters turn into the newest declared one of their event type";
        page.metric("schema_versions_without_upcaster", "gauge", help);
    }
    for (tenant, unreadable) in &all {
        page.sample("schema_versions_without_upcaster", &[("tenant", tenant)], unreadable.len());
    }
    Ok(())
}

fn attempts(page: &mut Page) -> Result<()> {
    let all = commands::attempts(None)?;
    fn labels(one: &commands::Attempts) -> [(&str, &str); 2] {
        [("tenant", &one.tenant), ("kind", "operation")]
    }
    let under_way = ("attempts_under_way", "gauge", "Operations outside that somebody executes now");
    page.each(under_way, &all, labels, |one| one.under_way);
    let left =
        ("attempts_left", "gauge", "Operations outside whose attempt was left without an end more than an hour ago");
    page.each(left, &all, labels, |one| one.left);
    Ok(())
}

fn scheduled_commands(page: &mut Page) -> Result<()> {
    let all = scheduled::standing(None)?;
    fn labels(one: &scheduled::Scheduled) -> [(&str, &str); 2] {
        [("tenant", &one.tenant), ("kind", "scheduled")]
    }
    let gauge = |name, help| (name, "gauge", help);
    let pending = gauge(
        "scheduled_commands_pending",
        "Commands that are to be executed later, or tried again; 1,000 at most are counted",
    );
    page.each(pending, &all, labels, |one| one.pending);
    let late =
        gauge("scheduled_commands_late", "Those of them whose time was longer ago than eventstream.lag_threshold");
    page.each(late, &all, labels, |one| one.late);
    let seconds =
        gauge("scheduled_commands_late_seconds", "Since the time of the first of them, 0 where that is yet to come");
    page.each(seconds, &all, labels, |one| one.late_seconds);
    let dead = gauge("scheduled_commands_dead", "Scheduled commands that failed too often");
    page.each(dead, &all, labels, |one| one.dead);
    Ok(())
}

fn projections(page: &mut Page, moment: &Moment) -> Result<()> {
    let all = overview::projections(moment, None)?;
    fn labels(one: &overview::Projection) -> [(&str, &str); 2] {
        [("tenant", &one.tenant), ("projection", &one.name)]
    }
    let gauge = |name, help| (name, "gauge", help);
    page.each(gauge("projection_position", "The checkpoint of a projection"), &all, labels, |one| one.position);
    let lag =
        gauge("projection_lag_positions", "Settled positions behind a checkpoint, 0 where none of them is for it");
    page.each(lag, &all, labels, |one| one.lag);
    let seconds =
        gauge("projection_lag_seconds", "Since the first event that a projection has not processed was recorded");
    page.each(seconds, &all, labels, |one| one.lag_seconds);
    let attempts = gauge("projection_failed_attempts", "Failed attempts at a projection's next event in a row");
    page.each(attempts, &all, labels, |one| one.attempts);
    let dead = gauge("projection_dead_letters", "Events that a projection passed over");
    page.each(dead, &all, labels, |one| one.dead_letters);
    let applied = ("projection_events_total", "counter", "Events that a projection has applied since it was created");
    page.each(applied, &all, labels, |one| one.applied);
    if !all.is_empty() {
        page.metric("projection_status", "gauge", "1 for the status that a projection has");
    }
    for one in &all {
        for &standing in Standing::ALL {
            let labels = [("tenant", one.tenant.as_str()), ("projection", &one.name), ("status", standing.as_str())];
            page.sample("projection_status", &labels, i32::from(one.standing == standing));
        }
    }
    Ok(())
}

fn subscriptions(page: &mut Page, moment: &Moment) -> Result<()> {
    let all = subscriptions::subscriptions(moment, None)?;
    fn labels(one: &subscriptions::Subscription) -> [(&str, &str); 2] {
        [("tenant", &one.tenant), ("subscription", &one.name)]
    }
    let gauge = |name, help| (name, "gauge", help);
    let position = gauge("subscription_position", "Everything up to here is acknowledged, dead or parked");
    page.each(position, &all, labels, |one| one.position);
    let lag = gauge("subscription_lag_positions", "Settled positions behind that, 0 where none of them is for it");
    page.each(lag, &all, labels, |one| one.lag);
    let seconds = gauge("subscription_lag_seconds", "Since the first event that is not acknowledged was recorded");
    page.each(seconds, &all, labels, |one| one.lag_seconds);
    let consumers = gauge("subscription_consumers", "Consumers of a subscription that were seen lately");
    page.each(consumers, &all, labels, |one| one.consumers);
    let leased = gauge("subscription_leased_events", "Events that consumers hold");
    page.each(leased, &all, labels, |one| one.leased);
    let parked = gauge("subscription_parked_streams", "Streams that wait for another try");
    page.each(parked, &all, labels, |one| one.parked);
    let dead = gauge("subscription_dead_letters", "Events that no consumer could process");
    page.each(dead, &all, labels, |one| one.dead_letters);
    Ok(())
}
