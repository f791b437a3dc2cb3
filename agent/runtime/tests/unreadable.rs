//! What cannot be read is set aside and reported, never deleted, and keeps nothing else from working.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, output, within};
use shoal_runtime::{ContainerState, Error, Runtime};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Everything below `dir`, with what is in files.
fn tree(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            out.extend(tree(&path));
        } else if entry.file_type().unwrap().is_file() {
            out.push((path.strip_prefix(dir).unwrap().to_owned(), fs::read_to_string(&path).unwrap_or_default()));
        }
    }
    out.sort();
    out
}

/// A container that wrote something and ended.
async fn ended(host: &Host, runtime: &Runtime, id: &str) {
    let mut config = host.container(id, "echo precious > /data; echo said");
    config.options.durable = true;
    runtime.start(config).await.unwrap();
    within(runtime.wait(id)).await.unwrap();
}

#[tokio::test]
async fn a_container_that_cannot_be_read_is_kept_and_not_started_without_its_files() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let containers = host.config().data_dir.join("containers");
    for id in ["empty", "half", "other", "gone", "whole"] {
        ended(&host, &runtime, id).await;
    }
    drop(runtime);
    let record = |id: &str| containers.join(id).join("container.json");
    fs::write(record("empty"), "").unwrap();
    let text = fs::read_to_string(record("half")).unwrap();
    fs::write(record("half"), &text[..text.len() / 2]).unwrap();
    fs::copy(record("whole"), record("other")).unwrap();
    fs::remove_file(record("gone")).unwrap();
    // Of a start that was interrupted before there was anything.
    fs::create_dir(containers.join("begun")).unwrap();
    fs::write(containers.join("begun/container.json.new"), "{").unwrap();

    let runtime = host.open().await;
    assert_eq!(runtime.list().iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["whole"]);
    for id in ["empty", "half", "other", "gone"] {
        let files = runtime.set_aside(id).unwrap();
        assert!(files.path.starts_with(host.config().data_dir.join("set-aside/containers")), "{files:?}");
        assert!(files.why.contains("container.json"), "{files:?}");
        assert_eq!(fs::read_to_string(files.path.join("upper/data")).unwrap(), "precious\n", "{id}");
        let refused = runtime.start(host.container(id, "true")).await;
        assert!(matches!(&refused, Err(Error::SetAside { container, .. }) if container == id), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains(files.path.to_str().unwrap()));
        // Nothing to do: there is none.
        runtime.remove(id).await.unwrap();
        assert!(files.path.exists());
    }
    assert_eq!(runtime.set_aside("whole"), None);
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 1);

    // The next daemon knows as well; and one that was put back is a container again.
    drop(runtime);
    let aside = host.open().await.set_aside("half").unwrap().path;
    fs::write(aside.join("container.json"), text).unwrap();
    fs::rename(aside, containers.join("half")).unwrap();
    let runtime = host.open().await;
    assert!(runtime.set_aside("half").is_none() && runtime.set_aside("empty").is_some());
    runtime.start(host.container("half", "cat /data")).await.unwrap();
    within(runtime.wait("half")).await.unwrap();
    assert_eq!(output(&runtime, "half").await, ["said", "precious"]);
}

#[tokio::test]
async fn a_container_that_runs_and_cannot_be_read_is_ended_and_kept() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "echo precious > /data; echo done; sleep 1000")).await.unwrap();
    within(async {
        while output(&runtime, "t1").await != ["done"] {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(runtime);
    fs::write(host.config().data_dir.join("containers/t1/container.json"), "{").unwrap();
    let runtime = host.open().await;
    let files = runtime.set_aside("t1").unwrap();
    assert!(host.cgroups().iter().all(|c| !c.join("t1").exists()), "it still runs");
    assert_eq!(fs::read_to_string(files.path.join("upper/data")).unwrap(), "precious\n");
}

#[tokio::test]
async fn a_state_that_cannot_be_read_keeps_no_daemon_from_starting() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    ended(&host, &runtime, "t1").await;
    ended(&host, &runtime, "t2").await;
    drop(runtime);
    let containers = host.config().data_dir.join("containers");
    for file in ["t1/state.json", "t2/state.json", "t2/exit.json"] {
        fs::write(containers.join(file), "").unwrap();
    }
    let runtime = host.open().await;
    let code = |id: &str| match runtime.status(id).unwrap().state {
        ContainerState::Exited(exit) => exit.code,
        state => panic!("{state:?}"),
    };
    assert_eq!((code("t1"), code("t2")), (0, 137));
    let kept = tree(&containers).into_iter().filter(|(path, _)| path.to_string_lossy().contains("unreadable")).count();
    assert_eq!(kept, 3);
}

#[tokio::test]
async fn an_image_that_lost_its_name_is_found_and_one_that_is_damaged_hides_no_other() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let images = host.config().data_dir.join("images");
    let busybox = runtime.images().inspect("busybox").unwrap().id;
    for name in ["second", "third"] {
        let text = format!("CMD [\"{name}\"]");
        runtime.images().import(std::io::Cursor::new(common::busybox()), name, vec![text]).await.unwrap();
    }
    let second = runtime.images().inspect("second").unwrap().id;
    drop(runtime);
    let before = tree(&images.join("layers")).len();
    let table = images.join("tags.json");
    let text = fs::read_to_string(&table).unwrap();
    // What took the whole store down: digits that do not even begin as an id does.
    fs::write(&table, text.replace(&busybox, "ab\u{e9}")).unwrap();
    fs::write(images.join("configs").join(&second), "{\"half").unwrap();

    let runtime = host.open().await;
    let names: Vec<String> = runtime.images().ls().await.unwrap().into_iter().map(|i| i.reference).collect();
    assert_eq!(names, [format!("recovered@{busybox}"), "third:latest".to_owned()], "{names:?}");
    assert_eq!(runtime.images().inspect(&busybox[7..19]).unwrap().id, busybox);
    assert!(runtime.images().resolve("second").unwrap().is_none() && runtime.images().resolve("x").unwrap().is_none());
    let aside = tree(&host.config().data_dir.join("set-aside/images"));
    let kept = |beginning: &str| aside.iter().find(|(path, _)| path.to_string_lossy().starts_with(beginning)).unwrap();
    assert!(kept("tags.json").1.contains("ab\u{e9}"));
    assert_eq!(kept(&second).1, "{\"half");
    // A name is given anew, and nothing is swept while nobody knows which layers the damaged one had.
    runtime.remove_image("third").await.unwrap();
    assert_eq!(tree(&images.join("layers")).len(), before);
    runtime
        .start({
            let mut c = host.container("t1", "echo runs");
            c.spec.image = format!("recovered@{busybox}");
            c
        })
        .await
        .unwrap();
    within(runtime.wait("t1")).await.unwrap();
    assert_eq!(output(&runtime, "t1").await, ["runs"]);
}
