//! Containers by hand: their lives, what goes in and out of them, and who starts them again.

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn a_container_is_run_stopped_started_and_asked_things() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        // On a host that is no manager.
        let at = "w1";
        let said = lab.shoal(at, ["run", "--rm", "page", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        ensure!(said.status.code() == Some(7) && said.stdout == "out\n" && said.stderr.contains("err"), "{said}");
        run(lab, at, "box", &["-e", "COLOUR=blue", "--user", "0", "-w", "/tmp"], &["idle"])?;
        let echoed = lab.shoal(at, ["exec", "-e", "SIZE=9", "box", "sh", "-c", "echo $COLOUR $SIZE $(pwd); exit 3"])?;
        ensure!(echoed.status.code() == Some(3) && echoed.stdout == "blue 9 /tmp\n", "{echoed}");
        // As those look into it who know the kernel.
        let asked = "{{.State.Pid}} {{.NetworkSettings.SandboxKey}} {{.NetworkSettings.IPAddress}}";
        let said = lab.shoal(at, ["inspect", "-f", asked, "box"])?.success()?;
        let [pid, key, ip] = said.split_whitespace().collect::<Vec<_>>()[..] else { anyhow::bail!("{said}") };
        for by in [vec!["-t", pid, "-n"], vec![&format!("--net={key}")]] {
            let seen = lab.exec(at, [vec!["nsenter"], by, vec!["ip", "-j", "addr"]].concat())?.success()?;
            ensure!(seen.contains(&format!("\"local\":\"{ip}\"")), "{ip}: {seen}");
        }
        lab.shoal(at, ["exec", "box", "sh", "-c", "echo kept > /tmp/file"])?.success()?;
        lab.shoal(at, ["stop", "-t", "2", "box"])?.success()?;
        ensure!(status(lab, at, "box")? == "exited", "{}", status(lab, at, "box")?);
        let listed = lab.shoal(at, ["ps"])?.success()?;
        ensure!(!listed.contains("box") && lab.shoal(at, ["ps", "-a"])?.success()?.contains("box"), "{listed}");
        lab.shoal(at, ["start", "box"])?.success()?;
        ensure!(lab.shoal(at, ["exec", "box", "cat", "/tmp/file"])?.success()? == "kept\n", "its files stay");
        lab.shoal(at, ["restart", "-t", "1", "box"])?.success()?;
        ensure!(lab.shoal(at, ["exec", "box", "cat", "/tmp/file"])?.success()? == "kept\n", "its files stay");
        ensure!(lab.shoal("m1", ["ps", "--all-nodes"])?.success()?.contains("box"), "seen from a manager");
        lab.shoal(at, ["kill", "box"])?.success()?;
        ensure!(lab.shoal(at, ["wait", "box"])?.success()?.trim() == "137", "killed");

        run(lab, at, "talker", &[], &["sh", "-c", "for n in 1 2 3; do echo line $n; done; exec idle"])?;
        eventually("its log", SETTLES_WITHIN, || {
            let log = lab.shoal(at, ["logs", "--tail", "2", "talker"])?.success()?;
            ensure!(log == "line 2\nline 3\n", "{log}");
            Ok(())
        })?;
        let stats = lab.shoal(at, ["stats", "--no-stream", "talker"])?.success()?;
        ensure!(stats.contains("talker"), "{stats}");
        lab.shoal(at, ["rm", "-f", "box", "talker"])?.success()?;
        for _ in 0..2 {
            lab.shoal(at, ["create", "--rm", "--name", "passing", "page", "true"])?.success()?;
            lab.shoal(at, ["start", "-a", "passing"])?.success()?;
        }
        // A volume that nobody named goes where that is meant: with --rm, and by rm -v.
        let volumes = lab.dir(at)?.join("data/volumes");
        let volumes = || std::fs::read_dir(&volumes).map_or(0, |all| all.flatten().filter(is_volume).count());
        // It is gone when the command ends, and so its name is free.
        for _ in 0..3 {
            let verb = ["run", "--rm", "--name", "passing", "-v", "/data", "page"];
            lab.shoal(at, verb.into_iter().chain(["sh", "-c", "echo x > /data/file"]))?.success()?;
            ensure!(volumes() == 0, "{}", volumes());
        }
        for (flag, left) in [("-fv", 0), ("-f", 1)] {
            run(lab, at, "box", &["-v", "/data"], &["idle"])?;
            lab.shoal(at, ["rm", flag, "box"])?.success()?;
            ensure!(volumes() == left, "rm {flag}: {}", volumes());
        }
        let hosts = lab.shoal(at, ["run", "--rm", "--add-host", "up:host-gateway", "page", "cat", "/etc/hosts"])?;
        ensure!(hosts.success()?.contains("172.17.0.1\tup\n"), "the host by its default bridge");
        let left = lab.shoal(at, ["ps", "-a", "-q"])?.success()?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

/// Beside them is where what is removed is put.
fn is_volume(entry: &std::fs::DirEntry) -> bool {
    !entry.file_name().to_string_lossy().starts_with('.')
}

#[test]
fn a_container_that_is_started_right_after_its_end_is_started() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let publish = ["-p", "8000-8005:80-85"];
        run(lab, "m1", "again", &publish, &["sh", "-c", "echo started; exec idle"])?;
        // Its network goes with its end, and comes with its start; also one whose kernel an earlier daemon has wired.
        lab.lab(["kill", "m1"])?.success()?;
        lab.lab(["start", "m1"])?.success()?;
        for starts in 2..14 {
            lab.shoal("m1", ["restart", "-t", "0", "again"])?.success()?;
            ensure!(
                status(lab, "m1", "again")? == "running",
                "after {starts} starts: {}",
                inspect(lab, "m1", "again")?
            );
            eventually("the program begins", SETTLES_WITHIN, || {
                let said = lab.shoal("m1", ["logs", "again"])?.success()?;
                ensure!(said == "started\n".repeat(starts), "{starts} starts: {said}");
                Ok(())
            })?;
        }
        // One that cannot be started again has not ended as it did the last time.
        lab.shoal("m1", ["run", "--name", "once", "page", "sh", "-c", "rm /bin/sh; exit 7"])?.failure(7)?;
        let why = lab.shoal("m1", ["start", "once"])?.failure(5)?;
        let state = inspect(lab, "m1", "once")?["State"].clone();
        ensure!(why.contains("not found") && state["ExitCode"] == 127 && state["Status"] == "exited", "{why} {state}");
        Ok(())
    })
}

#[test]
fn an_exit_status_is_the_programs_own_or_says_why_there_was_none() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let fails = |line: &str, code: i32, part: &str| -> anyhow::Result<()> {
            let said = lab.shoal("m1", line.split(' '))?.failure(code)?;
            ensure!(said.contains(part), "{line}: {said}");
            Ok(())
        };
        run(lab, "m1", "box", &[], &["idle"])?;
        lab.shoal("m1", ["exec", "box", "sh", "-c", "echo hello > /tmp/text; chmod 755 /tmp/text"])?.success()?;
        for (program, code, why) in [
            ("no-such-program", 127, "not found in $PATH"),
            ("/no/such/program", 127, "no such file or directory"),
            ("/etc", 126, "is a directory"),
            ("/etc/passwd", 126, "permission denied"),
        ] {
            fails(&format!("run --rm page {program}"), code, why)?;
            fails(&format!("run --rm -d page {program}"), code, why)?;
            fails(&format!("exec box {program}"), code, why)?;
            fails(&format!("exec -d box {program}"), code, why)?;
        }
        fails("exec box /tmp/text", 126, "exec format error")?;
        // A program that is there ends as it likes.
        fails("run --rm page sh -c no-such-program", 127, "not found")?;
        fails("run --rm page false", 1, "")?;
        // Of what is Shoal's own.
        fails("run --rm no-such-image:1", 125, "no-such-image:1")?;
        fails("run --no-such-flag page true", 125, "--no-such-flag")?;
        fails("run --init page true", 125, "not in Shoal yet")?;
        fails("run --name box page true", 125, "box")?;
        fails("container run --network nowhere page true", 125, "nowhere")?;
        fails("exec none true", 3, "none")?;
        let left = lab.shoal("m1", ["ps", "-a", "--format", "{{.Names}}"])?.success()?;
        ensure!(left == "box\n", "{left}");

        // One that stays is told the same again, also by a daemon that came later.
        lab.shoal("m1", ["create", "--name", "bad", "page", "no-such-program"])?.success()?;
        fails("start -a bad", 127, "not found in $PATH")?;
        fails("start bad", 5, "not found in $PATH")?;
        let known = || -> anyhow::Result<()> {
            let seen = inspect(lab, "m1", "bad")?["State"].clone();
            ensure!(seen["ExitCode"] == 127 && seen["Status"] == "exited", "{seen}");
            ensure!(seen["Error"].as_str().is_some_and(|e| e.contains("not found in $PATH")), "{seen}");
            Ok(())
        };
        known()?;
        lab.lab(["kill", "m1"])?.success()?;
        lab.lab(["start", "m1"])?.success()?;
        eventually("it is on record", SETTLES_WITHIN, known)?;
        run(lab, "m1", "later", &[], &["idle"])?;
        known()
    })
}

#[test]
fn a_container_of_another_host_is_asked_through_a_manager() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let on_w1 = |verb: &[&'static str], rest: &[&'static str]| {
            lab.shoal("m1", [verb, &["--node", "w1"], rest].concat())?.success()
        };
        on_w1(&["run", "-d"], &["--name", "far", "page", "serve"])?;
        ensure!(!lab.shoal("m1", ["exec", "far", "true"])?.status.success(), "m1 has none of that name");
        let written = lab.exec("w1", ["hostname"])?.success()?;
        let read = on_w1(&["exec"], &["far", "cat", "/proc/sys/kernel/hostname"])?;
        ensure!(read == lab.shoal("w1", ["exec", "far", "cat", "/proc/sys/kernel/hostname"])?.success()?, "{read}");
        ensure!(read != written, "{read} is the host's own name");
        ensure!(on_w1(&["exec", "-i"], &["far", "cat"])?.is_empty());
        ensure!(on_w1(&["top"], &["far"])?.contains("httpd -f -p 80"));
        ensure!(on_w1(&["stats", "--no-stream"], &["far"])?.contains("far"));
        // In the foreground, with its output and its exit status.
        let ran = lab.shoal("m1", ["run", "--node", "w1", "--rm", "page", "sh", "-c", "echo out; exit 7"])?;
        ensure!((ran.stdout.trim(), ran.status.code()) == ("out", Some(7)), "{ran}");
        on_w1(&["run", "-d"], &["--name", "wrote", "page", "sh", "-c", "echo written; exit 3"])?;
        ensure!(on_w1(&["wait"], &["wrote"])?.trim() == "3");
        ensure!(on_w1(&["logs"], &["wrote"])?.contains("written"));
        // A signal goes where the container is.
        on_w1(&["kill"], &["far"])?;
        eventually("it is killed", SETTLES_WITHIN, || {
            let status = status(lab, "w1", "far")?;
            ensure!(status == "exited", "{status}");
            Ok(())
        })?;
        // A worker's users may not.
        lab.shoal("m1", ["run", "-d", "--name", "near", "page", "idle"])?.success()?;
        let asked = lab.shoal("w1", ["exec", "--node", "m1", "near", "true"])?;
        ensure!(asked.status.code() == Some(8), "{asked}");
        let gone = lab.shoal("m1", ["exec", "--node", "w9", "far", "true"])?;
        ensure!(gone.status.code() == Some(3) && gone.stderr.contains("w9"), "{gone}");
        // Of a host that is down nothing is asked that it would do some day.
        on_w1(&["run", "-d"], &["--name", "lost", "page", "idle"])?;
        lab.lab(["power-off", "w1"])?.success()?;
        eventually("w1 is down", SETTLES_WITHIN, || {
            let nodes = lab.shoal("m1", ["node", "ls"])?.success()?;
            ensure!(nodes.contains("Down"), "{nodes}");
            Ok(())
        })?;
        let listed = lab.shoal("m1", ["ps", "--all-nodes"])?.success()?;
        ensure!(listed.lines().any(|l| l.contains("lost") && l.contains("its host is down")), "{listed}");
        for line in [&["stop", "lost"][..], &["wait", "lost"], &["start", "wrote"], &["create", "page", "idle"]] {
            let refused = lab.shoal("m1", [&line[..1], &["--node", "w1"], &line[1..]].concat())?.failure(7)?;
            ensure!(refused.contains("host w1 is down"), "{refused}");
        }
        on_w1(&["rm", "-f"], &["lost"]).map(drop)
    })
}

#[test]
fn its_own_host_starts_it_again_also_without_any_manager() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        run(lab, "w1", "phoenix", &["--restart", "always"], &["idle"])?;
        run(lab, "w1", "mortal", &["--restart", "on-failure:2"], &["sh", "-c", "exit 5"])?;
        eventually("it was given up", SETTLES_WITHIN, || {
            let seen = inspect(lab, "w1", "mortal")?;
            ensure!(seen["RestartCount"] == 2 && seen["State"]["ExitCode"] == 5, "{seen}");
            ensure!(seen["State"]["Status"] == "exited", "{seen}");
            Ok(())
        })?;
        let id = id(lab, "w1", "phoenix")?;
        let first_process = || -> anyhow::Result<String> {
            let find = format!("grep -l {id} /proc/[0-9]*/cgroup | cut -d/ -f3 | sort -n | head -1");
            let pid = lab.exec("w1", ["sh", "-c", &find])?.success()?.trim().to_owned();
            ensure!(!pid.is_empty(), "it does not run");
            Ok(pid)
        };
        let before = first_process()?;
        lab.lab(["kill", "m1"])?.success()?;
        lab.exec("w1", ["kill", "-9", &before])?.success()?;
        eventually("it runs again", SETTLES_WITHIN, || {
            let now = first_process()?;
            ensure!(now != before, "still {now}");
            Ok(now)
        })?;
        // A daemon that comes back finds all as it was.
        lab.lab(["kill", "w1"])?.success()?;
        lab.lab(["start", "m1", "w1"])?.success()?;
        eventually("it is told to run", SETTLES_WITHIN, || {
            ensure!(status(lab, "w1", "phoenix")? == "running", "{}", status(lab, "w1", "phoenix")?);
            Ok(())
        })
    })
}
