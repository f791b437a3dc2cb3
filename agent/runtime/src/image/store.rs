//! The images that are on this host.
//!
//! On disk: `configs/sha256:…` (an image's configuration, named by its digest, which is the image's id),
//! `layers/SHORT` (an unpacked layer, named by its diff id), `tags.json` (names to ids). An image appears by its
//! name in the table, after all it needs was written and synced; so a power cut leaves nothing half.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    archive, changes,
    config::{ImageConfig, Origin, RootFs},
    layer, platform, registry,
    tags::{ImageId, Tags},
};
use crate::{
    ContainerConfig, Error, aside,
    ids::Ids,
    json,
    locked::lock,
    record::{Record, now_ms, rfc3339},
    rootfs,
};
use shoal_common::Reference;
use shoal_rt::durable;

/// An image that is here, whole.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    pub config: ImageConfig,
    layers: Vec<String>,
}

impl Image {
    pub(crate) fn record(&self, wanted: ContainerConfig, place: Place) -> Result<Record, Error> {
        let Place { layers_dir, cgroup, volumes_dir, attach, created_at_ms } = place;
        let origin =
            Origin { image_id: &self.id, layers_dir, layers: &self.layers, cgroup, volumes_dir, attach, created_at_ms };
        self.config.record(wanted, origin)
    }
}

/// Where a container of an image goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) layers_dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) volumes_dir: PathBuf,
    pub(crate) attach: PathBuf,
    pub(crate) created_at_ms: u64,
}

/// A row of `shoal image ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// In the familiar form: `nginx:latest`.
    pub reference: String,
    pub id: String,
    pub created: Option<String>,
    /// As unpacked on disk; layers that images share are counted for each.
    pub size_bytes: u64,
}

/// The store. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Where what cannot be read goes.
    aside: PathBuf,
    ids: Ids,
    /// As in `tags.json`.
    tags: Mutex<Tags>,
    /// One for each image being fetched, so that fifty tasks fetch it once.
    fetching: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while files are put in their places or taken from them. Counts the images that are just coming.
    writing: Mutex<usize>,
}

/// What was put aside; removed from disk when dropped, which takes its time.
#[derive(Debug)]
pub(crate) struct Swept(tempfile::TempDir);

#[derive(Debug)]
pub(crate) struct Incoming(Images);

impl Drop for Incoming {
    fn drop(&mut self) {
        *lock(&self.0.0.writing) -= 1;
    }
}

impl Images {
    /// What cannot be read goes to `aside`.
    pub(crate) fn open(dir: PathBuf, aside: &Path, ids: Ids) -> Result<Self, Error> {
        for part in ["configs", "layers"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(Error::file("make the directory", &path))?;
        }
        rootfs::make_mount_points(&dir).map_err(Error::file("make mount points in", &dir))?;
        // What was being written when an earlier daemon ended.
        let tmp = dir.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("empty", tmp)(e));
            }
            Ok(()) | Err(_) => {}
        }
        fs::create_dir(&tmp).map_err(Error::file("make the directory", &tmp))?;
        let tags = Tags::open(&dir, aside, |id| is_whole(&dir, aside, id))?;
        let (tags, fetching, writing) = (Mutex::new(tags), Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { dir, aside: aside.to_owned(), ids, tags, fetching, writing })))
    }

    /// The image of that name or, if it has at least 12 digits, of that id.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, Error> {
        let id = {
            let tags = self.tags();
            let name = reference.parse::<Reference>().ok().map(|r| r.canonical());
            let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
            tags.find(name.as_deref(), digits).cloned()
        };
        if id.is_none() && !reference.starts_with("sha256:") {
            reference.parse::<Reference>()?;
        }
        id.map(|id| self.image(id.as_str())).transpose()
    }

    /// What an image of this host says of itself: its command, ports, volumes and the like, in `config.config`.
    pub fn inspect(&self, reference: &str) -> Result<Image, Error> {
        self.resolve(reference)?.ok_or_else(|| Error::NoSuchImage(reference.to_owned()))
    }

    /// The image if it is here, else pulled. An image that is here is never asked for elsewhere.
    pub async fn ensure(&self, reference: &str) -> Result<Image, Error> {
        if let Some(image) = self.resolve(reference)? {
            return Ok(image);
        }
        let parsed: Reference = reference.parse()?;
        let name = parsed.canonical();
        let turn = Arc::clone(lock(&self.0.fetching).entry(name.clone()).or_default());
        let _fetching = turn.lock().await;
        let image = match self.resolve(reference)? {
            Some(image) => Ok(image),
            None => self.pull(reference).await,
        };
        lock(&self.0.fetching).remove(&name);
        image
    }

    /// Fetches what the registry now has under that name.
    pub async fn pull(&self, reference: &str) -> Result<Image, Error> {
        let parsed: Reference = reference.parse()?;
        let _incoming = self.incoming();
        registry::pull(self, &parsed).await
    }

    /// Takes in the images of a `docker save` or OCI layout archive, compressed or not.
    pub async fn load(&self, archive: impl Read + Send + 'static) -> Result<Vec<(Reference, Image)>, Error> {
        let this = self.clone();
        blocking("load an image", move || {
            let _incoming = this.incoming();
            archive::load(&this, archive)
        })
        .await
    }

    /// Makes an image of one layer out of the archive of a root file system.
    pub async fn import(
        &self,
        archive: impl Read + Send + 'static,
        reference: &str,
        changes: Vec<String>,
    ) -> Result<Image, Error> {
        let (this, reference) = (self.clone(), reference.parse::<Reference>()?);
        blocking("import an image", move || {
            let mut config = ImageConfig {
                architecture: platform::architecture().to_owned(),
                os: "linux".to_owned(),
                created: Some(rfc3339(now_ms())),
                ..ImageConfig::default()
            };
            for change in &changes {
                changes::apply(&mut config.config, change)?;
            }
            let _incoming = this.incoming();
            let diff_id = this.add_layer(archive, None)?;
            config.rootfs = RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] };
            let bytes = serde_json::to_vec(&config).expect("an image configuration can be put into JSON");
            this.add_image(&[reference], &bytes)
        })
        .await
    }

    /// All names, in order.
    pub async fn ls(&self) -> Result<Vec<ImageSummary>, Error> {
        let this = self.clone();
        blocking("list images", move || this.list()).await
    }

    fn list(&self) -> Result<Vec<ImageSummary>, Error> {
        let tags = self.tags().clone();
        let mut sizes = BTreeMap::new();
        let mut out = Vec::new();
        for (name, id) in tags.iter() {
            let image = match self.image(id.as_str()) {
                Ok(image) => image,
                // One that was damaged since it was opened hides no other.
                Err(e @ (Error::Garbled { .. } | Error::NoSuchImage(_))) => {
                    tracing::error!(image = name, error = %e, "an image cannot be listed");
                    continue;
                }
                Err(e) => return Err(e),
            };
            let mut size_bytes = 0;
            for layer in &image.layers {
                size_bytes += *sizes.entry(layer.clone()).or_insert_with(|| self.layer_size(layer));
            }
            let reference = name.parse::<Reference>().map_or_else(|_| name.to_owned(), |r| r.to_string());
            out.push(ImageSummary { reference, id: id.as_str().to_owned(), created: image.config.created, size_bytes });
        }
        Ok(out)
    }

    /// Removes a name; refused if it is the last name of an image in `used`, which tells ids and who uses them.
    /// What nothing names any more is swept aside, and for the caller to drop when it holds no lock.
    pub(crate) fn remove(&self, reference: &str, used: &BTreeMap<String, String>) -> Result<Swept, Error> {
        let gone = || Error::NoSuchImage(reference.to_owned());
        let image = self.resolve(reference)?.ok_or_else(gone)?;
        {
            let _writing = lock(&self.0.writing);
            let mut tags = self.tags();
            let mut next = tags.clone();
            let named = reference.parse::<Reference>().ok().map(|r| r.canonical()).filter(|n| tags.has_name(n));
            match named {
                Some(name) => next.remove_name(&name),
                None => next.remove_names_of(&image.id),
            }
            let last = !next.ids().any(|id| id.as_str() == image.id);
            if last && let Some(container) = used.get(&image.id) {
                return Err(Error::ImageInUse { image: reference.to_owned(), container: container.clone() });
            }
            next.write(&self.0.dir)?;
            *tags = next;
        }
        self.sweep(used)
    }

    /// Puts aside all images that have neither a name nor a user: their names went, or were given to others.
    pub(crate) fn sweep(&self, used: &BTreeMap<String, String>) -> Result<Swept, Error> {
        let incoming = lock(&self.0.writing);
        let swept = Swept(self.tmp()?);
        let tags = self.tags();
        let ids: BTreeSet<&str> = tags.ids().map(ImageId::as_str).chain(used.keys().map(String::as_str)).collect();
        let mut layers = BTreeSet::new();
        for id in &ids {
            match self.image(id) {
                Ok(image) => layers.extend(image.layers),
                // A container outlived its image's file, or that is damaged: its layers are not known, so all stay.
                Err(e) => {
                    tracing::warn!(image = id, error = %e, "no image is swept: one in use cannot be read");
                    return Ok(swept);
                }
            }
        }
        let aside = |dir: &Path, goes: &dyn Fn(&str) -> bool| -> Result<(), Error> {
            for entry in fs::read_dir(dir).map_err(Error::file("read", dir))?.flatten() {
                let path = entry.path();
                if entry.file_name().to_str().is_some_and(goes) {
                    // Renamed, not removed in place: a layer that is there is whole.
                    fs::rename(&path, swept.0.path().join(entry.file_name())).map_err(Error::file("remove", path))?;
                }
            }
            Ok(())
        };
        // Layers of an image that is just coming have no name yet either.
        if *incoming == 0 && !self.is_missing_a_configuration() {
            // What is not ours by its name is left alone.
            aside(&self.0.dir.join("configs"), &|id| ImageId::parse(id).is_some() && !ids.contains(id))?;
            aside(&self.layers_dir(), &|layer| is_layer_name(layer) && !layers.contains(layer))?;
        }
        Ok(swept)
    }

    /// One that was set aside named layers, and nobody knows which.
    fn is_missing_a_configuration(&self) -> bool {
        let is_one = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("sha256:");
        let found = fs::read_dir(&self.0.aside).into_iter().flatten().flatten().any(is_one);
        if found {
            tracing::warn!(
                set_aside = %self.0.aside.display(),
                "no layer is swept while the configuration of an image is set aside: put it back or remove it"
            );
        }
        found
    }

    /// To be held from before the first layer of a new image is looked for until the image has its name.
    pub(crate) fn incoming(&self) -> Incoming {
        *lock(&self.0.writing) += 1;
        Incoming(self.clone())
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.tags().ids().any(|known| known.as_str() == id)
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.0.dir.join("layers")
    }

    /// A directory that goes away by itself.
    pub(crate) fn tmp(&self) -> Result<tempfile::TempDir, Error> {
        let dir = self.0.dir.join("tmp");
        tempfile::tempdir_in(&dir).map_err(Error::file("make a directory in", dir))
    }

    pub(crate) fn has_layer(&self, diff_id: &str) -> bool {
        layer_name(diff_id).is_some_and(|name| self.layers_dir().join(name).is_dir())
    }

    /// Unpacks a layer, if it is not there; its diff id, which is the one expected or an error.
    pub(crate) fn add_layer(&self, archive: impl Read, expected: Option<&str>) -> Result<String, Error> {
        if let Some(diff_id) = expected.filter(|d| self.has_layer(d)) {
            return Ok(diff_id.to_owned());
        }
        let tmp = self.tmp()?;
        let root = tmp.path().join("layer");
        fs::create_dir(&root).map_err(Error::file("make the directory", &root))?;
        let diff_id = layer::unpack(archive, &root, expected.unwrap_or("of the import"), &self.0.ids)?;
        if let Some(expected) = expected.filter(|e| *e != diff_id) {
            return Err(Error::Digest { layer: expected.into(), expected: expected.into(), got: diff_id });
        }
        // The root directory of a layer is that of the container.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&root, mode).map_err(Error::file("set the mode of", &root))?;
        let dir = fs::File::open(&root).map_err(Error::file("open", &root))?;
        rustix::fs::syncfs(&dir).map_err(|e| Error::file("sync", &root)(e.into()))?;
        let name = layer_name(&diff_id).ok_or_else(|| Error::NotAnImage(format!("{diff_id} is no digest")))?;
        let place = self.layers_dir().join(name);
        let _writing = lock(&self.0.writing);
        match fs::rename(&root, &place) {
            // Somebody else was faster with the same.
            Err(_) if place.is_dir() => {}
            renamed => renamed.map_err(Error::file("put a layer at", &place))?,
        }
        Ok(diff_id)
    }

    /// Names an image whose layers are here.
    pub(crate) fn add_image(&self, names: &[Reference], config: &[u8]) -> Result<Image, Error> {
        let id = ImageId::of(config);
        let _writing = lock(&self.0.writing);
        let parsed = serde_json::from_slice(config)
            .map_err(|e| Error::NotAnImage(format!("its configuration is damaged: {e}")))?;
        let image = whole(id.as_str().to_owned(), parsed)?;
        if let Some(layer) = image.layers.iter().find(|layer| !self.layers_dir().join(layer).is_dir()) {
            return Err(Error::NotAnImage(format!("layer {layer} of {} was not in it", id.as_str())));
        }
        let path = config_path(&self.0.dir, id.as_str());
        durable::replace(&path, config).map_err(Error::Durable)?;
        let layers = self.layers_dir();
        fs::File::open(&layers).and_then(|d| d.sync_all()).map_err(Error::file("sync", &layers))?;
        let mut tags = self.tags();
        let mut next = tags.clone();
        names.iter().for_each(|name| next.set(name.canonical(), id.clone()));
        next.write(&self.0.dir)?;
        *tags = next;
        Ok(image)
    }

    /// An image by its whole id.
    pub(crate) fn image(&self, id: &str) -> Result<Image, Error> {
        read_image(&self.0.dir, id)
    }

    fn layer_size(&self, layer: &str) -> u64 {
        size_of(&self.layers_dir().join(layer), &mut BTreeSet::new())
    }

    fn tags(&self) -> MutexGuard<'_, Tags> {
        lock(&self.0.tags)
    }
}

fn config_path(dir: &Path, id: &str) -> PathBuf {
    dir.join("configs").join(id)
}

fn read_image(dir: &Path, id: &str) -> Result<Image, Error> {
    let config: ImageConfig = json::read(&config_path(dir, id), "an image configuration")?
        .ok_or_else(|| Error::NoSuchImage(id.to_owned()))?;
    whole(id.to_owned(), config)
}

/// Whether all that containers of it need is here; if not, what is wrong. Without its name it can be pulled again.
fn is_whole(dir: &Path, to: &Path, id: &ImageId) -> Result<(), String> {
    let image = read_image(dir, id.as_str()).map_err(|e| match e {
        Error::Garbled { path, source, .. } => {
            let why = format!("its configuration is damaged: {source}");
            if let Err(e) = aside::file(to, &path, &why) {
                tracing::error!(image = id.as_str(), error = %e, "a damaged image configuration stays where it is");
            }
            why
        }
        e => e.to_string(),
    })?;
    match image.layers.iter().find(|layer| !dir.join("layers").join(layer).is_dir()) {
        Some(layer) => Err(format!("its layer {layer} is missing")),
        None => Ok(()),
    }
}

fn whole(id: String, config: ImageConfig) -> Result<Image, Error> {
    let name = |d: &String| layer_name(d).ok_or_else(|| Error::NotAnImage(format!("{d} is no digest")));
    let layers = config.rootfs.diff_ids.iter().map(name).collect::<Result<_, _>>()?;
    Ok(Image { id, config, layers })
}

/// The first 128 bits of the digest in 26 characters, so that the names of 128 layers fit into a page.
fn layer_name(diff_id: &str) -> Option<String> {
    let hex = diff_id.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?;
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    Some(data_encoding::BASE32_NOPAD.encode(&bytes[..16]).to_ascii_lowercase())
}

fn is_layer_name(name: &str) -> bool {
    name.len() == LAYER_NAME_BYTES && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

/// Of 128 bits in base 32.
const LAYER_NAME_BYTES: usize = 26;

/// `linked`: files that were counted and have other names.
fn size_of(dir: &Path, linked: &mut BTreeSet<u64>) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => size_of(&e.path(), linked),
            Ok(m) if m.nlink() > 1 && !linked.insert(m.ino()) => 0,
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker(what))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_128_layers_fit_into_a_page() {
        let name = layer_name(&layer::digest(b"x")).unwrap();
        assert!((name.len() + 1) * 128 < 3500, "{name}");
        assert!(is_layer_name(&name) && !is_layer_name("lost+found") && !is_layer_name(&name[1..]));
    }
}
