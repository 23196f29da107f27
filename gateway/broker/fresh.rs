//! One answer kept for a while: asked once by many, stale when AWS is away.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::BrokerError;

/// How long an old answer stands in for one that AWS does not give.
const STALE: Duration = Duration::from_secs(5 * 60);
/// How long a failure answers those who were waiting for the same thing.
const FAILED: Duration = Duration::from_secs(1);

/// One kept answer; whoever comes while it is fetched waits for it.
pub(super) struct Fresh<T> {
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    answer: Option<(Instant, T)>,
    failure: Option<(Instant, BrokerError)>,
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { answer: None, failure: None }) }
    }
}

impl<T: Clone> Fresh<T> {
    /// The kept answer if `age` lets it live that long, else a new one.
    pub(super) async fn get(
        &self,
        age: impl Fn(&T) -> Duration,
        fetch: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let mut kept = self.kept.lock().await;
        if let Some((at, answer)) = &kept.answer
            && at.elapsed() < age(answer)
        {
            return Ok(answer.clone());
        }
        if let Some((at, failure)) = &kept.failure
            && at.elapsed() < FAILED
        {
            return kept.stale(failure.clone());
        }
        match fetch.await {
            Ok(answer) => {
                *kept = Kept { answer: Some((Instant::now(), answer.clone())), failure: None };
                Ok(answer)
            }
            Err(failure) => {
                kept.failure = Some((Instant::now(), failure.clone()));
                kept.stale(failure)
            }
        }
    }

    /// Whether nobody uses it and nothing in it can be served any more.
    pub(super) fn is_spent(&self) -> bool {
        let Ok(kept) = self.kept.try_lock() else { return false };
        kept.answer.as_ref().is_none_or(|(at, _)| at.elapsed() > STALE)
    }
}

impl<T: Clone> Kept<T> {
    /// The old answer, if the failure is one that passes by itself.
    fn stale(&self, failure: BrokerError) -> Result<T, BrokerError> {
        match &self.answer {
            Some((at, answer)) if failure.passes() && at.elapsed() < STALE => Ok(answer.clone()),
            _ => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::Operation;
    use super::*;

    const OLD: Duration = Duration::ZERO;
    const YOUNG: Duration = Duration::from_secs(3600);

    async fn throttled() -> Result<u8, BrokerError> {
        Err(BrokerError::Throttling { operation: Operation::DescribeInstances })
    }

    #[tokio::test]
    async fn many_askers_cost_one_fetch() {
        let (fresh, fetches) = (Fresh::default(), AtomicUsize::new(0));
        let ask = || {
            fresh.get(|_| YOUNG, async {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(7u8)
            })
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap(), fetches.load(Ordering::Relaxed)), (7, 7, 7, 1));
    }

    #[tokio::test]
    async fn an_old_answer_stands_in_while_aws_throttles() {
        let fresh = Fresh::default();
        fresh.get(|_| OLD, async { Ok(7u8) }).await.unwrap();
        assert_eq!(fresh.get(|_| OLD, throttled()).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn an_old_answer_never_outlives_a_refusal() {
        let fresh = Fresh::default();
        fresh.get(|_| OLD, async { Ok(7u8) }).await.unwrap();
        let operation = Operation::DescribeInstances;
        let refused = async { Err(BrokerError::AccessDenied { operation, message: String::new() }) };
        assert!(fresh.get(|_| OLD, refused).await.is_err());
    }

    #[tokio::test]
    async fn those_who_waited_share_a_failure() {
        let fresh = Fresh::default();
        assert!(fresh.get(|_| OLD, throttled()).await.is_err());
        assert!(fresh.get(|_| OLD, async { Ok(7u8) }).await.is_err());
    }
}
