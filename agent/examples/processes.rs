//! `processes supervise DIR` and `processes resolve RUN_DIR RESOLV_CONF`: what `shoal` is with these words, for tests
//! and benches of this crate alone.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        (Some(verb), Some(dir), None) if verb == "supervise" => shoal_runtime::supervise(Path::new(&dir)),
        (Some(verb), Some(dir), Some(resolv_conf)) if verb == shoal_agent::resolver::VERB => {
            shoal_rt::telemetry::init();
            shoal_agent::resolver::resolve(Path::new(&dir), Path::new(&resolv_conf))
        }
        _ => ExitCode::FAILURE,
    }
}
