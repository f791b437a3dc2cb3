//! What to do next for one container that was run by hand: a function of how things are. No manager is asked: what is
//! wanted of it is remembered on this host.

use shoal_common::container::{Phase, RestartMode, Wanted};
use shoal_runtime::{ContainerState, Exit, Fault};

use super::step::{Image, Step, cause};

/// How things are with one container. `T` is what a step needs of its assignment, `H` the lines of its `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View<'a, T, H> {
    pub(crate) assigned: T,
    pub(crate) wanted: Wanted,
    /// Counts its user's starts.
    pub(crate) start: u64,
    pub(crate) restart: RestartMode,
    /// What there is of it, and for which of its user's starts it was started last.
    pub(crate) container: Option<(&'a ContainerState, u64)>,
    pub(crate) image: &'a Image,
    /// Its network namespace is as it should be, or it needs none.
    pub(crate) wired: bool,
    /// It still has a network namespace of its own, with its addresses.
    pub(crate) has_netns: bool,
    /// Its resolver listens, or it needs none.
    pub(crate) named: bool,
    /// What its `/etc/hosts` does not say yet.
    pub(crate) unwritten: Option<H>,
    /// Why it could not be started.
    pub(crate) failure: Option<&'a Unstarted>,
    /// Starts by policy since its user's last.
    pub(crate) restarts: u32,
    /// What the managers have on record of this start.
    pub(crate) known: Phase,
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unstarted {
    pub(crate) why: String,
    pub(crate) fault: Fault,
    /// For lack of its network, which may come.
    pub(crate) unwired: bool,
}

impl Unstarted {
    /// Not its program's fault.
    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self { why: why.into(), fault: Fault::Other, unwired: false }
    }

    pub(crate) fn unwired(why: &str) -> Self {
        Self { unwired: true, ..Self::other(format!("its network cannot be set up on this host: {why}")) }
    }
}

/// What the managers are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) phase: Phase,
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) unstarted: bool,
}

impl Told {
    fn plain(phase: Phase) -> Option<Self> {
        Some(Self { phase, message: String::new(), exit_code: None, unstarted: false })
    }

    fn ended(phase: Phase, exit: &Exit) -> Option<Self> {
        Some(Self { phase, message: cause(exit), exit_code: Some(exit.code), unstarted: false })
    }

    fn failed(phase: Phase, Unstarted { why, fault, .. }: &Unstarted) -> Option<Self> {
        Some(Self { phase, message: why.clone(), exit_code: Some(fault.exit_code()), unstarted: true })
    }
}

pub(crate) fn next<T: Copy, H: Copy>(view: &View<'_, T, H>) -> (Step<T, H>, Option<Told>) {
    match (view.wanted, view.container) {
        (Wanted::Created, None) => (Step::Wait, None),
        // Once the managers hear that the container is removed, they give its addresses and its name to others.
        (Wanted::Removed, None) if view.has_netns => (Step::Wait, None),
        (Wanted::Removed, None) => (Step::Wait, Told::plain(Phase::Removed)),
        (Wanted::Removed, Some((ContainerState::Exited(_), _))) => (Step::Remove, None),
        (Wanted::Stopped, None) => (Step::Wait, stopped(view)),
        (Wanted::Created | Wanted::Stopped, Some((ContainerState::Exited(exit), _))) => (Step::Wait, ended(view, exit)),
        // Cannot be told to stop yet; it runs or has failed in a moment.
        (Wanted::Created | Wanted::Stopped | Wanted::Removed, Some((ContainerState::Created, _))) => (Step::Wait, None),
        (Wanted::Created | Wanted::Stopped | Wanted::Removed, Some((ContainerState::Running { .. }, _))) => {
            (Step::Stop, None)
        }
        (Wanted::Running, None) => beginning(view, None),
        (Wanted::Running, Some((ContainerState::Created, _))) => (names_or(Step::Wait, view), None),
        (Wanted::Running, Some((ContainerState::Running { .. }, start))) if start < view.start => (Step::Stop, None),
        (Wanted::Running, Some((ContainerState::Running { .. }, _))) => {
            let step = view.unwritten.map_or(Step::Wait, Step::WriteHosts);
            (names_or(step, view), Told::plain(Phase::Running))
        }
        (Wanted::Running, Some((ContainerState::Exited(_), start))) if start < view.start => beginning(view, None),
        (Wanted::Running, Some((ContainerState::Exited(exit), _))) if starts_again(view, exit.code) => {
            beginning(view, Told::ended(Phase::Restarting, exit))
        }
        (Wanted::Running, Some((ContainerState::Exited(exit), _))) => (Step::Wait, ended(view, exit)),
    }
}

/// One that could not be started again has still ended as it did before, which was not now.
fn ended<T, H>(view: &View<'_, T, H>, exit: &Exit) -> Option<Told> {
    match view.failure {
        Some(failure) => Told::failed(Phase::Exited, failure),
        None => Told::ended(Phase::Exited, exit),
    }
}

fn stopped<T, H>(view: &View<'_, T, H>) -> Option<Told> {
    match view.failure {
        Some(failure) => Told::failed(Phase::Exited, failure),
        // Why it was not started is known to the daemon that tried, and to the managers.
        None if view.known == Phase::Exited => None,
        None => Told::plain(Phase::Exited),
    }
}

fn starts_again<T, H>(view: &View<'_, T, H>, exit_code: i32) -> bool {
    match view.restart {
        RestartMode::No => false,
        RestartMode::OnFailure { most } => exit_code != 0 && (most == 0 || view.restarts < most),
        RestartMode::Always | RestartMode::UnlessStopped => true,
    }
}

/// Towards its first process.
fn beginning<T: Copy, H>(view: &View<'_, T, H>, told: Option<Told>) -> (Step<T, H>, Option<Told>) {
    if let Some(failure) = view.failure {
        // Its network may come, and it is waited for.
        let waits = failure.unwired && starts_again(view, failure.fault.exit_code());
        return (Step::Wait, Told::failed(if waits { Phase::Restarting } else { Phase::Exited }, failure));
    }
    match view.image {
        Image::Missing(why) => (Step::Wait, Told::failed(Phase::Exited, &Unstarted::other(why))),
        Image::Unknown => (Step::FetchImage(view.assigned), told),
        Image::Here if !view.wired => (Step::Wait, told),
        Image::Here if !view.named => (Step::ServeNames(view.assigned), told),
        Image::Here => (Step::Start(view.assigned), told),
    }
}

fn names_or<T: Copy, H>(step: Step<T, H>, view: &View<'_, T, H>) -> Step<T, H> {
    if view.named { step } else { Step::ServeNames(view.assigned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: ContainerState = ContainerState::Running { pid: 1, started_at_ms: 1 };

    fn exited(code: i32) -> ContainerState {
        ContainerState::Exited(Exit { code, oom: false, finished_at_ms: 1, reason: None })
    }

    fn view<'a>(wanted: Wanted, container: Option<(&'a ContainerState, u64)>) -> View<'a, (), ()> {
        View {
            assigned: (),
            wanted,
            start: 2,
            restart: RestartMode::No,
            container,
            image: &Image::Here,
            wired: true,
            has_netns: false,
            named: true,
            unwritten: None,
            failure: None,
            restarts: 0,
            known: Phase::Created,
        }
    }

    fn said(view: &View<'_, (), ()>) -> (Step<(), ()>, Option<Phase>) {
        let (step, told) = next(view);
        (step, told.map(|t| t.phase))
    }

    #[test]
    fn a_container_follows_its_user() {
        let (failed, fine) = (exited(1), exited(0));
        for (wanted, container, step, phase) in [
            (Wanted::Created, None, Step::Wait, None),
            (Wanted::Running, None, Step::Start(()), None),
            (Wanted::Running, Some((&RUNNING, 2)), Step::Wait, Some(Phase::Running)),
            // It was started anew by its user: the one that runs is of the start before.
            (Wanted::Running, Some((&RUNNING, 1)), Step::Stop, None),
            (Wanted::Running, Some((&failed, 1)), Step::Start(()), None),
            (Wanted::Running, Some((&failed, 2)), Step::Wait, Some(Phase::Exited)),
            (Wanted::Stopped, Some((&RUNNING, 2)), Step::Stop, None),
            (Wanted::Stopped, Some((&fine, 2)), Step::Wait, Some(Phase::Exited)),
            (Wanted::Stopped, None, Step::Wait, Some(Phase::Exited)),
            (Wanted::Removed, Some((&RUNNING, 2)), Step::Stop, None),
            (Wanted::Removed, Some((&fine, 2)), Step::Remove, None),
            (Wanted::Removed, None, Step::Wait, Some(Phase::Removed)),
        ] {
            assert_eq!(said(&view(wanted, container)), (step, phase), "{wanted} {container:?}");
        }
        let leaving = View { has_netns: true, ..view(Wanted::Removed, None) };
        assert_eq!(said(&leaving), (Step::Wait, None), "its addresses are still here");
    }

    #[test]
    fn one_that_runs_is_named_and_then_told_where_it_is() {
        let running = View { named: false, unwritten: Some(()), ..view(Wanted::Running, Some((&RUNNING, 2))) };
        let told = Some(Phase::Running);
        assert_eq!(said(&running), (Step::ServeNames(()), told));
        assert_eq!(said(&View { named: true, ..running }), (Step::WriteHosts(()), told));
        assert_eq!(said(&View { unwritten: Some(()), ..view(Wanted::Stopped, Some((&RUNNING, 2))) }).0, Step::Stop);
    }

    #[test]
    fn its_policy_says_whether_it_is_started_again() {
        let (failed, fine) = (exited(1), exited(0));
        let again = (Step::Start(()), Some(Phase::Restarting));
        let ended = (Step::Wait, Some(Phase::Exited));
        for (restart, restarts, exit, is) in [
            (RestartMode::No, 0, &failed, &ended),
            (RestartMode::Always, 7, &fine, &again),
            (RestartMode::UnlessStopped, 7, &failed, &again),
            (RestartMode::OnFailure { most: 0 }, 99, &failed, &again),
            (RestartMode::OnFailure { most: 0 }, 0, &fine, &ended),
            (RestartMode::OnFailure { most: 3 }, 2, &failed, &again),
            (RestartMode::OnFailure { most: 3 }, 3, &failed, &ended),
        ] {
            let view = View { restart, restarts, ..view(Wanted::Running, Some((exit, 2))) };
            assert_eq!(said(&view), *is, "{restart} {restarts} {exit:?}");
        }
        // One that was stopped by hand stays so.
        let stopped = View { restart: RestartMode::Always, ..view(Wanted::Stopped, Some((&failed, 2))) };
        assert_eq!(said(&stopped), ended);
    }

    #[test]
    fn what_cannot_start_is_told_and_not_tried_again() {
        let failure = Unstarted { why: "no such file".to_owned(), fault: Fault::NotFound, unwired: false };
        let failed = Told { phase: Phase::Exited, message: failure.why.clone(), exit_code: Some(127), unstarted: true };
        for wanted in [Wanted::Running, Wanted::Stopped] {
            assert_eq!(next(&View { failure: Some(&failure), ..view(wanted, None) }).1.as_ref(), Some(&failed));
        }
        // Nor is how it ended an earlier time what became of this start.
        let earlier = exited(137);
        for start in [1, 2] {
            let again = View { failure: Some(&failure), ..view(Wanted::Running, Some((&earlier, start))) };
            assert_eq!(next(&again), (Step::Wait, Some(failed.clone())), "{start}");
            assert_eq!(next(&View { wanted: Wanted::Stopped, ..again }), (Step::Wait, Some(failed.clone())), "{start}");
        }
        // Its network may come, and who restarts whatever happens is started then.
        let unwired = Unstarted::unwired("no link nosuch0");
        for (restart, phase) in [
            (RestartMode::No, Phase::Exited),
            (RestartMode::OnFailure { most: 3 }, Phase::Restarting),
            (RestartMode::Always, Phase::Restarting),
        ] {
            let waiting = View { failure: Some(&unwired), restart, wired: false, ..view(Wanted::Running, None) };
            assert_eq!(said(&waiting), (Step::Wait, Some(phase)), "{restart}");
            assert!(next(&waiting).1.is_some_and(|told| told.unstarted));
        }
        // A daemon that came later does not know why, and leaves what is on record.
        assert_eq!(next(&View { known: Phase::Exited, ..view(Wanted::Stopped, None) }), (Step::Wait, None));
        let missing = Image::Missing("no such image".to_owned());
        let told = next(&View { image: &missing, ..view(Wanted::Running, None) });
        assert_eq!(told.1.map(|t| (t.message, t.exit_code)), Some(("no such image".to_owned(), Some(125))));
        let told = said(&View { image: &Image::Unknown, wired: false, ..view(Wanted::Running, None) });
        assert_eq!(told.0, Step::FetchImage(()));
        assert_eq!(said(&View { wired: false, named: false, ..view(Wanted::Running, None) }).0, Step::Wait);
        assert_eq!(said(&View { named: false, ..view(Wanted::Running, None) }).0, Step::ServeNames(()));
    }
}
