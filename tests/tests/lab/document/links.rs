//! "Directly linking containers".

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn a_legacy_link_gives_a_name_and_variables_and_is_called_deprecated() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        run(lab, "m1", "mydb", &["-e", "PGDATA=/data", "-p", "5432:80"], &["serve"])?;
        let line = ["run", "-d", "--name", "myweb", "--link", "mydb:db", "page", "idle"];
        let started = lab.shoal("m1", line)?;
        ensure!(started.stderr.contains("deprecated"), "{started}");
        started.success()?;
        let address = v4(lab, "m1", "mydb", "bridge")?;
        let hosts = lab.shoal("m1", ["exec", "myweb", "cat", "/etc/hosts"])?.success()?;
        ensure!(hosts.lines().any(|l| l.starts_with(&format!("{address}\tdb"))), "{hosts}");
        let env = lab.shoal("m1", ["exec", "myweb", "env"])?.success()?;
        for line in [
            "DB_NAME=/myweb/db".to_owned(),
            format!("DB_PORT=tcp://{address}:80"),
            format!("DB_PORT_80_TCP_ADDR={address}"),
            "DB_ENV_PGDATA=/data".to_owned(),
        ] {
            ensure!(env.lines().any(|l| l == line), "{line} is not in {env}");
        }
        // The name leads where the other one is; the variables are as they were at the start.
        lab.shoal("m1", ["network", "disconnect", "bridge", "mydb"])?.success()?;
        lab.shoal("m1", ["network", "connect", "bridge", "mydb"])?.success()?;
        let now = v4(lab, "m1", "mydb", "bridge")?;
        ensure!(now != address, "an address rests a while");
        eventually("the other address", SETTLES_WITHIN, || {
            let hosts = lab.shoal("m1", ["exec", "myweb", "cat", "/etc/hosts"])?.success()?;
            let led: Vec<&str> = hosts.lines().filter(|l| l.contains("\tdb")).collect();
            ensure!(led.len() == 1 && led[0].starts_with(&format!("{now}\tdb")), "{hosts}");
            Ok(())
        })?;
        let missing = lab.shoal("m1", ["run", "-d", "--link", "nobody", "page", "idle"])?;
        ensure!(!missing.status.success() && missing.stderr.contains("nobody"), "{missing}");
        Ok(())
    })
}

#[test]
fn a_linked_containers_image_is_told_of_and_what_cannot_be_linked_is_refused() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        let changes = ["EXPOSE 80", "ENV FOO=bar", "ENV BOTH=image"];
        lab.import_with("mydb-image", &changes)?;
        lab.import("page")?;
        let line = ["run", "-d", "--name", "mydb", "--expose", "79/udp", "-e", "BOTH=own", "mydb-image", "idle"];
        lab.shoal("m1", line)?.success()?;
        let line = ["run", "--name", "myweb", "--link", "mydb:mydb", "-d", "-P", "page", "idle"];
        lab.shoal("m1", line)?.success()?;
        let address = v4(lab, "m1", "mydb", "bridge")?;
        let env = lab.shoal("m1", ["exec", "myweb", "env"])?.success()?;
        for line in [
            "MYDB_NAME=/myweb/mydb".to_owned(),
            format!("MYDB_PORT=udp://{address}:79"),
            format!("MYDB_PORT_80_TCP=tcp://{address}:80"),
            format!("MYDB_PORT_80_TCP_ADDR={address}"),
            "MYDB_PORT_80_TCP_PORT=80".to_owned(),
            "MYDB_PORT_80_TCP_PROTO=tcp".to_owned(),
            "MYDB_ENV_FOO=bar".to_owned(),
            "MYDB_ENV_BOTH=own".to_owned(),
        ] {
            ensure!(env.lines().any(|l| l == line), "{line} is not in {env}");
        }
        for foreign in ["MYDB_ENV_PATH=", "MYDB_ENV_HOME=", "MYDB_ENV_HOSTNAME="] {
            ensure!(!env.contains(foreign), "{foreign} is in {env}");
        }
        for (args, why) in [
            (["--network", "host", "--link", "mydb"], "link: \"mydb\" is not accepted: no links on the network host"),
            (["--network", "none", "--link", "mydb"], "link: \"mydb\" is not accepted: no links on the network none"),
            (["--link", "mydb:a", "--link", "myweb:a"], "each alias once: a leads to mydb already"),
            (["--link", "mydb:", "--name", "x"], "link: \"\" is not accepted"),
        ] {
            let refused = lab.shoal("m1", [&["create"][..], &args, &["page"]].concat())?;
            ensure!(!refused.status.success() && refused.stderr.contains(why), "{refused}");
        }
        Ok(())
    })
}

#[test]
fn a_link_to_a_network_is_an_alias_for_one_container_alone() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "net1"])?.success()?;
        run(lab, "m1", "other", &["--network", "net1"], &["idle"])?;
        run(lab, "m1", "web", &[], &["idle"])?;
        // What it leads to may come later.
        lab.shoal("m1", ["network", "connect", "--link", "mydb:db", "net1", "web"])?.success()?;
        run(lab, "m1", "mydb", &["--network", "net1"], &["serve"])?;
        let address = v4(lab, "m1", "mydb", "net1")?;
        for name in ["db", "db.net1", "mydb"] {
            eventually(&format!("{name} is mydb"), SETTLES_WITHIN, || {
                let told = dig(lab, "m1", "web", &[name])?;
                ensure!(told == address, "{told:?}");
                Ok(())
            })?;
        }
        ensure!(get(lab, "m1", "web", &format!("http://{address}/"))? == "mydb", "it answers");
        unknown(lab, "m1", "other", "db", &address)?;
        let links = &inspect(lab, "m1", "web")?["NetworkSettings"]["Networks"]["net1"]["Links"];
        ensure!(*links == serde_json::json!(["mydb:db"]), "{links}");
        lab.shoal("m1", ["network", "disconnect", "net1", "web"])?.success()?;
        unknown(lab, "m1", "web", "db", &address)?;
        let line = ["network", "connect", "--link", "mydb:a", "--link", "other:a", "net1", "web"];
        let twice = lab.shoal("m1", line)?;
        ensure!(!twice.status.success() && twice.stderr.contains("each alias once"), "{twice}");
        Ok(())
    })
}
