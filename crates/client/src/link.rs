//! A connection that comes back: made when it is first needed, and again where it was lost. What was under way when it was lost fails, and its caller decides whether to send it again.
use crate::again::{Again, Reason};
use crate::command::{Answer, Command};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::scope::Scope;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{CancelToken, Client, Config, Socket};

/// A TLS connector that a link can use again and again: tokio_postgres::NoTls for none.
pub trait Tls:
    MakeTlsConnect<Socket, Stream: Send, TlsConnect: Send + TlsConnect<Socket, Future: Send>> + Clone + Send + 'static
{
}

impl<T> Tls for T where
    T: MakeTlsConnect<Socket, Stream: Send, TlsConnect: Send + TlsConnect<Socket, Future: Send>>
        + Clone
        + Send
        + 'static
{
}

/// Connects by a configuration and a TLS connector.
pub struct Link<T> {
    config: Config,
    tls: T,
    open: Option<Open>,
}

struct Open {
    client: Client,
    /// What reads and writes the socket; ends with the client.
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Ends the statement that a connection is at.
pub struct Canceller<T> {
    token: CancelToken,
    tls: T,
}

impl<T: Tls> Canceller<T> {
    pub async fn cancel(self) {
        // Where the server cannot be had, the statement has ended, too.
        let _ = self.token.cancel_query(self.tls).await;
    }
}

impl<T: Tls> Link<T> {
    pub fn new(config: Config, tls: T) -> Self {
        Self { config, tls, open: None }
    }

    /// The client, connected.
    pub async fn client(&mut self) -> Result<&Client> {
        if self.open.as_ref().is_none_or(|open| open.client.is_closed()) {
            let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(Error::from)?;
            let driver = tokio::spawn(async move {
                // What it ends with is told to whoever waits for an answer.
                let _ = connection.await;
            });
            self.open = Some(Open { client, driver });
        }
        let open = self.open.as_ref().ok_or_else(|| Error::Argument("no connection was opened".into()))?;
        Ok(&open.client)
    }

    /// The client, and what ends the statement that it is at.
    pub async fn with_canceller(&mut self) -> Result<(&Client, Canceller<T>)> {
        let tls = self.tls.clone();
        let client = self.client().await?;
        Ok((client, Canceller { token: client.cancel_token(), tls }))
    }

    /// Gives the connection up; the next call makes another one.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Sends a command until it is answered. It must bear a key: by it the database recognises what it executed before the connection was lost.
    pub async fn command(&mut self, scope: &Scope, command: &Command, again: Again) -> Result<Answer> {
        if command.key.is_none() {
            return Err(Error::Argument("a command that may be sent again needs a key: Command::key".into()));
        }
        let mut attempt = 1;
        loop {
            let answer = match self.client().await {
                Ok(client) => scope.one(client, Log::new(client).command(command)).await,
                Err(failure) => Err(failure),
            };
            let failure = match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let reason = Reason::of(&failure);
            if reason == Some(Reason::Connection) {
                self.close();
            }
            let allowed = matches!(reason, Some(Reason::Connection | Reason::Contention));
            let Some(pause) = again.pause(attempt).filter(|_| allowed) else { return Err(failure) };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}
