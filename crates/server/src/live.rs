//! The knock on the door: one connection that listens for all live streams of this instance, and tells them that there may be something new. It carries no events: what each may see, it reads itself, from
//! where it is; so a notification that was lost, or sent while the connection was away, costs a pause and nothing else.
use crate::database::Connections;
use futures_util::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

/// Before it connects again.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Live {
    knocks: watch::Receiver<u64>,
    places: Arc<Semaphore>,
}

impl Live {
    /// Listens until `stop`, for at most `most` live streams.
    pub fn listening(connections: Connections, most: usize, stop: CancellationToken) -> Self {
        let (knock, knocks) = watch::channel(0);
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    failed = listen(&connections, &knock) => {
                        tracing::warn!("the connection that listens failed, and is made again: {failed}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Self { knocks, places: Arc::new(Semaphore::new(most)) }
    }

    /// What knocks from now on.
    pub fn knocks(&self) -> watch::Receiver<u64> {
        self.knocks.clone()
    }

    /// A place for a live stream, until it is dropped; None where all are taken.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// Listens until the connection fails, and says why it did.
async fn listen(connections: &Connections, knock: &watch::Sender<u64>) -> String {
    let (client, mut connection) = match connections.alone().await {
        Ok(connected) => connected,
        Err(failure) => return failure.to_string(),
    };
    let listening = client.batch_execute("listen eventstream");
    tokio::pin!(listening);
    let mut is_listening = false;
    loop {
        tokio::select! {
            said = &mut listening, if !is_listening => match said {
                // Whatever came before it began is read now.
                Ok(()) => { is_listening = true; knock.send_modify(|count| *count += 1); }
                Err(failure) => return failure.to_string(),
            },
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(_))) => knock.send_modify(|count| *count += 1),
                Some(Ok(_)) => {}
                Some(Err(failure)) => return failure.to_string(),
                None => return "it was closed".to_owned(),
            },
        }
    }
}
