//! How long a container takes: through the runtime, one after another and eight at a time, next to libcontainer
//! alone with the same specification and no overlay, log or supervisor, which is the floor.
//!
//! `cargo bench -p shoal-runtime` as root, after `cargo build --release -p shoal-runtime --example supervisor`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a bench a panic is the report")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::Host;
use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use shoal_runtime::Runtime;
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const ROUNDS: usize = 60;
const PARALLEL: usize = 8;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, verb, dir] = args.as_slice()
        && verb == "floor"
    {
        return floor(Path::new(dir));
    }
    let host = Host::new();
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let runtime = tokio.block_on(host.open_with_busybox());
    println!("{:<34} {:>9} {:>9} {:>9}   ms a container", "", "median", "p95", "mean");

    tokio.block_on(async {
        once(&runtime, &host, "warm").await;
        let (mut started, mut whole) = (Vec::new(), Vec::new());
        for n in 0..ROUNDS {
            let (start, all) = once(&runtime, &host, &format!("s{n}")).await;
            started.push(start);
            whole.push(all);
        }
        row("runtime: start -> running", &mut started);
        row("runtime: start -> removed", &mut whole);

        let begin = Instant::now();
        let tasks: Vec<_> = (0..PARALLEL)
            .map(|k| {
                let (runtime, name) = (runtime.clone(), host.name.clone());
                tokio::spawn(async move {
                    for n in 0..ROUNDS / PARALLEL {
                        let id = format!("p{k}-{n}");
                        runtime.start(common::container(&name, &id, "true")).await.unwrap();
                        runtime.wait(&id).await.unwrap();
                        runtime.remove(&id).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let each = begin.elapsed() / u32::try_from(ROUNDS / PARALLEL * PARALLEL).unwrap();
        println!("{:<34} {:>29.2}", "runtime: 8 at a time, whole", each.as_secs_f64() * 1e3);

        // The specification of one of ours, on a plain directory, is that of the floor.
        runtime.start(host.container("spec", "true")).await.unwrap();
        runtime.wait("spec").await.unwrap();
    });
    let bundle = host.dir.path().join("floor");
    let ours = host.config().data_dir.join("containers/spec");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    for name in ["hosts", "hostname", "resolv.conf"] {
        std::fs::copy(ours.join(name), bundle.join(name)).unwrap();
    }
    let spec = std::fs::read_to_string(ours.join("config.json")).unwrap();
    let spec = spec
        .replace(ours.to_str().unwrap(), bundle.to_str().unwrap())
        .replace(&format!("{}/spec", host.name), &format!("{}/floor", host.name));
    std::fs::write(bundle.join("config.json"), spec).unwrap();
    tar::Archive::new(std::io::Cursor::new(common::busybox())).unpack(bundle.join("rootfs")).unwrap();
    let status = Command::new(std::env::current_exe().unwrap()).arg("floor").arg(&bundle).status().unwrap();
    assert!(status.success());
}

async fn once(runtime: &Runtime, host: &Host, id: &str) -> (Duration, Duration) {
    let begin = Instant::now();
    runtime.start(host.container(id, "true")).await.unwrap();
    let started = begin.elapsed();
    runtime.wait(id).await.unwrap();
    runtime.remove(id).await.unwrap();
    (started, begin.elapsed())
}

/// In a process with one thread, since libcontainer forks.
fn floor(bundle: &Path) {
    let (mut started, mut whole) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        let begin = Instant::now();
        let mut container = ContainerBuilder::new(format!("floor{n}"), SyscallType::default())
            .with_root_path(bundle.join("oci"))
            .unwrap()
            .as_init(bundle)
            .with_systemd(false)
            .with_detach(true)
            .build()
            .unwrap();
        let pid = container.pid().unwrap().as_raw();
        container.start().unwrap();
        started.push(begin.elapsed());
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
        container.delete(true).unwrap();
        whole.push(begin.elapsed());
    }
    row("floor: libcontainer build + start", &mut started);
    row("floor: libcontainer whole", &mut whole);
}

fn row(name: &str, times: &mut [Duration]) {
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap();
    println!(
        "{name:<34} {:>9.2} {:>9.2} {:>9.2}",
        ms(times[times.len() / 2]),
        ms(times[times.len() * 95 / 100]),
        ms(mean)
    );
}
