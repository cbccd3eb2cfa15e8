//! When a connection has had no request for a while.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use tokio::sync::watch;
use tokio::time::timeout;

/// How many requests of one connection are under way.
#[derive(Clone, Default)]
pub(super) struct Requests(watch::Sender<usize>);

/// One of them; it is over when this is dropped.
struct UnderWay(Requests);

impl Requests {
    /// Counts those that this router answers.
    pub(super) fn count(&self, router: Router) -> Router {
        let requests = self.clone();
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let under_way = requests.begin();
            async move {
                let _under_way = under_way;
                next.run(request).await
            }
        }))
    }

    fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Waits until there has been none for so long.
    pub(super) async fn cease(&self, time: Duration) {
        let mut count = self.0.subscribe();
        // One that begins or ends begins the time anew.
        while timeout(time, count.changed()).await.is_ok() || *count.borrow() > 0 {}
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_waited_for_however_long_it_takes() {
        let (requests, while_quiet) = (Requests::default(), Duration::from_millis(10));
        let long = requests.begin();
        let short = requests.begin();
        drop(short);
        timeout(while_quiet * 20, requests.cease(while_quiet)).await.expect_err("one is under way");
        drop(long);
        requests.cease(while_quiet).await;
    }
}
