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
