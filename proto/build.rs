//! Compiles `shoal/v1/*.proto` with `protox`: no `protoc` is needed on the machine.

use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut protos: Vec<PathBuf> = std::fs::read_dir("shoal/v1")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "proto"))
        .collect();
    protos.sort();
    println!("cargo:rerun-if-changed=shoal/v1");
    let descriptors = protox::compile(&protos, ["."])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
