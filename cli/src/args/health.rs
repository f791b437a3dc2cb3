//! `--health-…`, of containers and of services.

use clap::Args;
use std::time::Duration;

use crate::units::duration;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Health {
    /// A command whose exit code says whether the container is well: run by its /bin/sh
    #[arg(long, conflicts_with = "no_healthcheck", allow_hyphen_values = true)]
    pub(crate) health_cmd: Option<String>,
    /// Between two checks (default: the image's, else 30s)
    #[arg(long, value_parser = duration, conflicts_with = "no_healthcheck")]
    pub(crate) health_interval: Option<Duration>,
    /// A check that takes longer has failed (default: the image's, else 30s)
    #[arg(long, value_parser = duration, conflicts_with = "no_healthcheck")]
    pub(crate) health_timeout: Option<Duration>,
    /// Failures within this time from the start do not count (default: the image's, else 0s)
    #[arg(long, value_parser = duration, conflicts_with = "no_healthcheck")]
    pub(crate) health_start_period: Option<Duration>,
    /// Between two checks within the start period (default: the image's, else 5s)
    #[arg(long, value_parser = duration, conflicts_with = "no_healthcheck")]
    pub(crate) health_start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy (default: the image's, else 3)
    #[arg(long, conflicts_with = "no_healthcheck")]
    pub(crate) health_retries: Option<u32>,
    /// No health check, also not the image's
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}
