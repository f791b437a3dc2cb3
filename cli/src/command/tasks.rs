//! Tasks as `service ps` and `node ps` list them: slot by slot, the newest of a slot first, those before it below.

use shoal_proto::pb;

use super::show;
use crate::{
    args::Listing,
    failure::Failure,
    out,
    progress::follow::now,
    view::task::{Row, row},
};

pub(super) fn print(tasks: Vec<pb::Task>, listing: &Listing) -> Result<(), Failure> {
    let tasks = ordered(&tasks);
    if listing.quiet {
        return tasks.iter().try_for_each(|t| out::line(&t.id));
    }
    show::rows(listing.format.as_ref(), "ID", &tasks, || {
        let header = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"];
        out::table(&header, cells(&tasks))
    })
}

fn ordered(tasks: &[pb::Task]) -> Vec<Row> {
    let now = now().0;
    let mut tasks: Vec<Row> = tasks.iter().map(|t| row(t, now)).collect();
    let wanted_last = |t: &Row| t.desired_state != "Running";
    tasks.sort_by(|a, b| {
        let key = |t: &Row| (t.service.clone(), t.order, wanted_last(t));
        key(a).cmp(&key(b)).then(b.number.cmp(&a.number))
    });
    tasks.dedup_by_key(|t| t.number);
    tasks
}

fn cells(tasks: &[Row]) -> Vec<Vec<String>> {
    let mut before: Option<&Row> = None;
    let mut rows = Vec::new();
    for t in tasks {
        let same_slot = before.is_some_and(|b| b.service == t.service && b.slot == t.slot);
        rows.push(vec![
            t.id.clone(),
            if same_slot { format!(" \\_ {}", t.name) } else { t.name.clone() },
            t.image.clone(),
            t.node.clone(),
            t.desired_state.clone(),
            t.current_state.clone(),
            t.error.clone(),
            t.ports.clone(),
        ]);
        before = Some(t);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_history_is_below_its_newest_task() {
        let task = |id, slot, desired: pb::DesiredState, state: pb::TaskState, message: &str| pb::Task {
            id,
            name: format!("web.{slot}"),
            service: 1,
            service_name: "web".into(),
            slot: Some(pb::Slot { slot: Some(pb::slot::Slot::Replica(slot)) }),
            desired: desired.into(),
            status: Some(pb::TaskStatus {
                state: state.into(),
                message: message.into(),
                exit_code: Some(1),
                since_ms: 0,
            }),
            ..Default::default()
        };
        let why = "no address left in net app";
        let tasks = ordered(&[
            task(10, 10, pb::DesiredState::Running, pb::TaskState::Running, ""),
            task(1, 2, pb::DesiredState::Shutdown, pb::TaskState::Failed, ""),
            task(3, 2, pb::DesiredState::Running, pb::TaskState::Pending, why),
            task(2, 2, pb::DesiredState::Shutdown, pb::TaskState::Shutdown, ""),
        ]);
        let shown: Vec<(String, String, String)> =
            cells(&tasks).into_iter().map(|r| (r[0].clone(), r[1].clone(), r[6].clone())).collect();
        let want = [
            ("task-3", "web.2", why),
            ("task-2", " \\_ web.2", ""),
            ("task-1", " \\_ web.2", "ended with exit code 1"),
            ("task-10", "web.10", ""),
        ];
        assert_eq!(shown, want.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }
}
