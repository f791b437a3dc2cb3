//! Images out of registries.

use oci_client::{
    Client,
    client::{ClientConfig, ClientProtocol},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use std::{fs::File, path::Path, time::Duration};

use super::{
    archive::JSON_MAX_BYTES,
    bounds::{Capped, check_disk},
    config::ImageConfig,
    layer::Hashing,
    store::{Image, Images},
};
use crate::Error;
use shoal_common::Reference;

/// A registry that does not answer is given up on: the task is better told so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a layer as it is sent, compressed or not.
const BLOB_MAX_BYTES: u64 = 64 << 30;
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn pull(images: &Images, reference: &Reference) -> Result<Image, Error> {
    let failed = |reason: String| Error::Pull { image: reference.to_string(), reason };
    let remote: oci_client::Reference = reference.canonical().parse().map_err(|e| failed(format!("{e}")))?;
    let protocol = if reference.is_loopback() {
        ClientProtocol::HttpsExcept(vec![reference.host().to_owned()])
    } else {
        ClientProtocol::Https
    };
    let client = Client::try_from(ClientConfig {
        protocol,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        ..ClientConfig::default()
    })
    .map_err(|e| failed(told(&e)))?;

    let (manifest, _) =
        client.pull_image_manifest(&remote, &RegistryAuth::Anonymous).await.map_err(|e| failed(told(&e)))?;
    let size = announced(&manifest.config, "configuration", JSON_MAX_BYTES).map_err(failed)?;
    let mut config = Vec::new();
    client.pull_blob(&remote, &manifest.config, Capped::new(&mut config, size)).await.map_err(|e| failed(told(&e)))?;
    let got = super::layer::digest(&config);
    if got != manifest.config.digest {
        return Err(Error::Digest { layer: "configuration".into(), expected: manifest.config.digest.clone(), got });
    }
    let parsed: ImageConfig =
        serde_json::from_slice(&config).map_err(|e| failed(format!("its configuration is damaged: {e}")))?;
    if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(failed("its configuration and its manifest differ in the number of layers".to_owned()));
    }
    let tmp = images.tmp()?;
    for (layer, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
        if images.has_layer(diff_id) {
            continue;
        }
        let path = tmp.path().join("blob");
        let file = tokio::fs::File::create(&path).await.map_err(Error::file("write", &path))?;
        let size = announced(layer, "layer", BLOB_MAX_BYTES).map_err(failed)?;
        check_disk(tmp.path()).map_err(Error::file("write", &path))?;
        let mut file = Capped::new(tokio::io::BufWriter::new(file), size);
        client.pull_blob(&remote, layer, &mut file).await.map_err(|e| failed(told(&e)))?;
        tokio::io::AsyncWriteExt::shutdown(&mut file).await.map_err(Error::file("write", &path))?;
        drop(file);
        let (images, layer, diff_id) = (images.clone(), layer.clone(), diff_id.clone());
        let unpack = tokio::task::spawn_blocking(move || unpack(&images, &path, &layer, &diff_id));
        unpack.await.map_err(|_| Error::Worker("unpack a layer"))??;
    }
    let (images, reference) = (images.clone(), reference.clone());
    let add = tokio::task::spawn_blocking(move || images.add_image(&[reference], &config));
    add.await.map_err(|_| Error::Worker("add an image"))?
}

/// What the manifest says of its size: no more is taken, and no more than `max`.
fn announced(blob: &OciDescriptor, what: &str, max: u64) -> Result<u64, String> {
    match u64::try_from(blob.size) {
        Ok(size) if size <= max => Ok(size),
        Ok(size) => Err(format!("its {what} has {size} bytes, and at most {max} are taken")),
        Err(_) => Err(format!("its manifest says that its {what} has {} bytes", blob.size)),
    }
}

/// Nothing of a blob is believed before its digest was.
fn unpack(images: &Images, path: &Path, layer: &OciDescriptor, diff_id: &str) -> Result<(), Error> {
    let open = || File::open(path).map_err(Error::file("open", path));
    let got = Hashing::new(open()?).finish().map_err(Error::file("read", path))?;
    if got != layer.digest {
        return Err(Error::Digest { layer: layer.digest.clone(), expected: layer.digest.clone(), got });
    }
    images.add_layer(open()?, Some(diff_id))?;
    Ok(())
}

/// The whole chain of causes in one line: the last one is the telling one.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
