//! Follows a subscription and prints each event's position, stream and version: `consume CONNECTION SUBSCRIPTION NAME`. It ends, after the batch that it is at, with SIGINT.
use eventstream_client::consumer::{Consumer, Outcome};
use eventstream_client::link::Link;
use std::time::Duration;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(connection), Some(subscription), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err("usage: consume CONNECTION SUBSCRIPTION NAME".into());
    };
    let mut link = Link::new(connection.parse()?, NoTls);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopped.cancel();
    });
    let consumer = Consumer {
        batch: 10,
        lease: Duration::from_secs(5),
        wait: Duration::from_secs(1),
        ..Consumer::new(subscription, name)
    };
    let handled = consumer
        .run(&mut link, &stop, async |delivery| {
            let event = &delivery.event;
            println!("{} {} {} {}", event.global_position, event.stream, event.version, delivery.attempt);
            match event.event_type.as_str() {
                "Slow" => {
                    tokio::time::sleep(Duration::from_secs(7)).await;
                    Outcome::Done
                }
                "Fails" if delivery.attempt < 3 => {
                    Outcome::Retry { reason: "not yet".into(), after: Some(Duration::from_millis(100)) }
                }
                "Poison" => Outcome::DeadLetter { reason: "it cannot be".into() },
                _ => Outcome::Done,
            }
        })
        .await?;
    println!("handled {handled}");
    Ok(())
}
