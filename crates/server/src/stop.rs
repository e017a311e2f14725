//! The end: SIGTERM or Ctrl-C, after which open requests are finished and live streams are told to come back.
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal to end.
pub fn on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(cause) => {
                tracing::error!("cannot hear SIGTERM: {cause}");
                return;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        cancelled.cancel();
    });
    stop
}
