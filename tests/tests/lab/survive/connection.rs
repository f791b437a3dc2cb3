//! One connection that is older than every fault, and what is told of a container that ended unseen.

use super::*;
use std::process::Command;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    state: String,
    exit_code: Option<i32>,
}

/// Says a line and waits for its echo, on one connection, until the file is there: how many came back.
const TALK: &str = "exec 3<>/dev/tcp/$0/7; n=0; while [ ! -e \"$1\" ]; do n=$((n+1)); echo $n >&3; \
                    read -r -t 15 -u 3 got && [ \"$got\" = $n ] || exit 1; sleep 0.05; done; echo $n";

fn all_ready(lab: &Lab, at: &str) -> anyhow::Result<()> {
    let nodes = nodes(lab, at)?;
    ensure!(nodes.values().all(|n| n.status == "Ready"), "{nodes:?}");
    Ok(())
}

#[test]
fn one_connection_outlives_killed_daemons_a_short_partition_and_the_quorum() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
        let on = |host: &str, name: &str, command: &[&str]| {
            let at = format!("node.hostname=={host}");
            let create = ["service", "create", "--name", name, "--network", "blue", "--constraint", &at];
            lab.shoal("m1", [&create[..], &["--restart-condition", "none", "page"], command].concat())?.success()
        };
        on("w1", "echo", &["nc", "-ll", "-p", "7", "-e", "cat"])?;
        on("w1", "mortal", &["idle"])?;
        on("m1", "client", &["idle"])?;
        let only = |at: &str, service: &str| -> anyhow::Result<Task> {
            running(lab, at, service)?.into_iter().next().with_context(|| format!("{service} runs"))
        };
        let before = ["echo", "mortal", "client"].map(|s| only("m1", s)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let (client, mortal) = (before[2].clone(), before[1].clone());
        let vip = vip(lab, "m1", "echo")?;
        let files = tempfile::tempdir()?;
        let stop = files.path().join("stop");

        let echoed = thread::scope(|s| {
            let talk = ["bash", "-c", TALK, &vip, stop.to_str().context("a path")?];
            let talking = s.spawn(move || lab.inside(&client.node, &client.id, talk)?.success());
            let told = (|| {
                // Killed and back within the timeout, one and then all: nothing changes.
                lab.lab(["kill", "w1"])?.success()?;
                lab.lab(["start", "w1"])?.success()?;
                lab.lab(["kill", "m1", "m2", "m3", "w1"])?.success()?;
                lab.lab(["start", "m1", "m2", "m3", "w1"])?.success()?;
                eventually("all are ready", SETTLES_WITHIN, || all_ready(lab, "m1"))?;
                // Cut off for less than the timeout: no one is called down.
                lab.lab(["partition", "w1"])?.success()?;
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_secs(2) {
                    all_ready(lab, "m1")?;
                }
                lab.lab(["heal"])?.success()?;
                for (service, task) in ["echo", "mortal", "client"].into_iter().zip(&before) {
                    ensure!(only("m1", service)? == *task, "{service} was replaced");
                }

                // It ends while nobody looks; how it ended is told all the same.
                let first = pid(lab, &mortal).context("it has a process")?.to_string();
                lab.lab(["kill", "w1"])?.success()?;
                // By this machine's count of processes: the host has one of its own.
                ensure!(Command::new("kill").args(["-9", &first]).status()?.success(), "{first} is a process");
                lab.lab(["start", "w1"])?.success()?;
                eventually("its end is told", SETTLES_WITHIN, || {
                    let told = lab.shoal("m1", ["service", "ps", "--format", "json", "mortal"])?.json::<Ended>()?;
                    ensure!(told.iter().any(|t| t.state == "failed" && t.exit_code == Some(137)), "{told:?}");
                    Ok(())
                })?;

                // Two of three managers are gone: an error in bounded time, and containers go on. What became of the
                // change is not known: a leader that had logged it may still commit it when a quorum is back.
                lab.lab(["kill", "m2", "m3"])?.success()?;
                for command in [&["network", "create", "-d", "overlay", "nowhere"][..], &["network", "ls"]] {
                    let begin = Instant::now();
                    let said = lab.shoal("m1", command)?.failure(7)?;
                    eprintln!("without a quorum {command:?} failed after {:?}: {said}", begin.elapsed());
                    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
                }
                lab.lab(["start", "m2"])?.success()?;
                eventually("two of three are enough", SETTLES_WITHIN, || {
                    lab.shoal("m1", ["network", "create", "-d", "overlay", "again"])?.success()
                })?;
                ensure!(only("m1", "echo")? == before[0], "the loss of a quorum moved a task");
                Ok::<_, anyhow::Error>(())
            })();
            fs::write(&stop, "")?;
            let talked = talking.join().expect("it does not panic");
            told.and(talked)
        })?;
        ensure!(echoed.trim().parse::<u32>()? > 50, "only {echoed}");
        Ok(())
    })
}
