//! The one binary: what a user types, and the daemon that answers.
//!
//! `supervise` comes before all else: it is started once per container, and stays, so it carries neither an
//! argument parser nor an async runtime.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod client;
mod command;
mod daemon;
mod failure;
mod inert;
mod lab;
mod out;
mod progress;
mod spec;
mod units;
mod view;

use args::{Cli, unbuilt};
use clap::{CommandFactory as _, FromArgMatches as _};
use failure::{Exit, Failure};
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut argv = std::env::args_os().skip(1);
    if argv.next().is_some_and(|verb| verb == "supervise") {
        return match (argv.next(), argv.next()) {
            (Some(dir), None) => shoal_runtime::supervise(Path::new(&dir)),
            _ => end(&Failure::usage("supervise DIR: the daemon calls this, people do not")),
        };
    }
    let mut argv = std::env::args_os().skip(1);
    match argv.next() {
        Some(verb) if verb == shoal_agent::resolver::VERB => {
            shoal_rt::telemetry::init();
            return match (argv.next(), argv.next(), argv.next()) {
                (Some(run_dir), Some(resolv_conf), None) => {
                    shoal_agent::resolver::resolve(Path::new(&run_dir), Path::new(&resolv_conf))
                }
                _ => end(&Failure::usage("resolve RUN_DIR RESOLV_CONF: the daemon calls this, people do not")),
            };
        }
        Some(verb) if verb == lab::init::VERB => return lab::init::main(argv),
        Some(verb) if verb == lab::enter::VERB => return lab::enter::main(argv),
        Some(_) | None => {}
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(e) => return not_understood(&e),
    };
    if let args::Command::Lab(lab) = &cli.command {
        return lab::run(lab).unwrap_or_else(|f| end(&f));
    }
    if let args::Command::Daemon(args) = &cli.command {
        return daemon::run(args, &cli.host).map_or_else(|f| end(&f), |()| ExitCode::SUCCESS);
    }
    run(cli).unwrap_or_else(|f| end(&f))
}

fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&args::with_negatives(Cli::command()).try_get_matches()?)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(command::run(cli));
    // A read of stdin that nobody waits for any more would hold the process.
    runtime.shutdown_background();
    done
}

fn not_understood(e: &clap::Error) -> ExitCode {
    let verb = unbuilt::verb(std::env::args_os().map(|word| word.to_string_lossy().into_owned()));
    // As Docker: `run` ends as its program does, so what is not the program's has a number of its own.
    let failed = if verb.as_deref() == Some("run") { Exit::NotRun } else { Exit::Usage };
    if let Some(sentence) = unbuilt::sentence(e, verb.as_deref()) {
        return end(&Failure::new(failed, sentence));
    }
    // Help and version come this way too, and are no errors.
    let code = if e.use_stderr() { failed as u8 } else { 0 };
    match e.print() {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(Exit::General as u8),
    }
}

fn end(f: &Failure) -> ExitCode {
    out::error(&f.message);
    ExitCode::from(f.exit as u8)
}
