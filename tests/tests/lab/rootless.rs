//! Labs of a user who is not root: what is different there, and what is not.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use shoal_tests::{Nobody, Output, Shape, built, eventually, story_without_root};

const CONFLICT: i32 = 4;
const NOT_CONVERGED: i32 = 5;
const NOT_ALLOWED: i32 = 8;
/// A node is down after 5 s of silence; the rest is for a slow machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn what_nobody_can_have_is_refused_with_why() -> anyhow::Result<()> {
    story_without_root(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let create = |rest: &[&'static str]| {
            let once = ["service", "create", "--timeout", "30s", "--restart-condition", "none"];
            lab.shoal("m1", [&once, rest, &["page", "idle"]].concat())
        };
        let said =
            create(&["--name", "small", "--limit-memory", "64m", "--limit-cpu", "0.5"])?.failure(NOT_CONVERGED)?;
        ensure!(said.contains("--limit-cpu and --limit-memory") && said.contains("no cgroups"), "{said}");
        let said = create(&["--name", "other", "--user", "1000:1000"])?.failure(NOT_CONVERGED)?;
        ensure!(said.contains("user 1000 and group 1000") && said.contains("--user 0"), "{said}");
        // What is only counted, and root by its name, are no trouble.
        create(&["--name", "counted", "--reserve-memory", "16m", "--user", "root"])?.success()?;
        // What the image has in a directory that a container removed does not come back when it makes it anew.
        let anew = "rm -r /www && mkdir /www && test -z \"$(ls -A /www)\" && exec idle";
        let anew = ["service", "create", "--timeout", "30s", "--restart-condition", "none", "page", "sh", "-c", anew];
        lab.shoal("m1", anew)?.success()?;
        // The host's mount table shows none of the machine's cgroups, which container runtimes would go by.
        let mounted =
            lab.exec("m1", ["sh", "-c", "ls /sys/fs/cgroup; grep cgroup2* /proc/self/mountinfo | grep -v tmpfs"])?;
        ensure!(mounted.stdout.is_empty(), "{mounted}");
        Ok(())
    })
}

#[test]
fn hosts_of_nobody_die_and_come_back_and_all_at_once_too() -> anyhow::Result<()> {
    story_without_root(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let web = ["service", "create", "--name", "web", "--mode", "global", "--timeout", "60s", "page", "idle"];
        lab.shoal("m1", web)?.success()?;
        let status = |host: &str| -> anyhow::Result<String> {
            let nodes = lab.shoal("m1", ["node", "ls", "--format", "json"])?.json::<serde_json::Value>()?;
            let node = nodes.iter().find(|n| n["Hostname"] == host).context("it is a node")?;
            Ok(node["Status"].as_str().unwrap_or_default().to_owned())
        };
        let becomes = |host: &str, wanted: &str| {
            eventually(&format!("{host} is {wanted}"), NOTICED_WITHIN, || {
                let is = status(host)?;
                ensure!(is == wanted, "it is {is}");
                Ok(())
            })
        };
        let container = || lab.exec("w1", ["pgrep", "-f", "sleep 86400"]).map(|o| o.stdout);

        let before = container()?;
        lab.lab(["kill", "w1"])?.success()?;
        ensure!(lab.state_of("w1")? == "daemon down", "killed");
        ensure!(!before.is_empty() && container()? == before, "containers outlive their daemon");
        lab.lab(["start", "w1"])?.success()?;
        lab.lab(["stop", "w1"])?.success()?;
        lab.lab(["start", "w1"])?.success()?;
        ensure!(lab.state_of("w1")? == "up" && container()? == before, "and are taken up by the next");

        lab.lab(["partition", "w1"])?.success()?;
        becomes("w1", "Down")?;
        lab.lab(["heal"])?.success()?;
        becomes("w1", "Ready")?;

        lab.lab(["power-off", "w1"])?.success()?;
        lab.exec("w1", ["true"])?.failure(CONFLICT)?;
        becomes("w1", "Down")?;
        lab.lab(["start", "w1"])?.success()?;
        becomes("w1", "Ready")?;

        // Another user, be it root, goes by none of this one's records.
        let labs = lab.dir("m1")?.ancestors().nth(3).context("a lab is in a directory")?.to_owned();
        let by_root =
            Command::new(built()?).args(["lab", "--name", lab.name(), "down"]).env("SHOAL_LAB_DIR", labs).output()?;
        let said = String::from_utf8_lossy(&by_root.stderr).into_owned();
        ensure!(by_root.status.code() == Some(NOT_ALLOWED) && said.contains("of user 65534"), "{said}");

        // As after a restart of the machine: no process is left that the lab's namespace lives by.
        for dir in [lab.dir("m1")?, lab.dir("w1")?, lab.dir("m1")?.join("../../switch")] {
            kill(&dir.join("init.pid"))?;
        }
        eventually("all is off", NOTICED_WITHIN, || {
            let states = (lab.state_of("m1")?, lab.state_of("w1")?);
            ensure!(states == ("off".to_owned(), "off".to_owned()), "{states:?}");
            Ok(())
        })?;
        let said = lab.lab(["start", "m1"])?.failure(CONFLICT)?;
        ensure!(said.contains("switch") && said.contains("lab down"), "{said}");
        // `lab down` follows, and sees to it that nothing is left.
        Ok(())
    })
}

/// What a record of a process names.
fn kill(record: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(record)?;
    let pid = text.split(' ').next().unwrap_or_default();
    ensure!(Command::new("kill").args(["-9", pid]).status()?.success(), "{text}");
    Ok(())
}

#[test]
fn a_kernel_that_allows_no_user_namespace_is_told_apart_from_one_that_does() -> anyhow::Result<()> {
    let nobody = Nobody::new(&built()?)?;
    if let Some(why) = nobody.is_forbidden_namespaces()? {
        eprintln!("this kernel forbids them itself: {why}");
    }
    // The limit is of each user namespace, so the machine's own stays as it is.
    let mut holder = Command::new("unshare").args(["--user", "sleep", "60"]).spawn()?;
    let said = forbid_and_try(&nobody, holder.id());
    holder.kill()?;
    holder.wait()?;
    let said = said?.failure(NOT_ALLOWED)?;
    ensure!(said.contains("user.max_user_namespaces=15000") && said.contains("as root"), "{said}");
    nobody.has_nothing()
}

/// In the user namespace of this process, once it has one.
fn forbid_and_try(nobody: &Nobody, holder: u32) -> anyhow::Result<Output> {
    let own = fs::read_link("/proc/self/ns/user")?;
    eventually("it has a user namespace", NOTICED_WITHIN, || {
        ensure!(fs::read_link(format!("/proc/{holder}/ns/user"))? != own, "not yet");
        Ok(())
    })?;
    for map in ["uid_map", "gid_map"] {
        // In one write, or the kernel refuses.
        let mut map = fs::File::options().write(true).open(format!("/proc/{holder}/{map}"))?;
        map.write_all(b"0 0 1\n65534 65534 1\n")?;
    }
    let as_nobody = nobody.command();
    let mut inside = Command::new("nsenter");
    inside.args(["--user", "--target", &holder.to_string()]);
    inside.args(["sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"]);
    inside.arg(as_nobody.get_program()).args(as_nobody.get_args()).arg(nobody.shoal()).args(["lab", "up"]);
    for (name, value) in as_nobody.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    let ended = inside.current_dir(nobody.home()).stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(ended.stdout), text(ended.stderr));
    Ok(Output { command: "shoal lab up".to_owned(), status: ended.status, stdout, stderr })
}
