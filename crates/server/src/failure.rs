//! Why the program ends.
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot read {path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error("{path}: {said}")]
    Setting { path: String, said: String },
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: std::net::SocketAddr, cause: std::io::Error },
    #[error("{0}")]
    Database(#[from] eventstream_client::Error),
    #[error("{0}")]
    Versions(String),
}
