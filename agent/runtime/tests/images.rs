//! Where images come from: archives of both kinds, and a registry on loopback.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, busybox, output, root_owned, within};
use sha2::{Digest, Sha256};
use shoal_runtime::{Error, Runtime};
use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tar::EntryType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// An archive of files by name; a name that ends in `/` is a directory.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = root_owned();
        header.set_entry_type(if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// One entry, with a name that no honest tool would write.
fn raw(name: &str, kind: EntryType, link: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = root_owned();
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// busybox, a layer that removes and replaces, and one that hides all that a directory had.
fn layers() -> Vec<Vec<u8>> {
    vec![
        busybox(),
        archive(&[
            ("data/", b""),
            ("data/old", b"old"),
            ("data/kept", b"kept"),
            ("dir/", b""),
            ("dir/below", b"below"),
        ]),
        archive(&[("data/.wh.old", b""), ("dir/.wh..wh..opq", b""), ("dir/above", b"above")]),
    ]
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|l| digest(l)).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["sh", "-c", "ls /data /dir; cat /data/kept"], "Env": null },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .unwrap()
}

async fn says(host: &Host, runtime: &Runtime, image: &str) -> Vec<String> {
    let mut container = host.container("look", "");
    container.spec.image = image.into();
    container.spec.args.clear();
    runtime.start(container).await.unwrap();
    within(runtime.wait("look")).await.unwrap();
    let said = output(runtime, "look").await;
    runtime.remove("look").await.unwrap();
    said
}

const SAID: [&str; 5] = ["/data:", "kept", "", "/dir:", "above"];

#[tokio::test]
async fn a_docker_save_archive_is_loaded_and_its_whiteouts_hold() {
    let host = Host::new();
    let runtime = host.open().await;
    let (layers, config) = (layers(), config(&layers()));
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["app:v1","app:v2"],"Layers":["0/layer.tar","1/layer.tar","2/layer.tar"]}]"#;
    let saved = archive(&[
        ("manifest.json", manifest),
        ("c.json", &config),
        ("0/layer.tar", &layers[0]),
        ("1/layer.tar", &layers[1]),
        ("2/layer.tar", &layers[2]),
    ]);
    let loaded = runtime.images().load(Cursor::new(gzip(&saved))).await.unwrap();
    assert_eq!(loaded.iter().map(|(r, _)| r.to_string()).collect::<Vec<_>>(), ["app:v1", "app:v2"]);
    let said = says(&host, &runtime, "app:v2").await;
    assert_eq!(said[..5], SAID, "{said:?}");
    assert_eq!(said[5], "kept");

    // One of two names goes; the image stays, also for the next daemon.
    runtime.remove_image("app:v1").await.unwrap();
    drop(runtime);
    let runtime = host.open().await;
    assert_eq!(
        runtime.images().ls().await.unwrap().iter().map(|i| i.reference.as_str()).collect::<Vec<_>>(),
        ["app:v2"]
    );
    assert_eq!(says(&host, &runtime, &digest(&config)[7..19]).await[..5], SAID, "by the beginning of its id");
}

fn oci(layers: &[Vec<u8>], damaged: bool) -> Vec<u8> {
    let config = config(layers);
    let mut blobs: Vec<Vec<u8>> = layers.iter().map(|l| zstd::encode_all(l.as_slice(), 1).unwrap()).collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "config": { "mediaType": "c", "digest": digest(&config), "size": config.len() },
        "layers": blobs.iter().map(|b| serde_json::json!({ "mediaType": "l", "digest": digest(b), "size": b.len() })).collect::<Vec<_>>(),
    }))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "m", "digest": digest(&[]), "size": 0, "platform": { "os": "linux", "architecture": "sparc" } },
        { "mediaType": "m", "digest": digest(&manifest), "size": manifest.len(), "annotations": { "io.containerd.image.name": "docker.io/library/app:oci" } },
    ] }))
    .unwrap();
    let names: Vec<_> = blobs.iter().map(|b| digest(b)).collect();
    if damaged {
        let last = blobs.last_mut().unwrap();
        *last = zstd::encode_all(&archive(&[("evil", b"")])[..], 1).unwrap();
    }
    let path = |d: String| format!("blobs/sha256/{}", &d[7..]);
    let (c, m) = (path(digest(&config)), path(digest(&manifest)));
    let paths: Vec<String> = names.into_iter().map(path).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("index.json", &index), (&c, &config), (&m, &manifest)];
    files.extend(paths.iter().zip(&blobs).map(|(p, b)| (p.as_str(), b.as_slice())));
    archive(&files)
}

#[tokio::test]
async fn an_oci_layout_is_loaded_and_a_damaged_one_refused() {
    let host = Host::new();
    let runtime = host.open().await;
    let refused = runtime.images().load(Cursor::new(oci(&layers(), true))).await;
    assert!(matches!(refused, Err(Error::Digest { .. })), "{refused:?}");
    assert!(runtime.images().ls().await.unwrap().is_empty());

    runtime.images().load(Cursor::new(oci(&layers(), false))).await.unwrap();
    assert_eq!(says(&host, &runtime, "app:oci").await[..5], SAID);
}

#[tokio::test]
async fn an_archive_cannot_reach_out_of_its_layer() {
    let host = Host::new();
    let runtime = host.open().await;
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("victim");
    std::fs::write(&target, "whole").unwrap();
    let to = outside.path().to_str().unwrap();
    let link = raw("way", EntryType::Symlink, to, b"");
    let attacks = [
        raw("../victim", EntryType::Regular, "", b"broken"),
        raw("a/../../victim", EntryType::Regular, "", b"broken"),
        raw("../.wh.victim", EntryType::Regular, "", b""),
        [link.clone(), raw("way/victim", EntryType::Regular, "", b"broken")].concat(),
        [link.clone(), raw("way/.wh.victim", EntryType::Regular, "", b"")].concat(),
        [link.clone(), raw("way/.wh..wh..opq", EntryType::Regular, "", b"")].concat(),
        [link.clone(), raw("way/pipe", EntryType::Fifo, "", b"")].concat(),
        raw("stolen", EntryType::Link, target.to_str().unwrap(), b""),
        [link, raw("stolen", EntryType::Link, "way/victim", b"")].concat(),
        raw(".wh...", EntryType::Regular, "", b""),
    ];
    for (n, attack) in attacks.into_iter().enumerate() {
        let mut whole = attack;
        whole.resize(whole.len() + 1024, 0);
        let outcome = runtime.images().import(Cursor::new(whole), "evil", vec![]).await;
        assert!(outcome.is_err(), "attack {n} was not refused");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "whole", "attack {n}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "attack {n}");
    }
    assert!(runtime.images().ls().await.unwrap().is_empty());
}

/// A registry that knows one image, and counts what it is asked.
async fn registry(blobs: BTreeMap<String, (String, Vec<u8>)>) -> (u16, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (blobs, counter) = (Arc::new(blobs), Arc::clone(&asked));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (blobs, counter) = (Arc::clone(&blobs), Arc::clone(&counter));
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else {
                        return;
                    };
                    request.push(byte);
                }
                let line = String::from_utf8(request).unwrap();
                let path = line.split(' ').nth(1).unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (status, kind, body) = match blobs.get(path) {
                    Some((kind, body)) => ("200 OK", kind.clone(), body.clone()),
                    None if path == "/v2/" => ("200 OK", "application/json".into(), b"{}".to_vec()),
                    None => ("404 Not Found", "application/json".into(), b"{}".to_vec()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(&body).await;
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn an_image_is_pulled_once_from_a_registry_on_loopback() {
    let layers = layers();
    let config = config(&layers);
    let packed: Vec<_> = layers.iter().map(|l| gzip(l)).collect();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        "layers": packed.iter().map(|b| serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(b), "size": b.len() })).collect::<Vec<_>>(),
    }))
    .unwrap();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [
        { "mediaType": manifest_type, "digest": digest(&manifest), "size": manifest.len(), "platform": { "os": "linux", "architecture": "amd64" } },
    ] }))
    .unwrap();
    let blob = |b: &Vec<u8>| {
        (format!("/v2/team/app/blobs/{}", digest(b)), ("application/octet-stream".to_string(), b.clone()))
    };
    let mut blobs: BTreeMap<_, _> = packed.iter().chain([&config]).map(blob).collect();
    blobs.insert("/v2/team/app/manifests/v1".into(), (index_type.into(), index));
    blobs.insert(format!("/v2/team/app/manifests/{}", digest(&manifest)), (manifest_type.into(), manifest));
    let (port, asked) = registry(blobs).await;

    let host = Host::new();
    let runtime = host.open().await;
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let both = futures::future::join(runtime.images().ensure(&name), runtime.images().ensure(&name));
    let (one, other) = within(both).await;
    assert_eq!(one.unwrap().id, other.unwrap().id);
    let asked_once = asked.load(Ordering::SeqCst);
    assert_eq!(says(&host, &runtime, &name).await[..5], SAID);
    assert_eq!(asked.load(Ordering::SeqCst), asked_once, "what is here is not asked for again");

    let absent = runtime.images().ensure(&format!("127.0.0.1:{port}/team/none")).await;
    assert!(matches!(absent, Err(Error::Pull { .. })), "{absent:?}");
}

#[tokio::test]
async fn an_image_whose_name_was_given_to_another_goes_when_nobody_uses_it() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let layers = || std::fs::read_dir(host.config().data_dir.join("images/layers")).unwrap().count();
    runtime.start(host.container("old", "sleep 1000")).await.unwrap();
    let other = archive(&[("file", b"")]);
    runtime.images().import(Cursor::new(other.clone()), "busybox", vec![]).await.unwrap();
    runtime.images().import(Cursor::new(other), "other", vec![]).await.unwrap();

    // The old one has no name, but a container.
    runtime.remove_image("other").await.unwrap();
    assert_eq!(layers(), 2);
    within(runtime.remove("old")).await.unwrap();
    drop(runtime);
    let runtime = host.open().await;
    assert_eq!(layers(), 1);
    assert_eq!(runtime.images().ls().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_with_the_reason_and_the_way_out() {
    let host = Host::new();
    let runtime = host.open().await;
    let told = within(runtime.images().ensure("registry.invalid/app")).await.unwrap_err().to_string();
    let begins = "image registry.invalid/app:latest is not on this host and could not be pulled: ";
    assert!(told.starts_with(begins) && told.contains("shoal image load"), "{told}");
    assert!(told.contains("dns") || told.contains("connect"), "{told}");
}

#[tokio::test]
async fn an_image_tells_how_it_is_meant_to_be_run() {
    let host = Host::new();
    let runtime = host.open().await;
    let config = br#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"User":"web","Env":["A=1"],
        "Entrypoint":["/entry"],"Cmd":["x"],"WorkingDir":"/srv","ExposedPorts":{"80/tcp":{},"53/udp":{}},
        "Volumes":{"/data":{}}}}"#;
    let manifest = br#"[{"Config":"c.json","RepoTags":["app"],"Layers":[]}]"#;
    runtime.images().load(Cursor::new(archive(&[("manifest.json", manifest), ("c.json", config)]))).await.unwrap();
    let run = runtime.images().inspect("app").unwrap().config.config;
    assert_eq!((run.user.as_deref(), run.working_dir.as_deref()), (Some("web"), Some("/srv")));
    assert_eq!(
        (run.entrypoint.unwrap(), run.cmd.unwrap(), run.env.unwrap()),
        (vec!["/entry".into()], vec!["x".into()], vec!["A=1".into()])
    );
    assert_eq!(run.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(run.volumes.unwrap().into_keys().collect::<Vec<_>>(), ["/data"]);
    assert!(matches!(runtime.images().inspect("none"), Err(Error::NoSuchImage(_))));
}
