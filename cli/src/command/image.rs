//! `image …`: archives are sent in pieces, from a file or from stdin, and are never held whole.

use shoal_proto::pb;
use std::{io, path::Path, pin::Pin};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{each, show};
use crate::{
    args::{Listing, image::Image, image::Import, image::Load},
    client::Client,
    failure::Failure,
    out,
    progress::follow::now,
    view::image::rows,
};

/// One message of a stream; well under the 4 MiB at which gRPC servers refuse.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead of the daemon.
const PIECES_AHEAD: usize = 8;

pub(super) async fn run(client: &Client, verb: &Image) -> Result<(), Failure> {
    match verb {
        Image::Pull(p) => {
            let request = pb::PullImageRequest { reference: p.reference.clone() };
            let image = client.local().pull_image(request).await?.into_inner().image.unwrap_or_default();
            if p.quiet { out::line(image.id) } else { out::line(format!("{} is {}", p.reference, image.id)) }
        }
        Image::Load(l) => load(client, l).await,
        Image::Import(i) => import(client, i).await,
        Image::Ls(listing) => ls(client, listing).await,
        Image::Rm(rm) => {
            each(&rm.images, |reference| async move {
                client.local().remove_image(pb::RemoveImageRequest { reference: reference.clone() }).await?;
                Ok(reference)
            })
            .await
        }
    }
}

async fn load(client: &Client, l: &Load) -> Result<(), Failure> {
    let from = l.input.as_deref().unwrap_or(Path::new("-"));
    let mut local = client.local();
    let reply = send(from, None, |pieces| async move { local.load_image(pieces).await }).await?;
    for image in reply.images {
        if l.quiet {
            out::line(image.id)?;
        } else if image.references.is_empty() {
            out::line(format!("Loaded image: {}", image.id))?;
        } else {
            image.references.iter().try_for_each(|r| out::line(format!("Loaded image: {r}")))?;
        }
    }
    Ok(())
}

async fn import(client: &Client, i: &Import) -> Result<(), Failure> {
    let options = pb::ImportOptions { reference: i.reference.clone(), changes: i.change.clone() };
    let mut local = client.local();
    let reply = send(&i.file, Some(options), |pieces| async move { local.import_image(pieces).await }).await?;
    out::line(reply.image.unwrap_or_default().id)
}

/// Feeds a call with the pieces of a file (`-`: stdin).
async fn send<R, F>(
    from: &Path,
    import: Option<pb::ImportOptions>,
    call: impl FnOnce(ReceiverStream<pb::ImageChunk>) -> F,
) -> Result<R, Failure>
where
    F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
{
    let cannot = |e: io::Error| Failure::usage(format!("cannot read {}: {e}", from.display()));
    let reader: Pin<Box<dyn AsyncRead + Send>> = if from == Path::new("-") {
        Box::pin(tokio::io::stdin())
    } else {
        Box::pin(tokio::fs::File::open(from).await.map_err(cannot)?)
    };
    let (tx, rx) = mpsc::channel(PIECES_AHEAD);
    let call = call(ReceiverStream::new(rx));
    tokio::pin!(call);
    let fed = tokio::select! {
        done = &mut call => return Ok(done?.into_inner()),
        fed = feed(reader, import, tx) => fed,
    };
    match fed {
        Ok(()) => Ok(call.await?.into_inner()),
        // The stream is still open: the daemon sees a call that was broken off, not an archive that ended early.
        Err((_open, e)) => Err(cannot(e)),
    }
}

type Broken = (mpsc::Sender<pb::ImageChunk>, io::Error);

async fn feed(
    mut reader: Pin<Box<dyn AsyncRead + Send>>,
    mut import: Option<pb::ImportOptions>,
    tx: mpsc::Sender<pb::ImageChunk>,
) -> Result<(), Broken> {
    loop {
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let mut piece = (&mut reader).take(PIECE_BYTES as u64);
        if let Err(e) = piece.read_to_end(&mut data).await {
            return Err((tx, e));
        }
        let last = data.len() < PIECE_BYTES;
        // A receiver that is gone means that the call has ended: its answer says why.
        if !(data.is_empty() && import.is_none())
            && tx.send(pb::ImageChunk { import: import.take(), data }).await.is_err()
        {
            return Ok(());
        }
        if last {
            return Ok(());
        }
    }
}

async fn ls(client: &Client, listing: &Listing) -> Result<(), Failure> {
    let images = client.local().list_images(pb::ListImagesRequest {}).await?.into_inner().images;
    if listing.quiet {
        return images.iter().try_for_each(|i| out::line(&i.id));
    }
    let now = now().0;
    let rows: Vec<_> = images.iter().flat_map(|i| rows(i, listing.no_trunc, now)).collect();
    show::rows(listing.format.as_ref(), "IMAGE ID", &rows, || {
        let cells = rows.iter().map(|i| [&i.repository, &i.tag, &i.id, &i.created_since, &i.size].map(String::clone));
        out::table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], cells.map(Vec::from).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_arrives_in_pieces_and_whole() {
        let all: Vec<u8> = (0..(PIECE_BYTES * 2 + 5)).map(|i| (i % 251) as u8).collect();
        for len in [0, 5, PIECE_BYTES, all.len()] {
            let (tx, mut rx) = mpsc::channel(64);
            let options = pb::ImportOptions { reference: "r".into(), changes: vec![] };
            let reader = Box::pin(io::Cursor::new(all[..len].to_vec()));
            assert!(feed(reader, Some(options), tx).await.is_ok());
            let mut got = Vec::new();
            let mut imports = Vec::new();
            while let Some(piece) = rx.recv().await {
                imports.push(piece.import.is_some());
                got.extend(piece.data);
            }
            assert!(got == all[..len], "{len} bytes");
            assert!(imports[0] && imports[1..].iter().all(|i| !i), "only the first piece carries the options");
        }
    }
}
