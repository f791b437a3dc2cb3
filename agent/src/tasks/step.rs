//! What to do next for one task: a function of how things are, and of nothing that happened before.

use shoal_common::{
    health::Health,
    task::{DesiredState, TaskState},
};
use shoal_runtime::{ContainerState, Exit};
use std::convert::Infallible;

/// How things are with one task. `T` is what a step needs of its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View<'a, T> {
    /// What the managers want and what they have on record; `None` if they know nothing of it (any more).
    pub(crate) assigned: Option<(DesiredState, TaskState, T)>,
    pub(crate) container: Option<&'a ContainerState>,
    pub(crate) image: &'a Image,
    /// Its network namespace is as it should be.
    pub(crate) wired: bool,
    /// Its resolver listens, or it needs none.
    pub(crate) named: bool,
    /// What is left of it stays a while, for its log.
    pub(crate) kept: bool,
    /// Why it could not be started.
    pub(crate) failure: Option<&'a str>,
    /// What its health checks say of it, if it has any, and why.
    pub(crate) health: Option<(Health, &'a str)>,
}

/// Of a task's image, as far as this process knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Image {
    #[default]
    Unknown,
    Here,
    /// Not to be had, and why.
    Missing(String),
}

/// The one next thing to do, with what it takes: a step that needs an assignment cannot be had without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<T, H> {
    /// Until something else happens.
    Wait,
    FetchImage(T),
    /// Open its resolver's sockets.
    ServeNames(T),
    Start(T),
    /// Of a container that runs: to say in its `/etc/hosts` where it is.
    WriteHosts(H),
    Stop,
    /// Remove what is left of the container.
    Remove,
    /// There is nothing left of the task on this host.
    Forget,
}

/// What the managers are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) state: TaskState,
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
}

impl Told {
    fn plain(state: TaskState) -> Option<Self> {
        Self::because(state, "")
    }

    fn because(state: TaskState, message: impl Into<String>) -> Option<Self> {
        Some(Self { state, message: message.into(), exit_code: None })
    }

    fn ended(state: TaskState, exit: &Exit) -> Option<Self> {
        Some(Self { state, message: cause(exit), exit_code: Some(exit.code) })
    }
}

/// Why a container ended, for people.
pub(super) fn cause(exit: &Exit) -> String {
    let how = match exit.code {
        0 => return exit.reason.clone().unwrap_or_default(),
        code if code > 128 => format!("ended by signal {}", code - 128),
        code => format!("exit code {code}"),
    };
    let why = match (&exit.reason, exit.oom) {
        (Some(reason), false) => format!(": {reason}"),
        (Some(reason), true) => format!(": {reason}; it was over its memory limit"),
        (None, true) => ": it was over its memory limit (--limit-memory)".to_owned(),
        (None, false) => String::new(),
    };
    how + &why
}

/// A task is on the same networks for as long as it exists: its `/etc/hosts` is written once, before it starts.
pub(crate) type TaskStep<T> = Step<T, Infallible>;

pub(crate) fn next<T: Copy>(view: &View<'_, T>) -> (TaskStep<T>, Option<Told>) {
    match view.assigned {
        None => (ending(view), None),
        Some((DesiredState::Shutdown, _, _)) => match view.container {
            // It stays until the managers have heard of its end: what they were not told yet must survive us.
            Some(ContainerState::Exited(exit)) => (Step::Wait, Told::ended(TaskState::Shutdown, exit)),
            None => (Step::Wait, Told::plain(TaskState::Shutdown)),
            Some(ContainerState::Created | ContainerState::Running { .. }) => (ending(view), None),
        },
        Some((DesiredState::Running, known, task)) => match view.container {
            Some(ContainerState::Exited(exit)) if exit.code == 0 && known != TaskState::Unhealthy => {
                (Step::Wait, Told::ended(TaskState::Complete, exit))
            }
            Some(ContainerState::Exited(exit)) => (Step::Wait, Told::ended(TaskState::Failed, exit)),
            Some(ContainerState::Created) => (names_or_wait(view, task), Told::plain(TaskState::Starting)),
            // Names and VIPs lead elsewhere by now.
            Some(ContainerState::Running { .. }) if known == TaskState::Unhealthy => (Step::Stop, None),
            Some(ContainerState::Running { .. }) => (names_or_wait(view, task), running(view, known)),
            None => beginning(view, known, task),
        },
    }
}

fn running<T>(view: &View<'_, T>, known: TaskState) -> Option<Told> {
    match view.health {
        Some((Health::Unhealthy, why)) => Told::because(TaskState::Unhealthy, why),
        Some((Health::Starting, _)) if known < TaskState::Running => Told::plain(TaskState::Starting),
        Some((Health::Starting | Health::Healthy, _)) | None => Told::plain(TaskState::Running),
    }
}

/// Towards nothing being left.
fn ending<T>(view: &View<'_, T>) -> TaskStep<T> {
    match view.container {
        None => Step::Forget,
        // Cannot be told to stop yet; it runs or has failed in a moment.
        Some(ContainerState::Created) => Step::Wait,
        Some(ContainerState::Running { .. }) => Step::Stop,
        Some(ContainerState::Exited(_)) if view.kept => Step::Wait,
        Some(ContainerState::Exited(_)) => Step::Remove,
    }
}

/// Towards the first process.
fn beginning<T>(view: &View<'_, T>, known: TaskState, task: T) -> (TaskStep<T>, Option<Told>) {
    if let Some(failure) = view.failure {
        return (Step::Wait, Told::because(TaskState::Failed, failure));
    }
    if known >= TaskState::Running {
        return (Step::Wait, Told::because(TaskState::Failed, "its container is gone from the host"));
    }
    let preparing = Told::plain(TaskState::Preparing);
    match view.image {
        Image::Missing(why) => (Step::Wait, Told::because(TaskState::Rejected, why)),
        Image::Unknown => (Step::FetchImage(task), preparing),
        Image::Here if !view.wired => (Step::Wait, preparing),
        Image::Here if !view.named => (Step::ServeNames(task), preparing),
        Image::Here => (Step::Start(task), Told::plain(TaskState::Starting)),
    }
}

fn names_or_wait<T>(view: &View<'_, T>, task: T) -> TaskStep<T> {
    if view.named { Step::Wait } else { Step::ServeNames(task) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Exit = Exit { code: 0, oom: false, finished_at_ms: 1, reason: None };

    fn view<'a>() -> View<'a, ()> {
        View {
            assigned: Some((DesiredState::Running, TaskState::Assigned, ())),
            container: None,
            image: &Image::Here,
            wired: true,
            named: true,
            kept: false,
            failure: None,
            health: None,
        }
    }

    fn told(state: TaskState) -> Option<Told> {
        Told::plain(state)
    }

    #[test]
    fn a_task_is_prepared_wired_and_named_before_it_starts() {
        let table = [
            (
                View { image: &Image::Unknown, wired: false, named: false, ..view() },
                Step::FetchImage(()),
                TaskState::Preparing,
            ),
            (View { wired: false, named: false, ..view() }, Step::Wait, TaskState::Preparing),
            (View { named: false, ..view() }, Step::ServeNames(()), TaskState::Preparing),
            (view(), Step::Start(()), TaskState::Starting),
        ];
        for (view, step, state) in table {
            assert_eq!(next(&view), (step, told(state)), "{view:?}");
        }
    }

    #[test]
    fn what_runs_is_told_and_gets_its_resolver_back() {
        let running = ContainerState::Running { pid: 1, started_at_ms: 1 };
        for known in [TaskState::Assigned, TaskState::Starting, TaskState::Running] {
            let adopted = View {
                assigned: Some((DesiredState::Running, known, ())),
                container: Some(&running),
                image: &Image::Unknown,
                named: false,
                ..view()
            };
            assert_eq!(next(&adopted), (Step::ServeNames(()), told(TaskState::Running)));
            assert_eq!(next(&View { named: true, ..adopted }), (Step::Wait, told(TaskState::Running)));
        }
    }

    #[test]
    fn one_with_a_health_check_runs_once_it_is_healthy_and_ends_when_it_is_not() {
        let running = ContainerState::Running { pid: 1, started_at_ms: 1 };
        let view = |known, health| View {
            assigned: Some((DesiredState::Running, known, ())),
            container: Some(&running),
            health: Some((health, "why")),
            ..view()
        };
        for (known, health, step, state) in [
            (TaskState::Starting, Health::Starting, Step::Wait, told(TaskState::Starting)),
            (TaskState::Starting, Health::Healthy, Step::Wait, told(TaskState::Running)),
            (TaskState::Running, Health::Starting, Step::Wait, told(TaskState::Running)),
            (TaskState::Starting, Health::Unhealthy, Step::Wait, Told::because(TaskState::Unhealthy, "why")),
            // Not before the managers know: they lead everybody elsewhere first.
            (TaskState::Running, Health::Unhealthy, Step::Wait, Told::because(TaskState::Unhealthy, "why")),
            (TaskState::Unhealthy, Health::Healthy, Step::Stop, None),
        ] {
            assert_eq!(next(&view(known, health)), (step, state), "{known} {health}");
        }
        // However it ended: it is a failure.
        let ended = ContainerState::Exited(EXIT);
        let ended = View { container: Some(&ended), ..view(TaskState::Unhealthy, Health::Starting) };
        assert_eq!(next(&ended), (Step::Wait, Told::ended(TaskState::Failed, &EXIT)));
    }

    #[test]
    fn an_end_is_told_with_its_code_and_never_undone_here() {
        let table = [
            (EXIT, TaskState::Complete, ""),
            (Exit { code: 3, ..EXIT }, TaskState::Failed, "exit code 3"),
            (Exit { code: 143, ..EXIT }, TaskState::Failed, "ended by signal 15"),
            (
                Exit { code: 137, oom: true, ..EXIT },
                TaskState::Failed,
                "ended by signal 9: it was over its memory limit (--limit-memory)",
            ),
            (Exit { code: 137, reason: Some("lost".to_owned()), ..EXIT }, TaskState::Failed, "ended by signal 9: lost"),
        ];
        for (exit, state, message) in table {
            let code = exit.code;
            let ended = ContainerState::Exited(exit);
            let (step, told) = next(&View { container: Some(&ended), ..view() });
            assert_eq!(step, Step::Wait);
            assert_eq!(told, Some(Told { state, message: message.to_owned(), exit_code: Some(code) }));
        }
    }

    #[test]
    fn what_cannot_be_started_is_told_and_not_tried_again() {
        let missing = Image::Missing("no such image".to_owned());
        let (step, told) = next(&View { image: &missing, ..view() });
        assert_eq!((step, told), (Step::Wait, Told::because(TaskState::Rejected, "no such image")));
        let (step, told) = next(&View { failure: Some("no such file"), ..view() });
        assert_eq!((step, told), (Step::Wait, Told::because(TaskState::Failed, "no such file")));
        let gone = View { assigned: Some((DesiredState::Running, TaskState::Running, ())), ..view() };
        assert_eq!(next(&gone).0, Step::Wait);
        assert_eq!(next(&gone).1.map(|t| t.state), Some(TaskState::Failed));
    }

    #[test]
    fn a_task_that_shall_end_is_stopped_and_removed_once_the_managers_know() {
        let (running, ended) = (ContainerState::Running { pid: 1, started_at_ms: 1 }, ContainerState::Exited(EXIT));
        let shutdown = Some((DesiredState::Shutdown, TaskState::Running, ()));
        let table = [
            (shutdown, Some(&ContainerState::Created), Step::Wait, None),
            (shutdown, Some(&running), Step::Stop, None),
            (shutdown, Some(&ended), Step::Wait, Told::ended(TaskState::Shutdown, &EXIT)),
            (shutdown, None, Step::Wait, told(TaskState::Shutdown)),
            (None, Some(&ContainerState::Created), Step::Wait, None),
            (None, Some(&running), Step::Stop, None),
            (None, Some(&ended), Step::Remove, None),
            (None, None, Step::Forget, None),
        ];
        for (assigned, container, step, told) in table {
            assert_eq!(next(&View { assigned, container, ..view() }), (step, told), "{assigned:?} {container:?}");
        }
        let kept = View { assigned: None, container: Some(&ended), kept: true, ..view() };
        assert_eq!(next(&kept), (Step::Wait, None));
    }
}
