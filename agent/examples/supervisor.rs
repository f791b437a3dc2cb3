//! `supervisor supervise DIR`: what `shoal supervise DIR` is, for tests and benches of this crate alone.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next()) {
        (Some(verb), Some(dir)) if verb == "supervise" => shoal_runtime::supervise(Path::new(&dir)),
        _ => ExitCode::FAILURE,
    }
}
