//! A host's own containers while no manager answers: as the host itself knows them.

use futures::future::BoxFuture;
use shoal_common::TaskId;
use shoal_proto::pb;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Code, Response};

use super::Answer;

/// All that a host knows of its containers, without asking anybody. `None`: it was never told anything.
pub type Own = Arc<dyn Fn() -> BoxFuture<'static, Option<pb::ListContainersReply>> + Send + Sync>;

/// What managers are given to answer before a person is told what their host knows; about as long as an election takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// After they were waited for in vain, until one answers: several times what that takes them.
const LESS_PATIENCE: Duration = Duration::from_millis(500);

/// What the managers answer, who are waited for as long as nothing can be said without them. `silent`: they did not when
/// they were asked last.
pub(super) async fn unless_answered(
    answer: impl Future<Output = Answer<pb::ListContainersReply>>,
    asked: &pb::ListContainersRequest,
    own: &Own,
    silent: &AtomicBool,
) -> Answer<pb::ListContainersReply> {
    let mut answer = pin!(answer);
    let known = async || own().await.and_then(|all| chosen(all, asked)).map(Response::new);
    let patience = if silent.load(Ordering::Relaxed) { LESS_PATIENCE } else { PATIENCE };
    let in_time = timeout(patience, answer.as_mut()).await;
    silent.store(in_time.is_err(), Ordering::Relaxed);
    let answered = match in_time {
        Ok(answered) => answered,
        Err(_) => match known().await {
            Some(known) => return Ok(known),
            None => answer.await,
        },
    };
    match answered {
        Err(status) if status.code() == Code::Unavailable => known().await.ok_or(status),
        answered => answered,
    }
}

/// Nothing if somebody else might know better: of another host, or of a container that is not here.
fn chosen(own: pb::ListContainersReply, asked: &pb::ListContainersRequest) -> Option<pb::ListContainersReply> {
    if asked.all_nodes || !(asked.node.is_empty() || asked.node == own.known_by) {
        return None;
    }
    if asked.containers.is_empty() {
        return Some(own);
    }
    let find = |typed: &String| {
        let has_name = |c: &&pb::Container| c.spec.as_ref().is_some_and(|spec| spec.name == *typed);
        let has_id = |id: TaskId| own.containers.iter().find(|c| c.id == id.0);
        shoal_state::called(typed, || own.containers.iter().find(has_name), has_id).cloned()
    };
    let containers = asked.containers.iter().map(find).collect::<Option<_>>()?;
    Some(pb::ListContainersReply { containers, known_by: own.known_by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::Instant;
    use tonic::Status;

    fn container(id: u64, name: &str) -> pb::Container {
        let spec = pb::RunSpec { name: name.to_owned(), ..Default::default() };
        pb::Container { id, spec: Some(spec), ..Default::default() }
    }

    /// Of w1: web, and one that is called as if it were another.
    fn known() -> pb::ListContainersReply {
        let containers = vec![container(5, "web"), container(6, "task-5")];
        pb::ListContainersReply { containers, known_by: "w1".to_owned() }
    }

    fn asked(containers: &[&str], node: &str, all_nodes: bool) -> pb::ListContainersRequest {
        let containers = containers.iter().map(|c| (*c).to_owned()).collect();
        pb::ListContainersRequest { containers, node: node.to_owned(), all_nodes }
    }

    #[test]
    fn a_host_speaks_of_its_own_containers_by_name_first_and_by_id() {
        let ids = |containers: &[&str], node: &str, all_nodes| {
            let found = chosen(known(), &asked(containers, node, all_nodes))?;
            assert_eq!(found.known_by, "w1");
            Some(found.containers.iter().map(|c| c.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[], "", false), Some(vec![5, 6]));
        assert_eq!(ids(&["task-6", "web"], "w1", false), Some(vec![6, 5]));
        assert_eq!(ids(&["task-5"], "", false), Some(vec![6]));
        assert_eq!(ids(&["web", "task-7"], "", false), None, "it may be another host's");
        assert_eq!(ids(&[], "w2", false), None);
        assert_eq!(ids(&[], "", true), None);
    }

    type Answered = Answer<pb::ListContainersReply>;

    /// By whom a question is answered, or with what code, and after how long.
    async fn told(
        answer: impl Future<Output = Answered>,
        asked: &pb::ListContainersRequest,
        knows: bool,
    ) -> (Result<String, Code>, Duration) {
        told_again(answer, asked, knows, &AtomicBool::new(false)).await
    }

    async fn told_again(
        answer: impl Future<Output = Answered>,
        asked: &pb::ListContainersRequest,
        knows: bool,
        silent: &AtomicBool,
    ) -> (Result<String, Code>, Duration) {
        let own: Own = Arc::new(move || Box::pin(ready(knows.then(known))));
        let begun = Instant::now();
        let told = unless_answered(answer, asked, &own, silent).await;
        (told.map(|r| r.into_inner().known_by).map_err(|s| s.code()), begun.elapsed())
    }

    async fn after(seconds: u64, answer: Result<(), Status>) -> Answered {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        answer.map(|()| Response::new(pb::ListContainersReply::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_answers_itself_only_while_no_manager_does() {
        let (web, others) = (asked(&["web"], "", false), asked(&["db"], "", false));
        let (by_managers, by_itself) = (Ok(String::new()), Ok("w1".to_owned()));
        let lost = || Err(Status::unavailable("no quorum"));
        let secs = Duration::from_secs;
        assert_eq!(told(after(1, Ok(())), &web, true).await, (by_managers.clone(), secs(1)));
        assert_eq!(told(after(0, lost()), &web, true).await, (by_itself.clone(), secs(0)));
        assert_eq!(told(pending(), &web, true).await, (by_itself, PATIENCE));
        // What it cannot say it leaves to them, however long they take.
        assert_eq!(told(after(4, Ok(())), &others, true).await, (by_managers.clone(), secs(4)));
        assert_eq!(told(after(4, Ok(())), &web, false).await, (by_managers, secs(4)));
        assert_eq!(told(after(5, lost()), &others, true).await, (Err(Code::Unavailable), secs(5)));
        let refused = Err(Status::not_found("there is no container web"));
        assert_eq!(told(after(0, refused), &web, true).await, (Err(Code::NotFound), secs(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_waited_for_in_vain_is_not_waited_for_as_long_again() {
        let (web, silent) = (asked(&["web"], "", false), AtomicBool::new(false));
        let mut waited = Vec::new();
        for answers in [false, false, true, false] {
            let answer = async { if answers { after(0, Ok(())).await } else { pending().await } };
            waited.push(told_again(answer, &web, true, &silent).await.1);
        }
        assert_eq!(waited, [PATIENCE, LESS_PATIENCE, Duration::ZERO, PATIENCE]);
    }
}
