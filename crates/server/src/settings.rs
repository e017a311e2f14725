//! The configuration: a TOML file, and the environment for what differs between machines. No secret stands in either: a password is read from a file that `password_file` names.
use crate::Failure;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub database: Database,
    pub serve: Serve,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// As libpq writes it: key=value pairs, or postgresql://…; without a password. EVENTSTREAM_DATABASE takes its place.
    pub connection: String,
    /// The file that holds the password, and nothing else but a line's end.
    pub password_file: Option<PathBuf>,
    /// How many connections at most.
    pub connections: usize,
    /// The file with the certificates that the server's is checked by, in PEM; the system's where there is none.
    pub root_certificates: Option<PathBuf>,
    /// How long a statement of a request may take, in seconds.
    pub statement_timeout_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Where it listens. EVENTSTREAM_LISTEN takes its place. TLS is a proxy's.
    pub listen: SocketAddr,
    /// Of a request's body, in bytes.
    pub max_body_bytes: usize,
    /// How many live streams at once.
    pub max_live_streams: usize,
    /// How long open requests may go on after SIGTERM, in seconds.
    pub drain_seconds: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            connection: "host=/var/run/postgresql user=eventstream_web dbname=postgres".to_owned(),
            password_file: None,
            connections: 16,
            root_certificates: None,
            statement_timeout_seconds: 30,
        }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            max_body_bytes: 8 << 20,
            max_live_streams: 1_000,
            drain_seconds: 10,
        }
    }
}

impl Settings {
    /// From the file, if one is named, and the environment.
    pub fn load(path: Option<&Path>) -> Result<Self, Failure> {
        let mut settings = match path {
            None => Self::default(),
            Some(path) => {
                let text = read(path)?;
                let said = |said: toml::de::Error| Failure::Setting {
                    path: path.display().to_string(),
                    said: said.to_string(),
                };
                toml::from_str(&text).map_err(said)?
            }
        };
        if let Ok(connection) = std::env::var("EVENTSTREAM_DATABASE") {
            settings.database.connection = connection;
        }
        if let Ok(listen) = std::env::var("EVENTSTREAM_LISTEN") {
            let said = |_| Failure::Setting {
                path: "EVENTSTREAM_LISTEN".into(),
                said: format!("\"{listen}\" is no address and port, like 127.0.0.1:8090"),
            };
            settings.serve.listen = listen.parse().map_err(said)?;
        }
        Ok(settings)
    }
}

impl Database {
    /// How to connect. Errors name no value: a password may be written where none belongs.
    pub fn config(&self) -> Result<tokio_postgres::Config, Failure> {
        let wrong = |said: &str| Failure::Setting { path: "database.connection".into(), said: said.into() };
        let mut config: tokio_postgres::Config =
            self.connection.parse().map_err(|_| wrong("is no connection string of PostgreSQL"))?;
        if config.get_password().is_some() {
            return Err(wrong("holds a password: write it to a file, and name that as database.password_file"));
        }
        if let Some(path) = &self.password_file {
            config.password(read(path)?.trim_end_matches(['\r', '\n']));
        }
        config.application_name("eventstream");
        if config.get_hosts().iter().all(|host| matches!(host, tokio_postgres::config::Host::Unix(_))) {
            // As libpq has it: TLS is for the network.
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        }
        // Answers are the same whatever the role, or the database, has set for people.
        config.options(
            "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=1 -c search_path=public",
        );
        Ok(config)
    }

    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds.max(1))
    }
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|cause| Failure::File { path: path.into(), cause })
}
