//! What an image says about how it is to be run. Docker's and OCI's differ in nothing that is read here.

use serde::{Deserialize, Serialize};
use shoal_common::health::{HealthCheck, HealthTest};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{ContainerConfig, Error, mounts, record::Record};

/// The image configuration, the file whose digest is the image's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub config: RunConfig,
    pub rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the layers' uncompressed archives, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// Docker writes `null` for what is not set, so all is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// Directories whose content shall outlive the container.
    pub volumes: Option<BTreeMap<String, BTreeMap<String, String>>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<ImageHealthCheck>,
}

/// Times in nanoseconds; 0 for what the image leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealthCheck {
    pub test: Option<Vec<String>>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub start_interval: u64,
    pub retries: u32,
}

impl ImageHealthCheck {
    /// A test that cannot be understood is none.
    pub fn read(&self) -> HealthCheck {
        let given = |nanos: u64| (nanos > 0).then(|| Duration::from_nanos(nanos));
        HealthCheck {
            test: HealthTest::of_words(self.test.as_deref().unwrap_or_default()).unwrap_or_default(),
            interval: given(self.interval),
            timeout: given(self.timeout),
            start_period: given(self.start_period),
            start_interval: given(self.start_interval),
            retries: Some(self.retries).filter(|n| *n > 0),
        }
    }
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a container's record comes from, besides what the agent says.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) image_id: &'a str,
    pub(crate) layers_dir: PathBuf,
    pub(crate) layers: &'a [String],
    pub(crate) cgroup: String,
    pub(crate) volumes_dir: PathBuf,
    pub(crate) attach: PathBuf,
    pub(crate) created_at_ms: u64,
}

impl ImageConfig {
    /// What will be run: the image's wishes, overruled by those of the service.
    pub(crate) fn record(&self, wanted: ContainerConfig, origin: Origin<'_>) -> Result<Record, Error> {
        let ContainerConfig { id, spec, resources, labels, netns, hostname, hosts, resolv_conf, options } = wanted;
        let run = &self.config;
        let chosen = |own: &Option<String>, image: &Option<String>| {
            own.clone().or_else(|| image.clone()).filter(|s| !s.is_empty())
        };

        // An entrypoint of the service's own drops the image's command too: it was meant for the other one.
        let image_args = if spec.entrypoint.is_some() { None } else { run.cmd.clone() };
        let mut args = spec.entrypoint.clone().or_else(|| run.entrypoint.clone()).unwrap_or_default();
        if spec.args.is_empty() {
            args.extend(image_args.unwrap_or_default());
        } else {
            args.extend(spec.args.iter().cloned());
        }
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::NoCommand { container: id, image: spec.image });
        }

        let stop_signal = match &options.stop_signal {
            Some(text) => signal(text).ok_or_else(|| Error::StopSignal(text.clone()))?,
            None => run.stop_signal.as_deref().and_then(signal).unwrap_or(nix::libc::SIGTERM),
        };

        let image_env = run.env.clone().unwrap_or_default();
        let mut env: Vec<String> = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
        if options.tty {
            env.push("TERM=xterm".to_owned());
        }
        for one in image_env.into_iter().chain(spec.env.iter().map(|(k, v)| format!("{k}={v}"))) {
            let key = |s: &str| s.split('=').next().unwrap_or_default().to_owned();
            match env.iter_mut().find(|e| key(e) == key(&one)) {
                Some(same) => *same = one,
                None => env.push(one),
            }
        }

        let image_volumes = run.volumes.iter().flatten().map(|(path, _)| PathBuf::from("/").join(path));
        let image_volumes: Vec<PathBuf> =
            image_volumes.filter(|path| !options.mounts.iter().any(|mount| mount.target == *path)).collect();
        if let Some(path) = image_volumes.iter().find(|path| !mounts::is_target(path)) {
            return Err(Error::MountTarget(path.clone()));
        }

        Ok(Record {
            image: spec.image.clone(),
            image_id: origin.image_id.to_owned(),
            layers_dir: origin.layers_dir,
            layers: origin.layers.to_vec(),
            args,
            env,
            cwd: chosen(&spec.workdir, &run.working_dir)
                .map_or_else(|| PathBuf::from("/"), |w| PathBuf::from("/").join(w)),
            user: chosen(&spec.user, &run.user).unwrap_or_default(),
            stop_signal,
            probe: spec.health.probe(&run.healthcheck.as_ref().map(ImageHealthCheck::read).unwrap_or_default()),
            resources,
            cgroup: origin.cgroup,
            netns,
            hostname,
            hosts,
            resolv_conf,
            labels,
            options,
            image_volumes,
            volumes_dir: origin.volumes_dir,
            attach: origin.attach,
            created_at_ms: origin.created_at_ms,
            id,
        })
    }
}

/// `SIGQUIT`, `QUIT` or `3`.
pub(crate) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return rustix::process::Signal::from_named_raw(number).map(|_| number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use shoal_common::service::{ContainerSpec, Resources};

    fn image() -> ImageConfig {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{
            "Env":["PATH=/bin","A=image"],"Entrypoint":["/entry"],"Cmd":["default"],"WorkingDir":"/srv","User":null,
            "ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","Labels":null,
            "Healthcheck":{"Test":["CMD-SHELL","probe"],"Interval":2000000000}}}"#;
        serde_json::from_str(text).unwrap()
    }

    fn record(image: &ImageConfig, spec: ContainerSpec) -> Result<Record, Error> {
        let wanted = ContainerConfig {
            id: "c".into(),
            spec,
            resources: Resources::default(),
            labels: BTreeMap::new(),
            netns: "/n".into(),
            hostname: "h".into(),
            hosts: vec![],
            resolv_conf: String::new(),
            options: Options::default(),
        };
        let origin = Origin {
            image_id: "i",
            layers_dir: "/l".into(),
            layers: &[],
            cgroup: "/g".into(),
            volumes_dir: "/v".into(),
            attach: "/a".into(),
            created_at_ms: 0,
        };
        image.record(wanted, origin)
    }

    #[test]
    fn the_image_says_what_the_service_leaves_open() {
        let r = record(&image(), ContainerSpec::default()).unwrap();
        assert_eq!(r.args, ["/entry", "default"]);
        assert_eq!(r.env, ["PATH=/bin", "HOSTNAME=h", "A=image"]);
        assert_eq!((r.cwd.to_str(), r.user.as_str(), r.stop_signal), (Some("/srv"), "", 3));
        let probe = r.probe.unwrap();
        assert_eq!((probe.args[2].as_str(), probe.interval), ("probe", Duration::from_secs(2)));
    }

    #[test]
    fn the_service_overrules_the_image() {
        let spec =
            ContainerSpec { args: vec!["mine".into()], env: [("A".into(), "1".into())].into(), ..Default::default() };
        let r = record(&image(), spec).unwrap();
        assert_eq!((r.args, r.env[2].as_str()), (vec!["/entry".to_owned(), "mine".to_owned()], "A=1"));

        let spec = ContainerSpec { entrypoint: Some(vec!["/other".into()]), ..Default::default() };
        assert_eq!(record(&image(), spec).unwrap().args, ["/other"]);

        let spec = ContainerSpec { entrypoint: Some(vec![]), ..Default::default() };
        assert!(matches!(record(&image(), spec), Err(Error::NoCommand { .. })));
    }

    #[test]
    fn the_image_has_volumes_where_the_user_mounts_nothing() {
        let mut image = image();
        let volumes = ["/data", "/data/logs", "var/lib/db/"].map(|path| (path.to_owned(), BTreeMap::new()));
        image.config.volumes = Some(volumes.into());
        let wanted = record(&image, ContainerSpec::default()).unwrap().image_volumes;
        assert_eq!(wanted, ["/data", "/data/logs", "/var/lib/db/"].map(PathBuf::from));
        image.config.volumes = Some([("/a/../b".to_owned(), BTreeMap::new())].into());
        assert!(matches!(record(&image, ContainerSpec::default()), Err(Error::MountTarget(_))));
    }

    #[test]
    fn signals_are_read_in_all_their_spellings() {
        for (text, number) in [("SIGTERM", Some(15)), ("quit", Some(3)), ("9", Some(9)), ("SIGNO", None), ("0", None)] {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
