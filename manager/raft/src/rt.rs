//! Time, tasks and chance, as this crate has them: tokio's, or those of a simulation (feature `sim`).
//!
//! In a simulation tokio's own timers panic, and its `watch` wakes in an order drawn by chance. So nothing in this
//! crate uses them but by what is here.

use openraft::async_runtime::{AsyncRuntime, Select2, Select3};
use std::time::Duration;

use crate::files::Failure;

#[cfg(not(feature = "sim"))]
mod kind {
    pub(crate) type Runtime = openraft_rt_tokio::TokioRuntime;
    pub(crate) use tokio::sync::watch;

    /// A number from 0 to 1.
    pub(crate) fn chance() -> f64 {
        rand::random()
    }
}

#[cfg(feature = "sim")]
mod kind {
    pub(crate) type Runtime = openraft_rt_sim::SimRuntime;
    pub(crate) use crate::sim::{dice::chance, watch};
}

pub(crate) use kind::{Runtime, chance, watch};

pub(crate) type Instant = <Runtime as AsyncRuntime>::Instant;
type Elapsed = <Runtime as AsyncRuntime>::TimeoutError;

/// The task goes on though nobody awaits it; it ends by itself once what it follows has ended.
pub(crate) fn spawn<F>(future: F)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    drop(Runtime::spawn(future));
}

/// The same, of a task that its member cannot do without: a panic is noted in `defect`.
pub(crate) fn owned(what: &'static str, defect: &Failure, future: impl Future<Output = ()> + Send + 'static) {
    let defect = defect.clone();
    spawn(async move {
        if let Err(panic) = shoal_rt::tasks::caught(future).await {
            defect.note(format!("the task \"{what}\" has ended: {panic}"));
        }
    });
}

pub(crate) async fn sleep(duration: Duration) {
    Runtime::sleep(duration).await;
}

pub(crate) async fn sleep_until(deadline: Instant) {
    Runtime::sleep_until(deadline).await;
}

pub(crate) async fn timeout<F: Future + Send>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    Runtime::timeout(limit, future).await
}

pub(crate) async fn timeout_at<F: Future + Send>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    Runtime::timeout_at(deadline, future).await
}

/// The first of them that is done; the earlier in the list where two are.
pub(crate) async fn select2<A: Future + Send, B: Future + Send>(a: A, b: B) -> Select2<A::Output, B::Output> {
    Runtime::select2(a, b).await
}

/// As [`select2`].
pub(crate) async fn select3<A, B, C>(a: A, b: B, c: C) -> Select3<A::Output, B::Output, C::Output>
where
    A: Future + Send,
    B: Future + Send,
    C: Future + Send,
{
    Runtime::select3(a, b, c).await
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_an_owned_task_is_heard() {
        let defect = Failure::default();
        let beyond = |text: &'static str, index: usize| async move { assert!(text.as_bytes()[index] > 0) };
        owned("leadership", &defect, beyond("abc", 1));
        owned("space", &defect, beyond("abc", 3));
        let why = defect.happened().await;
        assert!(why.starts_with("the task \"space\" has ended: it panicked: index out of bounds"), "{why}");
    }
}
