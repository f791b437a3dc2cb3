//! "Common Operations".

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn networks_are_listed_inspected_made_and_removed_as_dockers_users_know_it() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let create = ["network", "create", "--subnet", "192.0.2.0/24", "--label", "of=test", "my-network"];
        lab.shoal("m1", create)?.success()?;
        run(lab, "m1", "my-container", &[], &["idle"])?;
        lab.shoal("m1", ["network", "connect", "my-network", "my-container"])?.success()?;
        let seen = lab.shoal("m1", ["network", "inspect", "my-network"])?.json::<Value>()?;
        let text = seen[0].to_string();
        for part in ["my-network", "bridge", "192.0.2.0/24", "192.0.2.1", "my-container", "192.0.2.2", "local"] {
            ensure!(text.contains(part), "{part} is not in {text}");
        }
        let said = |line: &[&str]| Ok::<_, anyhow::Error>(lab.shoal("m1", line)?.success()?.trim().to_owned());
        for (noun, template, wanted) in [
            ("network", "{{.Name}}", "my-network"),
            ("network", "{{range .IPAM.Config}}{{.Subnet}} by {{.Gateway}}{{end}}", "192.0.2.0/24 by 192.0.2.1"),
            ("network", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "my-container 192.0.2.2/24"),
            ("network", r#"{{index .Labels "of"}} {{len .Containers}}"#, "test 1"),
            ("container", r#"{{(index .NetworkSettings.Networks "my-network").IPAddress}}"#, "192.0.2.2"),
            ("container", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", "bridge my-network"),
            ("container", r#"{{if .State.Running}}up{{else}}down{{end}} {{slice .Name 1 | printf "%.2s"}}"#, "up my"),
        ] {
            let shown = said(&[noun, "inspect", "--format", template, &format!("my-{noun}")])?;
            ensure!(shown == wanted, "{template} is {shown}, not {wanted}");
        }
        let id = seen[0]["Id"].as_str().context("an id")?;
        let table = said(&["network", "ls", "--filter", "name=my-", "--format", r"table {{.ID}}\t{{.Name | upper}}"])?;
        let words: Vec<&str> = table.split_whitespace().collect();
        ensure!(words == ["NETWORK", "ID", "NAME", id, "MY-NETWORK"], "{table}");
        let wrong = lab.shoal("m1", ["network", "ls", "--format", "{{.Nmae}}"])?;
        ensure!(wrong.status.code() == Some(2) && wrong.stderr.contains("no field Nmae: there are"), "{wrong}");
        let listed =
            lab.shoal("m1", ["network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}} {{.Scope}}"])?;
        let listed = listed.success()?;
        ensure!(listed.lines().any(|l| l == "my-network local") && !listed.contains("host"), "{listed}");

        // Whether the kernel agrees; it cannot where somebody else has the name of the bridge.
        ensure!(seen[0]["Hosts"]["m1"]["KernelAgrees"] == true, "{text}");
        lab.exec("m1", ["ip", "link", "add", "taken0", "type", "bridge"])?.success()?;
        let taken = ["network", "create", "-o", "com.docker.network.bridge.name=taken0", "astray"];
        lab.shoal("m1", taken)?.success()?;
        let astray = lab.shoal("m1", ["network", "inspect", "astray"])?.json::<Value>()?;
        let said = &astray[0]["Hosts"]["m1"];
        ensure!(said["KernelAgrees"] == false && said["Differences"][0].to_string().contains("taken0"), "{said}");
        let lost = lab.shoal("m1", ["run", "--rm", "--network", "astray", "page", "true"])?;
        ensure!(lost.stderr.contains("this host has a link taken0 that is not shoal's"), "{lost}");
        eventually("nobody is on it", SETTLES_WITHIN, || {
            lab.shoal("m1", ["network", "rm", "astray"])?.success().map(drop)
        })?;

        let in_use = lab.shoal("m1", ["network", "rm", "my-network"])?;
        ensure!(!in_use.status.success() && in_use.stderr.contains("my-container"), "{in_use}");
        lab.shoal("m1", ["network", "disconnect", "my-network", "my-container"])?.success()?;
        let not_on = lab.shoal("m1", ["network", "disconnect", "my-network", "my-container"])?;
        ensure!(!not_on.status.success() && not_on.stderr.contains("not connected"), "{not_on}");
        let pruned = lab.shoal("m1", ["network", "prune", "-f"])?.success()?;
        ensure!(pruned.contains("my-network"), "{pruned}");
        let gone = lab.shoal("m1", ["network", "inspect", "my-network"])?;
        ensure!(!gone.status.success() && gone.stderr.contains("my-network"), "{gone}");
        ensure!(lab.shoal("m1", ["network", "inspect", "bridge"])?.status.success(), "what every host has stays");
        // What is there is shown, also where something else is not.
        for line in [&["network", "inspect"][..], &["inspect"]] {
            let some = lab.shoal("m1", [line, &["bridge", "my-network", "none"]].concat())?;
            ensure!(some.status.code() == Some(3) && some.stderr.contains("my-network"), "{some}");
            let shown: Vec<Value> = serde_json::from_str(&some.stdout)?;
            ensure!(shown.iter().map(|n| &n["Name"]).eq(["bridge", "none"]), "{some}");
        }
        Ok(())
    })
}

#[test]
fn each_mistake_has_its_sentence_and_changes_nothing() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "--subnet", "192.0.2.0/24", "net"])?.success()?;
        lab.shoal("w1", ["network", "create", "theirs"])?.success()?;
        run(lab, "m1", "a", &["--network", "net"], &["idle"])?;
        lab.shoal("m1", ["create", "--name", "loner", "--network", "none", "page", "idle"])?.success()?;
        let everything = || -> anyhow::Result<String> {
            let networks = lab.shoal("m1", ["network", "ls", "--format", "json"])?.success()?;
            Ok(networks
                + &lab.shoal("m1", ["ps", "-a", "--all-nodes", "--format", "{{.Names}} {{.Ports}}"])?.success()?)
        };
        let before = everything()?;
        for (line, words) in [
            ("run -d --name a page idle", "taken"),
            ("run -d --name A_ page idle", "DNS label"),
            ("run -d --network nowhere page idle", "nowhere"),
            ("run -d --network theirs page idle", "theirs"),
            ("run -d --network net --ip 192.0.2.2 page idle", "in use"),
            ("run -d --network net --ip 192.0.3.2 page idle", "192.0.3.2"),
            ("run -d --network net --ip6 fd00::7 page idle", "fd00::7"),
            ("run -d --network net --mac-address 01:00:00:00:00:01 page idle", "unicast"),
            ("run -d --network name=net,mac-address=00:00:00:00:00:00 page idle", "unicast"),
            ("run -d -p 80:0 page idle", "0"),
            ("run -d -p 8000-8002:80-81 page idle", "8000-8002"),
            ("run -d --restart sometimes page idle", "on-failure"),
            ("run -d --network host --ip 192.0.2.9 page idle", "--ip"),
            ("run -d --network container:a page idle", "put both on one network"),
            ("run -d --memory 1k page idle", "at least 6m"),
            ("run -d --health-interval -1s page idle", "such as 500ms"),
            ("run -d --dns nowhere page idle", "an IP address such as"),
            ("run -d --mount type=bind,source=here,target=/x page idle", "mount source: \"here\""),
            ("run -d -v /no/such/path:/x --rm page idle", "/no/such/path"),
            ("run -d page", "no command specified"),
            ("run -d -v relative/path:/data page idle", "SOURCE is an absolute path"),
            ("rm -f nobody", "nobody"),
            ("attach loner", "container loner does not run"),
            ("exec loner true", "container loner"),
            ("network connect net loner", "container loner has its loopback alone (--network none)"),
            ("network rm none", "network none is on every host and cannot be removed"),
            ("network connect host a", "network host cannot be joined once a container is made"),
            ("network disconnect none a", "network none cannot be left"),
            ("network create --subnet 192.0.4.0/24 --aux-address x=192.0.4.1 x", "the gateway's"),
            ("network create --subnet 192.0.4.1/24 x", "error: subnet: "),
            ("service create --name s --network host page idle", "--network host"),
            ("run -d --link nobody:x page idle", "nobody"),
            ("start nobody", "nobody"),
            ("stop nobody", "nobody"),
            ("rm a", "-f"),
            ("network connect nowhere a", "nowhere"),
            ("network connect net a", "already"),
            ("network connect net nobody", "nobody"),
            ("network create --subnet 192.0.2.128/25 over", "192.0.2.0/24"),
            ("network create -d nothing x", "overlay"),
            ("network create -d macvlan x", "parent"),
            ("network create -o no.such.option=1 x", "no.such.option"),
            ("network create host", "host"),
            ("network create -o com.docker.network.bridge.name=shb11 x", "Shoal's own"),
            ("network create -d macvlan -o parent=eth0.5000 x", "1 to 4094"),
            ("network ls --filter type=zz", "type=builtin|custom"),
            ("ps --filter status=foo", "restarting"),
            ("exec nobody true", "nobody"),
            ("service create --name s --network net page idle", "one host"),
        ] {
            let refused = lab.shoal("m1", line.split(' '))?;
            ensure!(!refused.status.success(), "{refused}");
            ensure!(refused.stderr.contains(words), "{words:?} is not in {refused}");
        }
        ensure!(everything()? == before, "something changed:\n{before}\n{}", everything()?);
        Ok(())
    })
}
