//! What Docker's users expect of `ps`, `inspect`, `stop` and the like beside services: a host's tasks are among its
//! containers, and what an image says of itself is shown.

use super::*;
use shoal_tests::{Shape, story};

fn names(lab: &Lab, host: &str, args: &[&str]) -> anyhow::Result<Vec<String>> {
    let line = [&["ps", "--format", "{{.Names}} {{.State}}"], args].concat();
    Ok(lab.shoal(host, line)?.success()?.lines().map(str::to_owned).collect())
}

#[test]
fn tasks_of_services_are_containers_of_their_host() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let on_w1 = ["--constraint", "node.hostname==w1", "--restart-delay", "0s"];
        let create = [&["service", "create", "--name", "web"], &on_w1[..], &["page", "serve"]].concat();
        lab.shoal("m1", create)?.success()?;
        // On its host, which is no manager, and from a manager.
        let seen = names(lab, "w1", &[])?;
        let [first] = seen.as_slice() else { panic!("{seen:?}") };
        ensure!(first.starts_with("web.1.task-") && first.ends_with(" running"), "{first}");
        ensure!(names(lab, "m1", &[])?.is_empty() && names(lab, "m1", &["--node", "w1"])? == seen, "{seen:?}");
        let id = inspect(lab, "w1", "web.1")?["Id"].as_str().context("an id")?.to_owned();
        ensure!(*first == format!("web.1.{id} running"), "{first} is {id}");
        // By each of its names.
        for name in ["web.1", &format!("web.1.{id}"), &id] {
            ensure!(lab.shoal("w1", ["exec", name, "echo", "here"])?.success()? == "here\n", "{name}");
        }
        let stats = lab.shoal("w1", ["stats", "--no-stream", "--format", "{{.Name}}"])?.success()?;
        ensure!(stats.trim() == format!("web.1.{id}"), "{stats}");
        ensure!(lab.shoal("w1", ["top", "web.1"])?.success()?.contains("httpd"), "top");
        lab.shoal("w1", ["logs", "web.1"])?.success()?;
        // What is its service's to do is refused, and says whose it is.
        for line in
            [&["rename", "web.1", "other"][..], &["start", "web.1"], &["rm", "web.1"], &["stop", "-t", "1", "web.1"]]
        {
            let refused = lab.shoal("w1", line)?.failure(4)?;
            ensure!(refused.contains("service"), "{line:?}: {refused}");
        }
        // Stopped, it has ended, and its service has another one.
        lab.shoal("w1", ["stop", "web.1"])?.success()?;
        ensure!(status(lab, "w1", &id)? == "exited", "it has ended when stop returns");
        eventually("another one runs", SETTLES_WITHIN, || {
            let seen = names(lab, "w1", &[])?;
            ensure!(seen.len() == 1 && !seen[0].contains(&format!("{id} ")), "{seen:?}");
            Ok(())
        })?;
        lab.shoal("w1", ["rm", &id])?.success()?;
        ensure!(lab.shoal("w1", ["inspect", &id])?.failure(3)?.contains(&id), "it is gone");
        let second = inspect(lab, "w1", "web.1")?["Id"].as_str().context("an id")?.to_owned();
        lab.shoal("w1", ["rm", "-f", "web.1"])?.success()?;
        ensure!(!names(lab, "w1", &["-a"])?.iter().any(|n| n.contains(&format!("{second} "))), "{second} is gone");
        eventually("a third one runs", SETTLES_WITHIN, || {
            ensure!(names(lab, "w1", &[])?.len() == 1, "none");
            Ok(())
        })
    })
}

#[test]
fn what_an_image_says_is_shown_as_what_its_user_says() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        let changes = [
            "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
            "CMD [\"idle\"]",
            "ENV COLOUR=blue SIZE=1",
            "WORKDIR /www",
            "USER 0:0",
            "EXPOSE 80/tcp",
            "STOPSIGNAL SIGINT",
            "LABEL from=image",
        ];
        lab.import_with("page", &changes)?;
        run(lab, "m1", "plain", &["-e", "SIZE=2"], &[])?;
        run(lab, "m1", "own", &["-w", "/tmp"], &["exec sleep 1000"])?;
        let of = |name: &str| anyhow::Ok(inspect(lab, "m1", name)?["Config"].clone());
        let plain = of("plain")?;
        ensure!(plain["Entrypoint"] == serde_json::json!(["/bin/sh", "-c"]), "{plain}");
        ensure!(plain["Cmd"] == serde_json::json!(["idle"]), "{plain}");
        ensure!(plain["Env"] == serde_json::json!(["SIZE=2", "COLOUR=blue"]), "{plain}");
        ensure!((&plain["WorkingDir"], &plain["User"]) == (&"/www".into(), &"0:0".into()), "{plain}");
        ensure!(plain["ExposedPorts"].get("80/tcp").is_some() && plain["StopSignal"] == "SIGINT", "{plain}");
        ensure!(plain["Labels"]["from"] == "image", "{plain}");
        let own = of("own")?;
        ensure!(own["Cmd"] == serde_json::json!(["exec sleep 1000"]) && own["WorkingDir"] == "/tmp", "{own}");
        let commands = lab.shoal("m1", ["ps", "--format", "{{.Names}}: {{.Command}}"])?.success()?;
        ensure!(commands == "own: /bin/sh -c exec sleep 1000\nplain: /bin/sh -c idle\n", "{commands}");
        // Its image's, whatever bears the name by now.
        lab.import("page")?;
        ensure!(of("plain")? == plain, "another image bears the name");
        // A container that its limit has killed says so.
        run(lab, "m1", "hungry", &["-m", "16m"], &["sh", "-c", "x=x; while :; do x=$x$x; done"])?;
        eventually("it has ended", SETTLES_WITHIN, || {
            ensure!(status(lab, "m1", "hungry")? == "exited", "it runs");
            Ok(())
        })?;
        let ended = inspect(lab, "m1", "hungry")?["State"].clone();
        ensure!(ended["OOMKilled"] == true && ended["ExitCode"] == 137, "{ended}");
        ensure!(inspect(lab, "m1", "plain")?["State"]["OOMKilled"] == false, "only that one");
        Ok(())
    })
}
