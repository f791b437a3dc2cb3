//! "Container discovery": names, host names, and whose DNS server is asked.

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn each_container_is_known_by_name_and_by_hostname_where_it_is_on_a_network() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        run(lab, "m1", "ada", &["--hostname", "alpha"], &["serve"])?;
        run(lab, "m1", "b", &["--add-host", "pinned:192.0.2.9"], &["idle"])?;
        lab.shoal("m1", ["network", "create", "elsewhere"])?.success()?;
        run(lab, "m1", "c", &["--network", "elsewhere"], &["idle"])?;
        let address = v4(lab, "m1", "ada", "bridge")?;
        for name in ["ada", "alpha"] {
            ensure!(dig(lab, "m1", "b", &[name])? == address, "{name}");
            unknown(lab, "m1", "c", name, &address)?;
        }
        ensure!(
            dig(lab, "m1", "b", &["-x", &address])? == "ada.bridge.",
            "{}",
            dig(lab, "m1", "b", &["-x", &address])?
        );
        // What the container reads is as Docker writes it.
        let read = |name: &str, file: &str| lab.shoal("m1", ["exec", name, "cat", file])?.success();
        ensure!(read("ada", "/etc/hostname")?.trim() == "alpha", "{}", read("ada", "/etc/hostname")?);
        ensure!(read("ada", "/etc/hosts")?.contains(&format!("{address}\talpha")), "{}", read("ada", "/etc/hosts")?);
        ensure!(read("b", "/etc/hosts")?.contains("192.0.2.9\tpinned"), "{}", read("b", "/etc/hosts")?);
        ensure!(
            read("b", "/etc/resolv.conf")?.starts_with("nameserver 127.0.0.11"),
            "{}",
            read("b", "/etc/resolv.conf")?
        );
        // From inside, by the container's own programs.
        lab.shoal("m1", ["exec", "b", "wget", "-q", "-O", "/dev/null", &format!("http://{address}/")])?;
        let pinged = lab.shoal("m1", ["exec", "b", "ping", "-c", "1", "-W", "2", "ada"])?.success()?;
        ensure!(pinged.contains(&address), "{pinged}");
        lab.shoal("m1", ["rename", "ada", "zoe"])?.success()?;
        eventually("its new name", SETTLES_WITHIN, || {
            ensure!(dig(lab, "m1", "b", &["zoe"])? == address, "not yet");
            unknown(lab, "m1", "b", "ada", &address)
        })
    })
}

/// A DNS server for one question at a time: every name has the address 192.0.2.80, until it is asked for `quit…`.
const SERVER: &str = r#"
    my $s = IO::Socket::INET->new(LocalAddr => "8.8.8.8", LocalPort => 53, Proto => "udp") or die "no socket";
    while ($s->recv(my $q, 512)) {
        my $end = 12;
        $end += 1 + ord substr($q, $end, 1) while ord substr($q, $end, 1);
        my $question = substr($q, 12, $end + 5 - 12);
        $s->send(substr($q, 0, 2) . "\x81\x80\0\1\0\1\0\0\0\0" . $question . "\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\x50");
        exit 0 if $question =~ /quit/;
    }
"#;

/// The document's example: `docker run --name test-container -it --hostname=test-con.example.com --dns=8.8.8.8 …`.
#[test]
fn a_container_asks_the_dns_server_that_it_was_given() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        // The server at 8.8.8.8 is a container that has that address on a network of the host.
        lab.shoal("m1", ["network", "create", "--subnet", "8.8.8.0/24", "--gateway", "8.8.8.1", "world"])?.success()?;
        run(lab, "m1", "server", &["--network", "world", "--ip", "8.8.8.8"], &["idle"])?;
        let line = [
            "create",
            "--name",
            "test-container",
            "-i",
            "--hostname=test-con.example.com",
            "--dns=8.8.8.8",
            "--network",
            "world",
            "page",
            "sh",
        ];
        lab.shoal("m1", line)?.success()?;
        lab.shoal("m1", ["start", "test-container"])?.success()?;
        let name = lab.shoal("m1", ["exec", "test-container", "hostname"])?.success()?;
        ensure!(name.trim() == "test-con.example.com", "{name}");
        let own = v4(lab, "m1", "test-container", "world")?;
        ensure!(dig(lab, "m1", "test-container", &["test-con.example.com"])? == own, "its own name needs no server");
        // The rest of the world is known to that server alone, which is on the container's network and not on the host's.
        let server = id(lab, "m1", "server")?;
        std::thread::scope(|s| {
            let serving =
                s.spawn(|| lab.inside("m1", &server, ["timeout", "30", "perl", "-MIO::Socket::INET", "-e", SERVER]));
            let told = eventually("the server answers", SETTLES_WITHIN, || {
                let told = dig(lab, "m1", "test-container", &["www.example.org"])?;
                ensure!(told == "192.0.2.80", "{told}");
                Ok(())
            });
            // The last question that it answers.
            let _ = dig(lab, "m1", "test-container", &["quit.example.org"]);
            serving.join().expect("it does not panic")?.success()?;
            told
        })?;
        Ok(())
    })
}
