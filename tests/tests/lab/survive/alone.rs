//! Hosts whose managers do not answer: what runs there is seen and entered all the same, and nothing is changed.

use super::*;
use serde_json::Value;
use shoal_tests::Output;

/// Two seconds, and what a busy machine takes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(6);

/// Says when it is told to, and ends when there is a file.
const MORTAL: &str = "trap 'echo caught' HUP; echo hello; while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3";

fn stage(lab: &Lab, at: &str) -> anyhow::Result<()> {
    let line = "run -d --name box -p 8080:80 --label tier=front --expose 9/udp --add-host up:host-gateway --hostname front \
                --restart on-failure:3 -m 64m page serve";
    lab.shoal(at, line.split_whitespace())?.success()?;
    lab.shoal(at, ["run", "-d", "--name", "mortal", "page", "sh", "-c", MORTAL])?.success()?;
    Ok(())
}

/// Said by the managers.
fn confirmed(said: Output) -> anyhow::Result<Output> {
    ensure!(said.status.success() && said.stderr.is_empty(), "{said}");
    Ok(said)
}

/// Said by the host itself, which says so beside its answer.
fn alone(lab: &Lab, at: &str, args: &[&str]) -> anyhow::Result<Output> {
    let begin = Instant::now();
    let said = lab.shoal(at, args)?;
    eprintln!("{at}: {args:?} took {:?} without managers", begin.elapsed());
    ensure!(begin.elapsed() < ANSWERS_WITHIN, "it took {:?}: {said}", begin.elapsed());
    let note = format!("no manager answers: this is what host {at} knows itself\n");
    ensure!(said.status.success() && said.stderr == note, "{said}");
    Ok(said)
}

/// What is the same whoever tells it: since when a container runs its host knows better.
fn inspected(said: Output) -> anyhow::Result<Value> {
    let mut found = said.json::<Value>()?.into_iter().next().context("it is there")?;
    for key in ["Since", "StartedAt"] {
        found["State"].as_object_mut().context("it has a state")?.remove(key);
    }
    Ok(found)
}

fn ended(said: Output) -> anyhow::Result<()> {
    let state = inspected(said)?["State"].clone();
    ensure!(state["Status"] == "exited" && state["ExitCode"] == 3, "{state}");
    Ok(())
}

fn asked_everything(lab: &Lab, at: &str, before: &Value) -> anyhow::Result<()> {
    let listed = alone(lab, at, &["ps", "--format", "json"])?.json::<Value>()?;
    ensure!(listed.len() == 2, "{listed:?}");
    ensure!(listed.iter().all(|c| c["State"] == "running" && c["Node"] == at), "{listed:?}");
    let now = inspected(alone(lab, at, &["inspect", "box"])?)?;
    ensure!(now == *before, "{before} became {now}");
    let id = before["Id"].as_str().context("it has an id")?;
    ensure!(alone(lab, at, &["exec", id, "hostname"])?.stdout == "front\n", "entered by its id");
    ensure!(alone(lab, at, &["port", "box", "80"])?.stdout == "0.0.0.0:8080\n[::]:8080\n", "its port");
    ensure!(alone(lab, at, &["top", "box"])?.stdout.contains("serve"), "its processes");
    let attached = thread::scope(|s| {
        let attached = s.spawn(|| lab.shoal(at, ["attach", "--no-stdin", "mortal"]));
        alone(lab, at, &["kill", "-s", "HUP", "mortal"])?;
        eventually("it was told", SETTLES_WITHIN, || {
            let log = alone(lab, at, &["logs", "mortal"])?.stdout;
            ensure!(log == "hello\ncaught\n", "{log}");
            Ok(())
        })?;
        alone(lab, at, &["exec", "mortal", "touch", "/tmp/end"])?;
        attached.join().expect("it does not panic")
    })?;
    ensure!(attached.status.code() == Some(3) && attached.stderr.contains("no manager answers"), "{attached}");
    eventually("its end is seen", SETTLES_WITHIN, || ended(alone(lab, at, &["inspect", "mortal"])?))?;

    // Nothing is changed, and of what is not this host's nothing is said.
    let lines = ["stop box", "kill box", "rm -f mortal", "rename box other", "ps --all-nodes", "exec nowhere true"];
    let refused = lines.map(|line| (line, 7)).into_iter().chain([("run -d page idle", 125)]);
    thread::scope(|s| {
        let refused = refused.map(|(line, code)| s.spawn(move || lab.shoal(at, line.split(' '))?.failure(code)));
        let refused: Vec<_> = refused.collect();
        refused.into_iter().try_for_each(|line| line.join().expect("it does not panic").map(drop))
    })?;
    let now = inspected(alone(lab, at, &["inspect", "box"])?)?;
    ensure!(now == *before, "{before} became {now}");
    Ok(())
}

#[test]
fn a_host_shows_its_containers_and_lets_one_into_them_while_no_manager_answers() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 1 }, |lab| {
        lab.import("page")?;
        let hosts = ["w1", "m1"];
        let mut before = Vec::new();
        for at in hosts {
            stage(lab, at)?;
            before.push(inspected(confirmed(lab.shoal(at, ["inspect", "box"])?)?)?);
        }

        // A worker that reaches one manager of three, and that manager.
        lab.lab(["kill", "m2", "m3"])?.success()?;
        thread::scope(|s| {
            let asking = hosts.into_iter().zip(&before).map(|(at, box_)| s.spawn(|| asked_everything(lab, at, box_)));
            let asking: Vec<_> = asking.collect();
            asking.into_iter().try_for_each(|asked| asked.join().expect("it does not panic"))
        })?;

        // One that reaches none, and knows what it was told before its daemon was started.
        lab.lab(["partition", "w1"])?.success()?;
        lab.lab(["kill", "w1", "m1"])?.success()?;
        lab.lab(["start", "w1", "m1"])?.success()?;
        for (at, before) in hosts.into_iter().zip(&before) {
            eventually("it looked again", SETTLES_WITHIN, || ended(alone(lab, at, &["inspect", "mortal"])?))?;
            let now = inspected(alone(lab, at, &["inspect", "box"])?)?;
            ensure!(now == *before, "{before} became {now}");
            ensure!(alone(lab, at, &["exec", "box", "hostname"])?.stdout == "front\n", "entered");
            lab.shoal(at, ["stop", "box"])?.failure(7)?;
        }

        lab.lab(["heal"])?.success()?;
        lab.lab(["start", "m2", "m3"])?.success()?;
        for (at, before) in hosts.into_iter().zip(&before) {
            eventually("the managers say the same", SETTLES_WITHIN, || {
                ended(confirmed(lab.shoal(at, ["inspect", "mortal"])?)?)
            })?;
            let now = inspected(confirmed(lab.shoal(at, ["inspect", "box"])?)?)?;
            ensure!(now == *before, "{before} became {now}");
            confirmed(lab.shoal(at, ["stop", "-t", "1", "box"])?)?;
        }

        // A manager that is silent keeps nobody from the others.
        lab.lab(["power-off", "m1"])?.success()?;
        eventually("two of three answer", SETTLES_WITHIN, || confirmed(lab.shoal("w1", ["ps"])?).map(drop))
    })
}
