use axum::routing::get;
use axum::{Json as Answer, Router};
use http::StatusCode;
use secretfs_wire::api::{Health, HealthState};

use crate::error::Error;

/// All that a sealed manager answers: that it is sealed.
pub(crate) fn sealed_router() -> Router {
    Router::new()
        .route("/v1/sys/health", get(health))
        .fallback(|| async { Error::Sealed })
        .method_not_allowed_fallback(|| async { Error::Sealed })
}

async fn health() -> (StatusCode, Answer<Health>) {
    let health = Health {
        state: HealthState::Sealed,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        reason: Some("waits for its unlock key".to_owned()),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Answer(health))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, Request};
    use secretfs_wire::api::ErrorCode;
    use tower::ServiceExt as _;

    use super::*;
    use crate::testing::read;

    async fn ask(method: Method, path: &str) -> crate::testing::Answer {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        read(sealed_router().oneshot(request).await.expect("infallible")).await
    }

    #[tokio::test]
    async fn its_health_is_that_it_is_sealed_and_all_else_is_refused() {
        let health = ask(Method::GET, "/v1/sys/health").await;
        assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.json::<Health>().state, HealthState::Sealed);
        for (method, path) in [
            (Method::GET, "/v1/environments"),
            (Method::POST, "/v1/sys/health"),
            (Method::GET, "/metrics"),
            (Method::POST, "/v1/node/join"),
            (Method::GET, "/"),
        ] {
            let refused = ask(method, path).await;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let error = refused.error();
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert_eq!(error.message, "the manager is sealed");
        }
    }
}
