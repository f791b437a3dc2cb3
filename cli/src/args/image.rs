//! `image …`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

use super::Listing;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Fetch an image from its registry
    Pull(Pull),
    /// Read images from an archive ('docker save', OCI)
    Load(Load),
    /// Make an image of a root file system in a tar
    Import(Import),
    /// List images
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Print only the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The archive (default: what comes in on stdin)
    #[arg(short, long)]
    pub(crate) input: Option<PathBuf>,
    /// Print only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// CMD, ENTRYPOINT, ENV, EXPOSE, USER or WORKDIR as in a Dockerfile; repeatable
    #[arg(short, long)]
    pub(crate) change: Vec<String>,
    /// The tar, or - for stdin
    pub(crate) file: PathBuf,
    /// What to call the image
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// References or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}
