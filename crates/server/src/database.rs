//! Connections: a pool for requests, single ones for what listens, TLS for both.
use crate::Failure;
use crate::settings::Database;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use eventstream_client::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a request waits for a connection of the pool.
const MOST_WAITED: Duration = Duration::from_secs(5);

/// TLS by rustls. tokio-postgres asks for a connector also where there is no host, for a unix socket, and then does not use it.
#[derive(Clone)]
pub struct Tls(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let host = if host.is_empty() { "localhost" } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, host)
    }
}

/// What reads and writes the socket of a connection.
pub type Driver = Connection<Socket, <Tls as MakeTlsConnect<Socket>>::Stream>;

#[derive(Clone)]
pub struct Connections {
    pool: Pool,
    config: tokio_postgres::Config,
    tls: Tls,
    pub statement_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("all {0} connections to the database are busy")]
    Busy(usize),
    #[error("{0}")]
    Refused(#[from] Error),
}

impl Connections {
    pub fn new(settings: &Database) -> Result<Self, Failure> {
        let (config, tls) = (settings.config()?, tls(settings)?);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(settings.connections.max(1))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(MOST_WAITED))
            .create_timeout(Some(MOST_WAITED))
            .build()
            .map_err(|said| Failure::Setting { path: "database.connections".into(), said: said.to_string() })?;
        Ok(Self { pool, config, tls, statement_timeout: settings.statement_timeout() })
    }

    pub async fn one(&self) -> Result<Object, NoConnection> {
        use deadpool_postgres::PoolError;
        match self.pool.get().await {
            Ok(client) => Ok(client),
            Err(PoolError::Backend(failure)) => Err(Error::from(failure).into()),
            Err(_) => Err(NoConnection::Busy(self.pool.status().max_size)),
        }
    }

    /// A connection outside of the pool, with what reads its socket.
    pub async fn alone(&self) -> Result<(tokio_postgres::Client, Driver), Error> {
        self.config.connect(self.tls.clone()).await.map_err(Error::from)
    }
}

fn tls(settings: &Database) -> Result<Tls, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    match &settings.root_certificates {
        Some(path) => {
            let said = |said: String| Failure::Setting { path: path.display().to_string(), said };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|cause| said(cause.to_string()))? {
                roots
                    .add(certificate.map_err(|cause| said(cause.to_string()))?)
                    .map_err(|cause| said(cause.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|said| Failure::Setting { path: "TLS".into(), said: said.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls(MakeRustlsConnect::new(config)))
}
