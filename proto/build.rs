//! Compiles `shoal/v1/*.proto` with `protox`: no `protoc` is needed on the machine. From the same descriptors comes the
//! list of all calls, for which `src/access.rs` says who may make them.

use std::{
    error::Error,
    fmt::Write as _,
    path::{Path, PathBuf},
};

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

    // (variant, path, whether the request is a stream)
    let mut calls = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let variant = format!("{}{}", service.name(), method.name());
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                calls.push((variant, path, method.client_streaming()));
            }
        }
    }
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("calls.rs"), list(&calls)?)?;

    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

fn list(calls: &[(String, String, bool)]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "/// A call of one of the services, by service and method.")?;
    writeln!(text, "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]\npub enum Call {{")?;
    for (variant, path, _) in calls {
        writeln!(text, "    /// `{path}`\n    {variant},")?;
    }
    writeln!(text, "}}\n\nimpl Call {{")?;
    writeln!(text, "    pub const ALL: &'static [Call] = &[")?;
    for (variant, ..) in calls {
        writeln!(text, "        Call::{variant},")?;
    }
    writeln!(text, "    ];\n")?;
    writeln!(text, "    /// As HTTP/2 has it.\n    pub const fn path(self) -> &'static str {{\n        match self {{")?;
    for (variant, path, _) in calls {
        writeln!(text, "            Call::{variant} => {path:?},")?;
    }
    writeln!(text, "        }}\n    }}\n")?;
    writeln!(text, "    pub fn of_path(path: &str) -> Option<Self> {{\n        Some(match path {{")?;
    for (variant, path, _) in calls {
        writeln!(text, "            {path:?} => Call::{variant},")?;
    }
    writeln!(text, "            _ => return None,\n        }})\n    }}\n")?;
    writeln!(
        text,
        "    /// The request is a stream of messages.\n    pub const fn is_stream(self) -> bool {{\n        match self {{"
    )?;
    for (variant, _, streams) in calls {
        writeln!(text, "            Call::{variant} => {streams},")?;
    }
    writeln!(text, "        }}\n    }}\n}}")?;
    Ok(text)
}
