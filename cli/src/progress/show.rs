//! Progress as people see it: lines that change in place on a terminal, lines with a time elsewhere. On stderr, so
//! that the id on stdout can be captured.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shoal_common::{Timestamp, task::TaskState};
use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, stderr},
};

use super::watch::{Summary, TaskLine};
use crate::{inert, out, units};

/// More tasks than fit on a screen are told by their reasons alone.
const MAX_TASK_LINES: usize = 20;

pub(super) enum Show {
    Nothing,
    Lines { last: Vec<String> },
    Bars { all: MultiProgress, bars: Vec<ProgressBar> },
}

impl Show {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Nothing
        } else if stderr().is_terminal() {
            Self::Bars { all: MultiProgress::new(), bars: vec![] }
        } else {
            Self::Lines { last: vec![] }
        }
    }

    pub(super) fn update(&mut self, s: &Summary, now: Timestamp) {
        match self {
            Self::Nothing => {}
            Self::Lines { last } => {
                let text = lines(s, false);
                for line in text.iter().filter(|l| !last.contains(l)) {
                    out::note(format!("{} {line}", units::rfc3339(now.0)));
                }
                *last = text;
            }
            Self::Bars { all, bars } => {
                let text = lines(s, true);
                while bars.len() < text.len() {
                    // The template is a constant: were it wrong, the default style shows the message too.
                    let style =
                        ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
                    bars.push(all.add(ProgressBar::new_spinner().with_style(style)));
                }
                for gone in bars.drain(text.len()..) {
                    gone.finish_and_clear();
                }
                for (bar, line) in bars.iter().zip(text) {
                    bar.set_message(inert::text(&line));
                    bar.tick();
                }
            }
        }
    }

    /// Leaves what was shown last.
    pub(super) fn end(&mut self, last_word: Option<&str>) {
        match self {
            Self::Nothing => {}
            Self::Lines { .. } => {}
            Self::Bars { bars, .. } => {
                for bar in bars.drain(..) {
                    bar.abandon();
                }
            }
        }
        if let (Some(word), Self::Lines { .. } | Self::Bars { .. }) = (last_word, &self) {
            out::note(word);
        }
    }
}

fn lines(s: &Summary, every_task: bool) -> Vec<String> {
    if s.wanted == 0 && s.tasks.is_empty() && s.leaving == 0 {
        return vec![format!("{}: no task is wanted", s.name)];
    }
    let leaving = if s.leaving == 0 { String::new() } else { format!(", {} old still to end", s.leaving) };
    let mut out = vec![format!("{}: {} of {} tasks done{leaving}", s.name, s.done, s.wanted)];
    if every_task && s.tasks.len() <= MAX_TASK_LINES {
        out.extend(s.tasks.iter().map(task));
        return out;
    }
    // Many tasks wait for the same thing: one line a reason.
    let mut reasons: BTreeMap<(TaskState, &str), Vec<&str>> = BTreeMap::new();
    for t in s.tasks.iter().filter(|t| t.state != TaskState::Running) {
        reasons.entry((t.state, &t.message)).or_default().push(&t.name);
    }
    out.extend(reasons.into_iter().map(|((state, why), names)| {
        let why = if why.is_empty() { lower(state) } else { format!("{}: {why}", lower(state)) };
        match names.as_slice() {
            [name] => format!("{name}: {why}"),
            [first, ..] => format!("{first} and {} more: {why}", names.len() - 1),
            [] => why,
        }
    }));
    out
}

fn task(t: &TaskLine) -> String {
    let on = if t.node.is_empty() { String::new() } else { format!(" on {}", t.node) };
    let why =
        if t.message.is_empty() || t.state == TaskState::Running { String::new() } else { format!(": {}", t.message) };
    format!("  {}: {}{on}{why}", t.name, lower(t.state))
}

fn lower(state: TaskState) -> String {
    state.to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(n: u32) -> Summary {
        let tasks = (1..=n)
            .map(|i| TaskLine {
                name: format!("web.{i}"),
                node: String::new(),
                state: TaskState::Pending,
                message: "no address left in net app".into(),
            })
            .collect();
        Summary { name: "web".into(), done: 0, wanted: n, leaving: 1, tasks }
    }

    #[test]
    fn the_reason_is_shown_in_full_and_once() {
        assert_eq!(
            lines(&waiting(2), true),
            [
                "web: 0 of 2 tasks done, 1 old still to end",
                "  web.1: pending: no address left in net app",
                "  web.2: pending: no address left in net app"
            ]
        );
        assert_eq!(lines(&waiting(300), true)[1..], ["web.1 and 299 more: pending: no address left in net app"]);
        assert_eq!(lines(&waiting(1), false)[1..], ["web.1: pending: no address left in net app"]);
        // A task that gives no reason, as while it pulls, is not left out.
        let mut pulling = waiting(2);
        pulling.tasks.iter_mut().for_each(|t| (t.state, t.message) = (TaskState::Preparing, String::new()));
        assert_eq!(lines(&pulling, false)[1..], ["web.1 and 1 more: preparing"]);
    }
}
