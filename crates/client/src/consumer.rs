//! The loop of a subscription: fetch, handle, acknowledge.
//!
//! Promises: the events of a stream are handled in order, and one that fails keeps the later ones of its stream back, and nothing else; what was handled is acknowledged before the next batch is fetched;
//! a connection that is lost, or a server that restarts, costs a pause and repetitions, and skips nothing; a stop ends after the batch that is being handled.
use crate::again::{Again, Reason};
use crate::error::{Error, Kind, Result};
use crate::event::Delivery;
use crate::link::{Link, Tls};
use crate::log::Log;
use crate::scope::Scope;
use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It is delivered again after that time, or after the database's own pause, and the later events of its stream wait for it.
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// It goes to the dead letters, and its stream goes on behind it.
    DeadLetter {
        reason: String,
    },
}

/// The SQLSTATE of a statement that somebody ended.
const CANCELLED: &str = "57014";

/// How a subscription is consumed.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub subscription: String,
    /// A name of its own for each process.
    pub name: String,
    pub scope: Scope,
    /// 1 to 10,000 events.
    pub batch: i64,
    /// How long a batch may take; it is made longer while the batch is handled.
    pub lease: Duration,
    /// How long the server waits where there is nothing, 0 to 1 minute.
    pub wait: Duration,
    /// The pauses while the server cannot be had; tried without end.
    pub again: Again,
}

impl Consumer {
    pub fn new(subscription: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            subscription: subscription.into(),
            name: name.into(),
            scope: Scope::default(),
            batch: 100,
            lease: Duration::from_secs(30),
            wait: Duration::from_secs(5),
            again: Again {
                attempts: u32::MAX,
                first_pause: Duration::from_millis(100),
                longest_pause: Duration::from_secs(10),
            },
        }
    }

    /// Consumes until `stop`. `handle` is given the events of a batch one after another. Returns how many were handled. Ends with an error only where the same again would fail again.
    pub async fn run<T: Tls>(
        &self,
        link: &mut Link<T>,
        stop: &CancellationToken,
        mut handle: impl AsyncFnMut(&Delivery) -> Outcome,
    ) -> Result<u64> {
        let (mut handled, mut failures) = (0, 0);
        while !stop.is_cancelled() {
            let done = match self.fetch(link, stop).await {
                Ok(batch) => self.batch(link, &batch, &mut handle).await,
                Err(failure) => Err(failure),
            };
            match done {
                Ok(count) => {
                    handled += count;
                    failures = 0;
                }
                Err(failure) => {
                    failures += 1;
                    let Some(pause) = self.pause(&failure, failures) else { return Err(failure) };
                    if failure.is_of_connection() {
                        link.close();
                    }
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
                }
            }
        }
        Ok(handled)
    }

    /// The pause before it goes on after a failure; None where that is of no use.
    fn pause(&self, failure: &Error, failures: u32) -> Option<Duration> {
        let passes = matches!(Reason::of(failure), Some(Reason::Connection | Reason::Contention))
            || matches!(failure.kind(), Some(Kind::LeaseLost | Kind::Unavailable | Kind::UsersCode));
        if passes { self.again.pause(failures) } else { None }
    }

    async fn fetch<T: Tls>(&self, link: &mut Link<T>, stop: &CancellationToken) -> Result<Vec<Delivery>> {
        let (client, canceller) = link.with_canceller().await?;
        let log = Log::new(client);
        let fetched = log.fetch(&self.subscription, &self.name, self.batch, (self.lease, self.wait));
        let mut fetched = pin!(self.scope.one(client, fetched));
        tokio::select! {
            biased;
            fetched = &mut fetched => fetched,
            // It waits on the server. What it was given there meanwhile is leased, and handled before the end.
            () = stop.cancelled() => {
                canceller.cancel().await;
                match fetched.await {
                    Err(failure) if failure.refusal().is_some_and(|said| said.sqlstate == CANCELLED) => Ok(Vec::new()),
                    fetched => fetched,
                }
            }
        }
    }

    /// Handles what was leased, and says so; how many were handled.
    async fn batch<T: Tls>(
        &self,
        link: &mut Link<T>,
        batch: &[Delivery],
        handle: &mut impl AsyncFnMut(&Delivery) -> Outcome,
    ) -> Result<u64> {
        let Some(first) = batch.first() else { return Ok(0) };
        let mut failed: HashSet<&str> = HashSet::new();
        let mut handled = 0;
        let mut held =
            Held { scope: &self.scope, client: link.client().await?, lease: self.lease, since: Instant::now() };
        for delivery in batch {
            if failed.contains(delivery.event.stream.as_str()) {
                continue;
            }
            let (reason, after, is_dead) = match held.during(delivery, handle).await? {
                Outcome::Done => {
                    handled += 1;
                    continue;
                }
                Outcome::Retry { reason, after } => (reason, after, false),
                Outcome::DeadLetter { reason } => (reason, None, true),
            };
            // First what failed is given back, with the later events of its stream; then the rest is acknowledged whole.
            failed.insert(&delivery.event.stream);
            let log = Log::new(held.client);
            let position = delivery.event.global_position;
            self.scope.one(held.client, log.nack(delivery.lease_id, position, &reason, after, is_dead)).await?;
        }
        let acknowledged = self.scope.one(held.client, Log::new(held.client).ack(first.lease_id, None)).await;
        match acknowledged {
            // Every event of it was given back.
            Err(failure) if failure.kind() == Some(Kind::LeaseLost) && handled == 0 => Ok(0),
            acknowledged => acknowledged.map(|_| handled),
        }
    }
}

/// A lease that is held while its events are handled.
struct Held<'a> {
    scope: &'a Scope,
    client: &'a Client,
    lease: Duration,
    /// When it was last made as long as it can be.
    since: Instant,
}

impl Held<'_> {
    /// Handles one event; the lease is made longer before a third of it is over.
    async fn during(
        &mut self,
        delivery: &Delivery,
        handle: &mut impl AsyncFnMut(&Delivery) -> Outcome,
    ) -> Result<Outcome> {
        let log = Log::new(self.client);
        let mut work = pin!(handle(delivery));
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.since + self.lease / 3) => {
                    self.since = Instant::now();
                    self.scope.one(self.client, log.extend_lease(delivery.lease_id, self.lease)).await?;
                }
                outcome = &mut work => return Ok(outcome),
            }
        }
    }
}
