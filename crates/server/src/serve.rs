//! `eventstream serve`: looks whether the schema fits, listens, and ends in order.
use crate::database::Connections;
use crate::live::Live;
use crate::settings::{Serve, Settings};
use crate::{Failure, migrate, rest, stop};
use eventstream_client::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What every request needs.
pub struct App {
    pub connections: Connections,
    pub settings: Serve,
    pub live: Live,
    pub stop: CancellationToken,
}

pub async fn serve(settings: Settings) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("EVENTSTREAM_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let connections = Connections::new(&settings.database)?;
    look(&connections).await?;
    let stop = stop::on_signal();
    let live = Live::listening(connections.clone(), settings.serve.max_live_streams, stop.clone());
    let address = settings.serve.listen;
    let drain = Duration::from_secs(settings.serve.drain_seconds);
    let app = Arc::new(App { connections, settings: settings.serve, live, stop: stop.clone() });
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|cause| Failure::Listen { address, cause })?;
    let bound = listener.local_addr().map_err(|cause| Failure::Listen { address, cause })?;
    tracing::info!("listening on http://{bound}");
    let ended = stop.clone();
    let served =
        axum::serve(listener, rest::router(app)).with_graceful_shutdown(async move { ended.cancelled().await });
    let over = async {
        stop.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = served => served.map_err(Failure::Runtime),
        () = over => {
            tracing::warn!("ended with requests open after {} s", drain.as_secs());
            Ok(())
        }
    }
}

/// Whether the schema of the database is one that this program serves.
async fn look(connections: &Connections) -> Result<(), Failure> {
    let (client, connection) = connections.alone().await?;
    let driver = tokio::spawn(connection);
    let reached = migrate::reached(&client).await;
    drop(client);
    let _ = driver.await;
    match migrate::misfit(reached?) {
        Some(said) => Err(Failure::Versions(said)),
        None => Ok(()),
    }
}

impl App {
    /// Whether it can serve: the database answers, and its schema fits.
    pub async fn is_ready(&self) -> Result<(), String> {
        let client = self.connections.one().await.map_err(|failure| failure.to_string())?;
        let reached = migrate::reached(&client).await.map_err(|failure: Error| failure.to_string())?;
        migrate::misfit(reached).map_or(Ok(()), Err)
    }
}
