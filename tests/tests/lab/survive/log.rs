//! Managers whose log is not what it was: they say so, and never vote with less than they have acknowledged.

use super::*;
use serde_json::Value;

/// A manager starts, and the leader hears that it is none.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

fn status(lab: &Lab, at: &str, host: &str) -> anyhow::Result<Value> {
    let found = lab.shoal(at, ["node", "inspect", host])?.json::<Value>()?.into_iter().next().context("it is there")?;
    Ok(found["ManagerStatus"].clone())
}

fn error(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let info = lab.shoal(host, ["info", "--format", "json"])?.json::<Value>()?.into_iter().next().context("one")?;
    Ok(info["Swarm"]["Error"].as_str().unwrap_or_default().to_owned())
}

fn networks(lab: &Lab, at: &str) -> anyhow::Result<Vec<(String, String)>> {
    let listed = lab.shoal(at, ["network", "ls", "--filter", "driver=overlay", "--format", "json"])?.json::<Value>()?;
    let text = |n: &Value, key: &str| n[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = listed.iter().map(|n| (text(n, "Name"), text(n, "ID"))).collect();
    found.sort();
    Ok(found)
}

/// The write that only m1 and m2 have is committed. m2 loses its log; with m3, which never had the write, it would be
/// a majority without it, and give its id and its subnet out again.
#[test]
fn a_manager_that_lost_its_log_does_not_vote_and_comes_back_by_being_demoted_and_promoted() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 0 }, |lab| {
        lab.lab(["kill", "m3"])?.success()?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "precious"])?.success()?;
        let before = networks(lab, "m1")?;
        lab.lab(["kill", "m2"])?.success()?;
        fs::remove_dir_all(lab.data("m2")?.join("raft"))?;
        lab.lab(["kill", "m1"])?.success()?;
        lab.lab(["start", "m3"])?.success()?;
        lab.lab(["start", "m2"])?.success()?;
        eventually("m2 says what is wrong", SEEN_WITHIN, || {
            let told = error(lab, "m2")?;
            ensure!(told.starts_with("E-LOG-MISSING") || told.contains(": E-LOG-MISSING"), "{told:?}");
            ensure!(told.contains("node demote"), "{told}");
            Ok(())
        })?;
        let refused = lab.shoal("m3", ["network", "create", "-d", "overlay", "second"])?.failure(7)?;
        ensure!(refused.contains("leader") || refused.contains("quorum"), "{refused}");

        lab.lab(["start", "m1"])?.success()?;
        eventually("m1 and m3 go on with what was acknowledged", SEEN_WITHIN, || {
            ensure!(networks(lab, "m3")? == before, "{before:?}");
            Ok(())
        })?;
        eventually("m2 is seen as it is", SEEN_WITHIN, || {
            for at in ["m1", "m3"] {
                let status = status(lab, at, "m2")?;
                ensure!(status["Reachability"] == "unreachable", "{status}");
                ensure!(status["Error"].as_str().is_some_and(|e| e.contains("E-LOG-MISSING")), "{status}");
            }
            Ok(())
        })?;

        lab.shoal("m1", ["node", "demote", "m2"])?.success()?;
        eventually("m2 is a worker", SEEN_WITHIN, || {
            let told = error(lab, "m2")?;
            ensure!(told.is_empty(), "{told}");
            let info = lab.shoal("m2", ["info", "--format", "json"])?.json::<Value>()?;
            ensure!(info[0]["Swarm"]["Role"] == "worker", "{info:?}");
            Ok(())
        })?;
        lab.shoal("m1", ["node", "promote", "m2"])?.success()?;
        eventually("m2 is a manager again", SEEN_WITHIN, || {
            let status = status(lab, "m3", "m2")?;
            ensure!(status["Reachability"] == "reachable" && status["Error"] == "", "{status}");
            ensure!(!nodes(lab, "m2")?["m2"].raft.is_empty(), "it is in the group");
            Ok(())
        })?;
        ensure!(networks(lab, "m2")? == before, "it has what was acknowledged");
        Ok(())
    })
}

/// A flipped bit in an entry that was acknowledged.
#[test]
fn a_manager_whose_log_is_damaged_says_so_and_keeps_it() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 0 }, |lab| {
        for n in 0..5 {
            lab.shoal("m1", ["network", "create", "-d", "overlay", &format!("e3-{n}")])?.success()?;
        }
        let lost = if leader(lab, "m1")? == "m2" { "m3" } else { "m2" };
        lab.lab(["kill", lost])?.success()?;
        let dir = lab.data(lost)?.join("raft");
        let log = fs::read_dir(&dir)?
            .filter_map(|file| Some(file.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")))
            .context("it has a log")?;
        let mut bytes = fs::read(&log)?;
        let at = bytes.windows(4).position(|w| w == b"e3-1").context("the name is in it")?;
        bytes[at] ^= 1;
        fs::write(&log, &bytes)?;
        lab.lab(["start", lost])?.success()?;
        eventually("it says what is wrong", SEEN_WITHIN, || {
            let told = error(lab, lost)?;
            ensure!(told.contains("E-LOG-DAMAGED"), "{told:?}");
            Ok(())
        })?;
        ensure!(fs::read(&log)? == bytes, "nothing of it was touched");
        ensure!(lab.shoal("m1", ["network", "ls"])?.status.success(), "the others go on");
        Ok(())
    })
}

/// A file system that is not mounted, or a file that somebody moved: the host is still in its cluster.
#[test]
fn a_host_that_lost_its_identity_touches_nothing_and_goes_on_when_it_is_back() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["run", "-d", "--name", "box", "page", "serve"])?.success()?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "precious"])?.success()?;
        let before = networks(lab, "m1")?;
        lab.lab(["kill", "m1"])?.success()?;
        let identity = lab.data("m1")?.join("identity");
        let aside = lab.data("m1")?.join("identity.away");
        fs::rename(&identity, &aside)?;
        lab.lab(["start", "m1"])?;
        eventually("it says what is missing", SEEN_WITHIN, || {
            let told = error(lab, "m1")?;
            ensure!(told.contains("E-IDENTITY-MISSING"), "{told:?}");
            Ok(())
        })?;
        lab.shoal("m1", ["leave"])?.failure(4)?;
        lab.shoal("m1", ["init"])?.failure(4)?;
        lab.lab(["kill", "m1"])?.success()?;
        fs::rename(&aside, &identity)?;
        lab.lab(["start", "m1"])?.success()?;
        eventually("all is as it was", SEEN_WITHIN, || {
            ensure!(networks(lab, "m1")? == before, "{before:?}");
            let listed = lab.shoal("m1", ["ps", "--format", "json"])?.json::<Value>()?;
            ensure!(listed.iter().any(|c| c["Names"] == "box" && c["State"] == "running"), "{listed:?}");
            Ok(())
        })
    })
}

/// It never opened its log again, and was `Reachable` meanwhile, for its agent was.
#[test]
fn a_manager_whose_disk_is_full_is_seen_as_it_is_and_comes_back_when_there_is_space() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 0 }, |lab| {
        lab.shoal("m1", ["network", "create", "-d", "overlay", "precious"])?.success()?;
        let before = networks(lab, "m1")?;
        let full = if leader(lab, "m1")? == "m2" { "m3" } else { "m2" };
        lab.lab(["kill", full])?.success()?;
        let dir = lab.data(full)?.join("raft").display().to_string();
        let fill = format!(
            "cp -a {dir} {dir}.copy && mount -t tmpfs -o size=16m tmpfs {dir} && cp -a {dir}.copy/. {dir}/ && \
             rm {dir}/*.new && {{ dd if=/dev/zero of={dir}/fill bs=64k 2>/dev/null || true; }}"
        );
        lab.exec(full, ["sh", "-c", &fill])?.success()?;
        lab.lab(["start", full])?.success()?;
        eventually("it is seen as it is", SEEN_WITHIN, || {
            let status = status(lab, "m1", full)?;
            ensure!(status["Reachability"] == "unreachable", "{status}");
            ensure!(status["Error"].as_str().is_some_and(|e| e.contains("No space left on device")), "{status}");
            ensure!(error(lab, full)?.contains("No space left on device"), "its own word");
            Ok(())
        })?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "second"])?.success()?;
        lab.exec(full, ["rm", &format!("{dir}/fill")])?.success()?;
        let begin = Instant::now();
        eventually("it is back", Duration::from_secs(30), || {
            let status = status(lab, "m1", full)?;
            ensure!(status["Reachability"] == "reachable", "{status}");
            Ok(())
        })?;
        eprintln!("it was back {:?} after there was space", begin.elapsed());
        eventually("it knows everything", SEEN_WITHIN, || {
            ensure!(networks(lab, full)?.len() == before.len() + 1, "both");
            Ok(())
        })
    })
}
