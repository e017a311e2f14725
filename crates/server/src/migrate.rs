//! `eventstream migrate`: makes and upgrades the schema eventstream_server, never at start. Each step is a transaction, and once only; two that run at once take turns.
use crate::Failure;
use crate::database::Connections;
use crate::settings::Settings;
use eventstream_client::Error;

/// The steps, in their order. One that was released is never changed.
const STEPS: [(i32, &str, &str); 1] = [(1, "identity", include_str!("../migrations/0001_identity.sql"))];

/// The version that this program needs.
pub const NEEDED: i32 = STEPS[STEPS.len() - 1].0;

/// Held by whoever migrates: a number of our own.
const LOCK: &str = "select pg_advisory_lock(hashtextextended('eventstream_server migrate', 0))";

pub async fn migrate(settings: &Settings, is_dry_run: bool) -> Result<(), Failure> {
    let (client, connection) = Connections::new(&settings.database)?.alone().await?;
    let driver = tokio::spawn(connection);
    client.batch_execute(LOCK).await.map_err(Error::from)?;
    let reached = reached(&client).await?;
    if reached > NEEDED {
        return Err(Failure::Versions(newer(reached)));
    }
    for (version, name, sql) in STEPS.iter().filter(|(version, ..)| *version > reached) {
        if is_dry_run {
            println!("would take step {version}, {name}");
            continue;
        }
        let step = format!(
            "begin; set local search_path = public; {sql}; insert into eventstream_server.versions (version, name) values ({version}, '{name}'); commit"
        );
        client.batch_execute(&step).await.map_err(Error::from)?;
        println!("took step {version}, {name}");
    }
    if reached == NEEDED {
        println!("eventstream_server is at step {NEEDED} already");
    }
    drop(client);
    let _ = driver.await;
    Ok(())
}

/// The newest step that was taken; 0 where there is no schema yet.
pub async fn reached(client: &tokio_postgres::Client) -> Result<i32, Error> {
    let there = client.query_typed("select to_regclass('eventstream_server.versions') is not null", &[]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = client.query_typed("select coalesce(max(version), 0) from eventstream_server.versions", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// What to say where the schema does not fit this program.
pub fn misfit(reached: i32) -> Option<String> {
    match reached {
        NEEDED => None,
        0 => Some("the database has no schema eventstream_server yet: run `eventstream migrate`".to_owned()),
        older if older < NEEDED => Some(format!(
            "eventstream_server is at step {older}, and this program needs {NEEDED}: run `eventstream migrate`"
        )),
        // The next version only adds to what this one uses.
        one_more if one_more == NEEDED + 1 => None,
        other => Some(newer(other)),
    }
}

fn newer(reached: i32) -> String {
    format!("eventstream_server is at step {reached}, and this program knows {NEEDED}: run a newer one")
}
