//! Images in a file: what `docker save` writes (its own manifest, or an OCI layout, or both in one).

use serde::Deserialize;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, EntryType};

use super::{
    bounds::{Bounds, Unpacked, check_disk},
    config::ImageConfig,
    layer::{self, Hashing, decompress},
    platform,
    registry::told,
    store::{Image, Images},
};
use crate::Error;
use shoal_common::Reference;

/// Manifests and configurations are read whole; no sane one is larger.
pub(crate) const JSON_MAX_BYTES: u64 = 8 << 20;
/// An index may name indexes; so deep it is followed.
const INDEX_DEPTH: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Takes in all images of the archive. One that is damaged ends it; those before it stay.
pub(crate) fn load(images: &Images, archive: impl Read) -> Result<Vec<(Reference, Image)>, Error> {
    let tmp = images.tmp()?;
    let root = tmp.path();
    spool(archive, root).map_err(|e| match e.kind() {
        // It may well be one.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::file("unpack an image in", root)(e),
        _ => Error::NotAnImage(format!("it cannot be read: {}", told(&e))),
    })?;
    let mut loaded = Vec::new();
    if let Some(manifests) = read::<Vec<DockerManifest>>(root, "manifest.json")? {
        for manifest in manifests {
            let names = manifest.repo_tags.unwrap_or_default();
            let config = bytes(root, &manifest.config)?;
            take(images, root, &config, &manifest.layers, &names, &mut loaded)?;
        }
    } else if let Some(index) = read::<Index>(root, "index.json")? {
        for (name, manifest) in pick(root, index, None, INDEX_DEPTH)? {
            let manifest: Manifest = blob_json(root, &manifest)?;
            let config = blob(root, &manifest.config.digest)?;
            let paths = manifest.layers.iter().map(|l| blob_path(&l.digest)).collect::<Result<Vec<_>, _>>()?;
            for descriptor in &manifest.layers {
                verify(root, &descriptor.digest)?;
            }
            take(images, root, &config, &paths, &name.into_iter().collect::<Vec<_>>(), &mut loaded)?;
        }
    } else {
        return Err(Error::NotAnImage("there is neither a manifest.json nor an index.json in it".to_owned()));
    }
    Ok(loaded)
}

fn take(
    images: &Images,
    root: &Path,
    config: &[u8],
    layers: &[String],
    names: &[String],
    loaded: &mut Vec<(Reference, Image)>,
) -> Result<(), Error> {
    let parsed: ImageConfig =
        serde_json::from_slice(config).map_err(|e| Error::NotAnImage(format!("its configuration is damaged: {e}")))?;
    if parsed.rootfs.diff_ids.len() != layers.len() {
        return Err(Error::NotAnImage("its configuration and its manifest differ in the number of layers".to_owned()));
    }
    let names = names.iter().map(|n| n.parse()).collect::<Result<Vec<Reference>, _>>()?;
    // Without a name it would be here and nobody could say so; its id is a name too.
    let names = if names.is_empty() { vec![format!("loaded@{}", layer::digest(config)).parse()?] } else { names };
    for (path, diff_id) in layers.iter().zip(&parsed.rootfs.diff_ids) {
        images.add_layer(open(root, path)?, Some(diff_id))?;
    }
    let image = images.add_image(&names, config)?;
    loaded.extend(names.into_iter().map(|name| (name, image.clone())));
    Ok(())
}

/// Unpacks the outer archive: files and links to files of its own, nothing else.
fn spool(archive: impl Read, root: &Path) -> io::Result<()> {
    check_disk(root)?;
    let bounds = RefCell::new(Bounds::new(root));
    let packed = bounds.borrow().packed(archive);
    let mut archive = Archive::new(Unpacked { inner: decompress(packed)?, bounds: &bounds });
    archive.set_preserve_permissions(false);
    archive.set_preserve_ownerships(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        bounds.borrow_mut().file()?;
        match entry.header().entry_type() {
            EntryType::Regular
            | EntryType::Directory
            | EntryType::Continuous
            | EntryType::Symlink
            | EntryType::Link => {
                entry.unpack_in(root)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The manifests for this host, with the names that the index gives them.
fn pick(root: &Path, index: Index, above: Option<&str>, depth: usize) -> Result<Vec<(Option<String>, String)>, Error> {
    let ours = |d: &Descriptor| {
        d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == platform::architecture())
    };
    let mut found = Vec::new();
    for descriptor in index.manifests.iter().filter(|d| ours(d)) {
        let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|key| descriptor.annotations.get(*key))
            .map(String::as_str)
            .or(above);
        if descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list") {
            if depth == 0 {
                return Err(Error::NotAnImage("its indexes are nested too deep".to_owned()));
            }
            found.extend(pick(root, blob_json(root, &descriptor.digest)?, name, depth - 1)?);
        } else {
            found.push((name.map(str::to_owned), descriptor.digest.clone()));
        }
    }
    if found.is_empty() {
        return Err(Error::NotAnImage(format!("there is none for linux/{} in it", platform::architecture())));
    }
    Ok(found)
}

fn blob_path(digest: &str) -> Result<String, Error> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.map(|hex| format!("blobs/sha256/{hex}"))
        .ok_or_else(|| Error::NotAnImage(format!("{digest} is no sha256 digest")))
}

fn verify(root: &Path, digest: &str) -> Result<(), Error> {
    let path = blob_path(digest)?;
    let got = Hashing::new(open(root, &path)?).finish().map_err(Error::file("read", path))?;
    if got == digest { Ok(()) } else { Err(Error::Digest { layer: digest.into(), expected: digest.into(), got }) }
}

fn blob(root: &Path, digest: &str) -> Result<Vec<u8>, Error> {
    verify(root, digest)?;
    bytes(root, &blob_path(digest)?)
}

fn blob_json<T: serde::de::DeserializeOwned>(root: &Path, digest: &str) -> Result<T, Error> {
    serde_json::from_slice(&blob(root, digest)?).map_err(|e| Error::NotAnImage(format!("{digest} is damaged: {e}")))
}

fn read<T: serde::de::DeserializeOwned>(root: &Path, name: &str) -> Result<Option<T>, Error> {
    if !root.join(name).exists() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes(root, name)?)
        .map(Some)
        .map_err(|e| Error::NotAnImage(format!("its {name} is damaged: {e}")))
}

fn bytes(root: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    open(root, name)?.take(JSON_MAX_BYTES).read_to_end(&mut out).map_err(Error::file("read", root.join(name)))?;
    Ok(out)
}

/// A file of the archive. Its links may lead to other files of the archive, not out of it.
fn open(root: &Path, name: &str) -> Result<File, Error> {
    let missing = || Error::NotAnImage(format!("it names {name}, which is not in it"));
    let path = PathBuf::from(name);
    if !path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(missing());
    }
    let real = fs::canonicalize(root.join(&path)).map_err(|_| missing())?;
    let inside = fs::canonicalize(root).map_err(Error::file("find", root))?;
    if !real.starts_with(inside) || !real.is_file() {
        return Err(missing());
    }
    File::open(&real).map_err(Error::file("open", real))
}
