//! The parts of a request that axum takes apart, with problem documents where they cannot be.
use crate::problem::Problem;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// What the path names.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let said = |rejected: PathRejection| Problem::status(rejected.status(), rejected.body_text());
        Path::from_request_parts(parts, state).await.map(|Path(named)| Self(named)).map_err(said)
    }
}

/// The whole body, no larger than it may be.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let said = |rejected: BytesRejection| Problem::status(rejected.status(), rejected.body_text());
        Bytes::from_request(request, state).await.map(Self).map_err(said)
    }
}
