//! Stays with services until each has converged, or cannot.

use shoal_common::Timestamp;
use shoal_proto::pb;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Verdict, Watch, show::Show};
use crate::{
    args::service::Wait,
    client::Client,
    failure::{Exit, Failure},
};

/// A stream that a manager ended (it stepped down, its daemon restarted) is asked for again, so often.
const MAX_RECONNECTS: u32 = 20;
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `version` is the one that the change made.
pub(crate) async fn follow(client: &Client, name: &str, id: u64, version: u64, wait: &Wait) -> Result<(), Failure> {
    let mut watch = Watch::new(version, wait.timeout, now());
    let mut show = Show::new(wait.quiet);
    tokio::select! {
        ended = converge(client, id, &mut watch, &mut show) => ended_as(name, ended, &mut show),
        signal = tokio::signal::ctrl_c() => {
            signal?;
            show.end(None);
            let message = format!("no longer watched; the work goes on: look again with 'shoal service ps {name}'");
            Err(Failure::new(Exit::NotConverged, message))
        }
    }
}

async fn converge(client: &Client, id: u64, watch: &mut Watch, show: &mut Show) -> Result<Verdict, Failure> {
    let request = pb::WatchServiceRequest { service: format!("svc-{id}") };
    let mut reconnects = 0;
    loop {
        let mut stream = match client.control().watch_service(request.clone()).await {
            Ok(reply) => reply.into_inner(),
            Err(s) if s.code() == tonic::Code::Unavailable && reconnects < MAX_RECONNECTS => {
                reconnects += 1;
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            Err(s) if s.code() == tonic::Code::NotFound && reconnects > 0 => return Ok(Verdict::Removed),
            Err(s) => return Err(s.into()),
        };
        loop {
            let again = match watch.verdict(now()) {
                Verdict::Waiting { again } => again,
                verdict => return Ok(verdict),
            };
            match tokio::time::timeout(again, stream.message()).await {
                // Time passed: the verdict may be another.
                Err(_) => continue,
                Ok(Ok(Some(said))) => {
                    watch.observe(&said, now());
                    show.update(watch.summary(), now());
                }
                Ok(Ok(None) | Err(_)) if reconnects < MAX_RECONNECTS => break,
                Ok(Ok(None)) => return Err(Failure::new(Exit::NoManager, "the manager ended the watch")),
                Ok(Err(s)) => return Err(s.into()),
            }
        }
        reconnects += 1;
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

fn ended_as(name: &str, ended: Result<Verdict, Failure>, show: &mut Show) -> Result<(), Failure> {
    let look = format!("look again with 'shoal service ps {name}'");
    let (exit, message) = match ended? {
        Verdict::Converged => {
            show.end(Some(&format!("{name} has converged")));
            return Ok(());
        }
        Verdict::Failing { task, failures, why } => {
            let how = match failures {
                1 => format!("service {name} has failed: {task}: {why}"),
                _ => format!("service {name} keeps failing: {task} failed {failures} times: {why}"),
            };
            (Exit::NotConverged, format!("{how}; {look}"))
        }
        Verdict::Stuck { why } => {
            let more = if why.len() > 1 { format!(" ({} more tasks wait)", why.len() - 1) } else { String::new() };
            let first = why.into_iter().next().unwrap_or_default();
            (
                Exit::NotPlaced,
                format!("service {name} cannot be placed: {first}{more}; it goes on as soon as it can: {look}"),
            )
        }
        Verdict::Removed => (Exit::NotFound, format!("service {name} was removed meanwhile")),
        Verdict::TimedOut | Verdict::Waiting { .. } => {
            (Exit::NotConverged, format!("service {name} has not converged in time; the work goes on: {look}"))
        }
    };
    show.end(None);
    Err(Failure::new(exit, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_number() {
        for (verdict, number) in [
            (Verdict::Failing { task: "web.1".into(), failures: 3, why: "exit code 1".into() }, 5),
            (Verdict::Stuck { why: vec!["web.1: no address left".into()] }, 6),
            (Verdict::TimedOut, 5),
            (Verdict::Removed, 3),
        ] {
            let f = ended_as("web", Ok(verdict.clone()), &mut Show::Nothing).expect_err("it ended badly");
            assert_eq!(f.exit as i32, number, "{verdict:?}");
        }
        assert_eq!(ended_as("web", Ok(Verdict::Converged), &mut Show::Nothing), Ok(()));
    }
}
