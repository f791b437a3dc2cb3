//! Processes that are added to a container, and those who are attached to one.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use bytes::Bytes;
use common::{Host, output, within};
use futures::StreamExt;
use shoal_runtime::{
    ContainerConfig, ContainerState, Error, ExecConfig, Fault, LogStream, Options, Runtime, Session, Size,
};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

fn command(script: &str) -> ExecConfig {
    ExecConfig { args: ["sh", "-c", script].map(String::from).to_vec(), ..ExecConfig::default() }
}

fn interactive(mut config: ContainerConfig, tty: bool) -> ContainerConfig {
    config.options = Options { tty, stdin: true, ..Options::default() };
    config
}

/// All that comes out, in one text for each stream, and the exit code.
async fn whole(session: Session) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let Session { mut output, exit, stdin: _stdin, terminal: _terminal } = session;
    within(async {
        while let Some((stream, bytes)) = output.next().await {
            match stream {
                LogStream::Stdout => out.extend_from_slice(&bytes),
                LogStream::Stderr => err.extend_from_slice(&bytes),
            }
        }
    })
    .await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err), within(exit).await.unwrap())
}

async fn said(runtime: &Runtime, config: ExecConfig) -> (String, String, i32) {
    whole(within(runtime.exec("t1", config)).await.unwrap()).await
}

/// Reads on until `wanted` has come.
async fn until(session: &mut Session, wanted: &str) -> String {
    let mut text = String::new();
    within(async {
        while !text.contains(wanted) {
            let (_, bytes): (_, Bytes) = session.output.next().await.unwrap_or_else(|| panic!("{text:?} and no more"));
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    })
    .await;
    text
}

#[tokio::test]
async fn a_process_is_added_to_a_container_and_its_words_and_its_code_come_back() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let mut config = host.container("t1", "echo mine > /file; while true; do sleep 0.05; done");
    config.spec.env.insert("A".into(), "container".into());
    runtime.start(config).await.unwrap();
    within(async { while said(&runtime, command("test -e /file")).await.2 != 0 {} }).await;

    let (out, err, code) = said(&runtime, command("cat /file; hostname; echo $A; echo oops >&2; exit 7")).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("mine\nhost-of-t1\ncontainer\n", "oops\n", 7));

    // It is in all the namespaces and cgroups of the container, and as powerless as its first process.
    let look = "for n in cgroup ipc mnt net pid uts; do ls -l /proc/PID/ns/$n; done; cat /proc/PID/cgroup; \
                grep -E 'Cap|Seccomp:|SigBlk' /proc/PID/status";
    let of = |pid: &str| {
        let lines = look.replace("PID", pid);
        command(&format!("{{ {lines}; }} | while read -r l; do echo \"${{l##* }}\"; done"))
    };
    let first = said(&runtime, of("1")).await.0;
    assert!(first.contains("mnt:[") && first.lines().count() > 10, "{first}");
    assert_eq!(said(&runtime, of("self")).await.0, first);
    assert!(said(&runtime, command("unshare -n true")).await.2 != 0);
    let status = said(&runtime, command("grep -E 'Seccomp:|SigIgn' /proc/self/status")).await.0;
    let ignored = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigIgn:")?.trim(), 16).ok()).unwrap();
    assert!(status.contains("Seccomp:\t2") && ignored & (1 << 12) == 0, "SIGPIPE is ignored: {status}");

    let own = ExecConfig {
        env: [("A".to_owned(), "own".to_owned())].into(),
        workdir: Some("/tmp".into()),
        user: Some("web".into()),
        ..command("id -u; id -G; pwd; echo $A; grep CapEff /proc/self/status; echo x > /dev/stdout")
    };
    assert_eq!(said(&runtime, own).await.0, "33\n34 70\n/tmp\nown\nCapEff:\t0000000000000000\nx\n");
    let power =
        ExecConfig { privileged: true, ..command("mount -t tmpfs x /mnt || mount -t tmpfs x /tmp && echo yes") };
    assert!(said(&runtime, power).await.0.ends_with("yes\n"));

    let missing = ExecConfig { args: vec!["/no/such".into()], ..ExecConfig::default() };
    let told = runtime.exec("t1", missing).await.unwrap_err().to_string();
    assert!(told.contains("/no/such") && told.contains("t1"), "{told}");
    for (program, fault) in [
        ("no-such", Fault::NotFound),
        ("/bin/no-such", Fault::NotFound),
        ("/bin", Fault::NotExecutable),
        ("/etc/passwd", Fault::NotExecutable),
    ] {
        let config = || ExecConfig { args: vec![program.into()], ..ExecConfig::default() };
        assert_eq!(runtime.exec("t1", config()).await.unwrap_err().fault(), fault, "{program}");
        let tty = ExecConfig { tty: true, ..config() };
        assert_eq!(runtime.exec("t1", tty).await.unwrap_err().fault(), fault, "{program} at a terminal");
        let mut first = host.container("t2", "");
        first.spec.args = vec![program.into()];
        let told = runtime.start(first).await.unwrap_err();
        assert_eq!(told.fault(), fault, "{program}: {told}");
    }
    let elsewhere = ExecConfig { workdir: Some("/no/such".into()), ..command("true") };
    assert_eq!(runtime.exec("t1", elsewhere).await.unwrap_err().fault(), Fault::Other);
    assert!(matches!(runtime.exec("none", command("true")).await, Err(Error::NoSuchContainer(_))));
    runtime.exec_detached("t1", command("sleep 0.2; echo done > /done; exit 1")).await.unwrap();
    within(async { while said(&runtime, command("test -e /done")).await.2 != 0 {} }).await;

    within(runtime.stop("t1", Duration::ZERO)).await.unwrap();
    assert!(matches!(runtime.exec("t1", command("true")).await, Err(Error::NotRunning(_))));
    let left: Vec<_> = std::fs::read_dir(host.config().data_dir.join("containers/t1/exec")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    within(runtime.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn an_added_process_reads_what_it_is_given_and_a_slow_reader_loses_nothing() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "sleep 1000")).await.unwrap();
    let mut session = runtime.exec("t1", ExecConfig { stdin: true, ..command("cat; echo end") }).await.unwrap();
    let text = "0123456789abcde\n".repeat(64 << 10);
    let (given, mut stdin) = (text.clone(), session.stdin);
    tokio::spawn(async move {
        stdin.write_all(given.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut out = Vec::new();
    within(async {
        while let Some((_, bytes)) = session.output.next().await {
            out.extend_from_slice(&bytes);
        }
    })
    .await;
    assert_eq!(within(session.exit).await.unwrap(), 0);
    assert_eq!(out.len(), text.len() + 4);
    assert!(out.ends_with(b"end\n"));
    // Without any input it ends at once.
    assert_eq!(said(&runtime, command("cat; echo end")).await.0, "end\n");
}

#[tokio::test]
async fn an_added_process_may_have_a_terminal_of_a_size() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "sleep 1000")).await.unwrap();
    assert_ne!(said(&runtime, command("test -t 0 || test -t 1")).await.2, 0);
    let tty = |script: &str| ExecConfig { tty: true, stdin: true, ..command(script) };
    let (out, _, code) = said(&runtime, tty("test -t 0 && test -t 1 && test -t 2 && tty && echo $TERM")).await;
    assert_eq!((out.as_str(), code), ("/dev/pts/0\r\nxterm\r\n", 0));
    let own = ExecConfig { user: Some("web".into()), ..tty("echo x > $(tty) && echo y > /dev/tty") };
    assert_eq!(said(&runtime, own).await.0, "x\r\ny\r\n");

    let sized = ExecConfig { size: Some(Size { rows: 12, columns: 34 }), ..tty("stty size") };
    assert_eq!(said(&runtime, sized).await.0, "12 34\r\n");
    let mut session = runtime.exec("t1", tty("read line; stty size; echo again; read line")).await.unwrap();
    session.terminal.resize(33, 101).await;
    session.stdin.write_all(b"go\n").await.unwrap();
    assert!(until(&mut session, "again").await.contains("33 101"));
    session.stdin.write_all(b"\x03").await.unwrap();
    assert_eq!(whole(session).await.2, 130);

    // Whoever leaves it says so; else it hangs up.
    let session =
        runtime.exec("t1", tty("trap 'echo hup > /hup' HUP; sleep 0.3; echo whole; echo > /whole")).await.unwrap();
    session.terminal.leave().await;
    drop(session);
    within(async { while said(&runtime, command("test -e /whole")).await.2 != 0 {} }).await;
    assert_ne!(said(&runtime, command("test -e /hup")).await.2, 0);
    let script = "trap 'echo hup > /hup; exit' HUP; echo ready; while true; do sleep 0.05; done";
    let mut session = runtime.exec("t1", tty(script)).await.unwrap();
    until(&mut session, "ready").await;
    drop(session);
    within(async { while said(&runtime, command("test -e /hup")).await.2 != 0 {} }).await;
}

#[tokio::test]
async fn who_is_attached_speaks_to_the_first_process_also_after_a_daemon_died() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let config = interactive(host.container("t1", "echo early; cat; echo late >&2; exit 3"), false);
    let (status, mut first) = runtime.start_attached(config).await.unwrap();
    assert!(matches!(status.state, ContainerState::Running { .. }));
    until(&mut first, "early\n").await;
    first.stdin.write_all(b"one\n").await.unwrap();
    until(&mut first, "one\n").await;
    drop(first);
    drop(runtime);

    let runtime = host.open().await;
    let mut second = runtime.attach("t1").await.unwrap();
    let mut third = runtime.attach("t1").await.unwrap();
    second.stdin.write_all(b"two\n").await.unwrap();
    until(&mut third, "two\n").await;
    let mut text = until(&mut second, "two\n").await;
    assert!(!text.contains("one"), "what was before is in the log: {text}");
    second.stdin.shutdown().await.unwrap();
    let (out, err, code) = whole(second).await;
    text.push_str(&out);
    assert_eq!((err.as_str(), code), ("late\n", 3));
    assert_eq!(whole(third).await.2, 3);
    assert_eq!(within(runtime.wait("t1")).await.unwrap().code, 3);
    assert_eq!(output(&runtime, "t1").await, ["early", "one", "two", "late"]);
    assert!(matches!(runtime.attach("t1").await, Err(Error::NotRunning(_))));
    assert_eq!(std::fs::read_dir(host.config().run_dir.join("attach")).unwrap().count(), 0);

    // What ends at once is heard whole all the same; and again, as it is started again.
    for n in 0..3 {
        let config = host.container("t1", "seq 1 3000; exit 9");
        let (_, session) = runtime.start_attached(config).await.unwrap();
        let (out, _, code) = whole(session).await;
        assert_eq!((out.lines().count(), code), (3000, 9), "{n}");
    }
}

#[tokio::test]
async fn a_container_may_have_a_terminal() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let script =
        "test -t 0 && test -t 1 && test -c /dev/console && echo ready; read line; stty size; echo oops >&2; cat";
    let (_, mut session) = runtime.start_attached(interactive(host.container("t1", script), true)).await.unwrap();
    until(&mut session, "ready").await;
    session.terminal.resize(44, 55).await;
    session.stdin.write_all(b"go\n").await.unwrap();
    until(&mut session, "oops").await;
    session.stdin.write_all(b"typed\n\x04").await.unwrap();
    assert_eq!(whole(session).await.2, 0);
    let lines = output(&runtime, "t1").await;
    for line in ["ready", "44 55", "oops", "typed"] {
        assert!(lines.iter().any(|l| l.trim_end() == line), "{line}: {lines:?}");
    }
    let logged = runtime.logs("t1", Default::default()).unwrap();
    assert!(logged.all(|l| async { l.unwrap().stream == LogStream::Stdout }).await);
    within(runtime.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_listen_cannot_hold_up_a_container() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let script = "read line; dd if=/dev/zero bs=64k count=160 2>/dev/null; echo done > /done; sleep 1000";
    runtime.start(interactive(host.container("t1", script), false)).await.unwrap();
    // Neither is read from.
    let deaf = runtime.attach("t1").await.unwrap();
    let mut listening = runtime.attach("t1").await.unwrap();
    listening.stdin.write_all(b"go\n").await.unwrap();
    let begin = Instant::now();
    let mut bytes = 0;
    within(async {
        while bytes < 160 * (64 << 10) {
            bytes += listening.output.next().await.unwrap().1.len();
        }
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    within(async { while said(&runtime, command("test -e /done")).await.2 != 0 {} }).await;
    drop(deaf);
    within(runtime.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn what_a_container_uses_is_counted() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let mut config =
        host.container("t1", "sleep 1000 & dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; cat; exit 0");
    config.options.stdin = true;
    config.resources.limits.memory_bytes = 128 << 20;
    let (status, mut session) = runtime.start_attached(config).await.unwrap();
    session.stdin.write_all(b"ready\n").await.unwrap();
    until(&mut session, "ready").await;
    let stats = runtime.stats("t1").await.unwrap();
    assert!(stats.cpu_nanos > 0 && stats.memory_bytes > 20 << 20, "{stats:?}");
    assert_eq!((stats.memory_limit_bytes, stats.pids), (Some(128 << 20), 3), "{stats:?}");
    let ContainerState::Running { pid, .. } = status.state else { panic!("{status:?}") };
    let pids = runtime.processes("t1").await.unwrap();
    assert!(pids.len() == 3 && pids.contains(&pid), "{pids:?}");
    session.stdin.shutdown().await.unwrap();
    assert_eq!(whole(session).await.2, 0);
    assert!(matches!(runtime.stats("t1").await, Err(Error::NotRunning(_))));

    runtime.start(host.container("t2", "sleep 1000")).await.unwrap();
    assert_eq!(runtime.stats("t2").await.unwrap().memory_limit_bytes, None);
    within(runtime.remove("t2")).await.unwrap();
}

/// As the lab has it: daemons in PID, mount, network and UTS namespaces of their own, with the host's cgroups.
#[test]
fn processes_are_added_also_below_a_daemon_in_child_namespaces() {
    let inner = [
        "a_process_is_added_to_a_container_and_its_words_and_its_code_come_back",
        "an_added_process_may_have_a_terminal_of_a_size",
        "a_container_may_have_a_terminal",
        "what_a_container_uses_is_counted",
    ];
    let output = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--mount-proc", "--net", "--uts"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1"])
        .args(inner)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("4 passed"), "{said}");
}
