//! Bare words as small C libraries ask for them: busybox takes what stands behind the first dot of its host name as its
//! search domain, so a task whose host name is `web.1` would ask for `db.1`.

use anyhow::ensure;
use shoal_tests::{Shape, eventually, story};
use std::time::Duration;

const SETTLES_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn busybox_finds_a_neighbour_by_its_bare_name() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let said = |args: &[&str]| lab.shoal("m1", args)?.success();
        said(&["network", "create", "-d", "overlay", "--attachable", "blue"])?;
        said(&["service", "create", "--name", "db", "--network", "blue", "page", "idle"])?;
        let vip = "{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}";
        let vip = said(&["service", "inspect", "--format", vip, "db"])?;
        let vip = vip.trim().split('/').next().unwrap_or_default();
        ensure!(!vip.is_empty(), "db has no address");

        let asks = ["sh", "-c", "nslookup db; exec idle"];
        said(&[&["service", "create", "--name", "web", "--network", "blue", "page"], &asks[..]].concat())?;
        eventually("a task has its answer", SETTLES_WITHIN, || {
            let heard = said(&["service", "logs", "web"])?;
            ensure!(heard.contains(vip), "{heard}");
            Ok(())
        })?;
        let heard = said(&["run", "--rm", "--network", "blue", "page", "nslookup", "db"])?;
        ensure!(heard.contains(vip), "{heard}");
        Ok(())
    })
}
