//! What Docker has and Shoal does not have yet: said in a sentence, not as "unexpected argument".

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Docker's flags, with what to do in their stead.
const FLAGS: &[(&str, &str)] = &[
    ("--secret", "secrets are not built yet"),
    ("--secret-add", "secrets are not built yet"),
    ("--secret-rm", "secrets are not built yet"),
    ("--config", "configs are not built yet"),
    ("--config-add", "configs are not built yet"),
    ("--config-rm", "configs are not built yet"),
    ("--mount", "mounts and volumes of services are not built yet: put the files into the image"),
    ("--mount-add", "mounts and volumes of services are not built yet: put the files into the image"),
    ("--mount-rm", "mounts and volumes of services are not built yet: put the files into the image"),
    (
        "--force",
        "updating without a change is not built yet: change a label of the containers with --container-label-add",
    ),
    ("--rollback", "rollback is not built yet: update to the former image with --image"),
    ("--rollback-delay", "rollback is not built yet"),
    ("--rollback-failure-action", "rollback is not built yet"),
    ("--rollback-max-failure-ratio", "rollback is not built yet"),
    ("--rollback-monitor", "rollback is not built yet"),
    ("--rollback-order", "rollback is not built yet"),
    ("--rollback-parallelism", "rollback is not built yet"),
    (
        "--update-failure-action",
        "failure actions are not built yet: an update goes on, and 'service ps' shows what fails",
    ),
    ("--update-max-failure-ratio", "failure actions are not built yet"),
    ("--update-monitor", "failure actions are not built yet"),
    ("--update-order", "only stop-first is built: the old task of a slot ends before the new one starts"),
    (
        "--placement-pref",
        "placement preferences are not built yet: tasks are spread evenly over hosts; use --constraint",
    ),
    ("--placement-pref-add", "placement preferences are not built yet: use --constraint-add"),
    ("--placement-pref-rm", "placement preferences are not built yet: use --constraint-rm"),
    ("--dns", "own DNS servers per service are not built yet: names that are not Shoal's go to the host's resolvers"),
    ("--dns-add", "own DNS servers per service are not built yet"),
    ("--dns-rm", "own DNS servers per service are not built yet"),
    ("--dns-option", "DNS options of services are not built yet"),
    ("--dns-option-add", "DNS options of services are not built yet"),
    ("--dns-option-rm", "DNS options of services are not built yet"),
    ("--dns-search", "DNS search domains of services are not built yet"),
    ("--dns-search-add", "DNS search domains of services are not built yet"),
    ("--dns-search-rm", "DNS search domains of services are not built yet"),
    (
        "--host-add",
        "extra hosts of services are not built yet: give the service an alias with --network name=…,alias=…",
    ),
    ("--host-rm", "extra hosts of services are not built yet"),
    ("--generic-resource", "generic resources are not built yet: label nodes, and use --constraint"),
    ("--generic-resource-add", "generic resources are not built yet"),
    ("--generic-resource-rm", "generic resources are not built yet"),
    ("--group", "supplementary groups are not built yet: use --user UID:GID"),
    ("--group-add", "supplementary groups are not built yet"),
    ("--group-rm", "supplementary groups are not built yet"),
    ("--init", "an init process in the container is not built yet"),
    ("--isolation", "Windows' isolation is not in Shoal"),
    ("--credential-spec", "Windows' credential specs are not in Shoal"),
    ("--log-driver", "log drivers are not built yet: logs are kept on the host, and 'service logs' reads them"),
    ("--log-opt", "log drivers are not built yet"),
    ("--max-concurrent", "jobs are not built yet"),
    ("--no-resolve-image", "Shoal does not resolve tags to digests: hosts pull what the reference says"),
    ("--read-only", "read-only root file systems of services are not built yet"),
    ("--stop-signal", "own stop signals of services are not built yet: the image's STOPSIGNAL is used, or SIGTERM"),
    ("--sysctl", "sysctls per service are not built yet"),
    ("--sysctl-add", "sysctls per service are not built yet"),
    ("--sysctl-rm", "sysctls per service are not built yet"),
    ("--tty", "terminals of services are not built yet"),
    ("-t", "terminals of services are not built yet"),
    ("--ulimit", "ulimits are not built yet: see --limit-pids, --limit-memory and --limit-cpu"),
    ("--ulimit-add", "ulimits are not built yet"),
    ("--ulimit-rm", "ulimits are not built yet"),
    ("--cap-add", "own capabilities of services are not built yet"),
    ("--cap-drop", "own capabilities of services are not built yet"),
    ("--oom-score-adj", "OOM scores are not built yet: see --limit-memory"),
    ("--memory-swap", "swap limits are not built yet: see --limit-memory"),
    ("--memory-swappiness", "swap limits are not built yet: see --limit-memory"),
    ("--with-registry-auth", "passing on a registry's credentials is not built yet: log in on every host"),
    ("--filter", "filters are not built yet: use --format json and jq"),
    ("-f", "filters are not built yet: use --format json and jq"),
    ("--no-resolve", "ids are shown beside names with --format json"),
    ("--no-task-ids", "task ids are not shown: names are unique"),
    ("--details", "details of log drivers are not built yet"),
    ("--pretty", "inspect prints JSON; the listing and 'service ps' are for reading"),
    ("--config-from", "network configurations apart from networks are not built yet"),
    ("--config-only", "network configurations apart from networks are not built yet"),
    ("--ingress", "the ingress network is not built yet"),
    ("--ipam-driver", "own IPAM drivers are not built yet: addresses come from the managers"),
    ("--ipam-opt", "own IPAM drivers are not built yet"),
    ("--ipv4", "a network has IPv4 unless its only --subnet is an IPv6 one"),
    ("--autolock", "locking of managers is not built yet"),
    ("--cert-expiry", "own certificate lifetimes are not built yet"),
    ("--dispatcher-heartbeat", "heartbeats are not adjustable yet"),
    ("--external-ca", "external CAs are not built yet: Shoal makes its own"),
    ("--force-new-cluster", "recovery of a lost quorum is not built yet"),
    ("--listen-addr", "the daemon's listening address is set where the daemon is started: shoal daemon --help"),
    ("--data-path-addr", "VXLAN uses the advertised address: see --advertise-addr"),
    ("--max-snapshots", "snapshots are not adjustable yet"),
    ("--snapshot-interval", "snapshots are not adjustable yet"),
    ("--task-history-limit", "the length of task histories is not adjustable yet"),
    ("--all-tags", "pull one tag at a time"),
    ("-a", "one at a time, or all: see --help"),
    ("--disable-content-trust", "content trust is not built yet: use a digest, as in web@sha256:…"),
    ("--platform", "an image is pulled for the platform of the host"),
    ("--message", "commit messages of images are not built yet"),
    ("-m", "commit messages of images are not built yet"),
    ("--digests", "digests are not listed yet"),
    ("--no-prune", "layers that no image needs are always removed"),
];

/// Docker's flags of `run` and `create`, where they mean something else than those of services.
const RUN_FLAGS: &[(&str, &str)] = &[
    ("--annotation", "annotations are not in Shoal: use --label"),
    ("--attach", "choosing streams is not in Shoal: -i is standard input, the others are always shown without -d"),
    ("-a", "choosing streams is not in Shoal: -i is standard input, the others are always shown without -d"),
    ("--blkio-weight", "limits of block devices are not in Shoal"),
    ("--blkio-weight-device", "limits of block devices are not in Shoal"),
    ("--cgroup-parent", "the parent of all containers' cgroups is the daemon's to choose"),
    ("--cgroupns", "own choices of a cgroup namespace are not in Shoal: each container has one of its own"),
    ("--cidfile", "files of ids are not in Shoal: run -d prints the id, and --name gives a name"),
    ("--cpu-count", "Windows' limits are not in Shoal: see --cpus"),
    ("--cpu-percent", "Windows' limits are not in Shoal: see --cpus"),
    ("--cpu-period", "own periods are not in Shoal: see --cpus"),
    ("--cpu-quota", "own quotas are not in Shoal: see --cpus"),
    ("--cpu-rt-period", "real-time limits are not in Shoal: see --cpus"),
    ("--cpu-rt-runtime", "real-time limits are not in Shoal: see --cpus"),
    ("--cpu-shares", "relative weights are not in Shoal: see --cpus"),
    ("-c", "relative weights are not in Shoal: see --cpus"),
    ("--cpuset-cpus", "binding to cores is not in Shoal: see --cpus"),
    ("--cpuset-mems", "binding to memory nodes is not in Shoal: see --memory"),
    ("--device", "single devices are not in Shoal yet: --privileged gives all"),
    ("--device-cgroup-rule", "rules of devices are not in Shoal: --privileged gives all"),
    ("--device-read-bps", "limits of block devices are not in Shoal"),
    ("--device-read-iops", "limits of block devices are not in Shoal"),
    ("--device-write-bps", "limits of block devices are not in Shoal"),
    ("--device-write-iops", "limits of block devices are not in Shoal"),
    ("--domainname", "NIS domain names are not in Shoal: give --hostname a whole name, as in db.example.com"),
    ("--gpus", "GPUs are not in Shoal: --privileged gives all devices"),
    ("--group-add", "further groups are not in Shoal yet: those of the image's /etc/group are given, see --user"),
    ("--init", "an init process in the container is not in Shoal yet: the command is its first process"),
    ("--io-maxbandwidth", "Windows' limits are not in Shoal"),
    ("--io-maxiops", "Windows' limits are not in Shoal"),
    ("--ipc", "sharing of IPC namespaces is not in Shoal: each container has one of its own"),
    ("--kernel-memory", "limits of kernel memory are not in Shoal: see --memory"),
    ("--label-file", "files of labels are not in Shoal yet: repeat --label"),
    ("--link-local-ip", "further link-local addresses are not in Shoal"),
    ("--log-driver", "log drivers are not in Shoal yet: logs are kept on the host, and 'shoal logs' reads them"),
    ("--log-opt", "log drivers are not in Shoal yet"),
    ("--memory-swap", "swap limits are not in Shoal yet: see --memory"),
    ("--memory-swappiness", "swap limits are not in Shoal yet: see --memory"),
    ("--memory-reservation", "soft limits are not in Shoal: see --memory"),
    ("--oom-kill-disable", "containers without an OOM killer are not in Shoal: see --memory"),
    ("--oom-score-adj", "OOM scores are not in Shoal yet: see --memory"),
    ("--pid", "sharing of PID namespaces is not in Shoal: each container has one of its own"),
    ("-q", "nothing is printed while an image is pulled that could be left out"),
    ("--quiet", "nothing is printed while an image is pulled that could be left out"),
    ("--runtime", "other runtimes are not in Shoal: it has one of its own"),
    ("--security-opt", "own security options are not in Shoal: see --cap-add, --cap-drop and --privileged"),
    ("--shm-size", "own sizes of /dev/shm are not in Shoal yet: mount one with --tmpfs"),
    ("--storage-opt", "limits of root file systems are not in Shoal"),
    ("--sysctl", "sysctls of containers are not in Shoal yet"),
    ("--ulimit", "ulimits are not in Shoal yet: see --pids-limit, --memory and --cpus"),
    ("--use-api-socket", "Docker's API is not in Shoal"),
    ("--userns", "user namespaces of containers are not in Shoal yet"),
    ("--uts", "sharing of UTS namespaces is not in Shoal: each container has one of its own"),
    ("--volume-driver", "volume drivers are not in Shoal: see --volume and --mount"),
    ("--volumes-from", "taking over volumes is not in Shoal yet: name the volumes with --volume"),
];

/// Docker's verbs that are not here yet.
const VERBS: &[(&str, &str)] = &[
    ("images", "use 'shoal image ls'"),
    ("pull", "use 'shoal image pull'"),
    ("load", "use 'shoal image load'"),
    ("import", "use 'shoal image import'"),
    ("rmi", "use 'shoal image rm'"),
    ("push", "pushing images is not built yet"),
    ("build", "building images is not built yet: build elsewhere, and 'shoal image load' or pull"),
    ("save", "saving images is not built yet"),
    ("tag", "tagging images is not built yet: load or import under the name that is wanted"),
    ("commit", "making images of containers is not in Shoal yet: build elsewhere, and 'shoal image load' or pull"),
    ("cp", "copying files is not in Shoal yet: use 'shoal exec -i CONTAINER tar', or mount with --volume"),
    ("diff", "what a container changed in its files is not shown yet"),
    ("export", "exporting file systems is not in Shoal yet: use 'shoal exec CONTAINER tar -c …'"),
    ("pause", "pausing is not in Shoal yet: see 'shoal stop'"),
    ("unpause", "pausing is not in Shoal yet"),
    ("prune", "pruning is not in Shoal yet: remove by name"),
    ("update", "changing the limits of a container is not in Shoal yet: remove it, and run it anew"),
    ("buildx", "building images is not in Shoal yet: build elsewhere, and 'shoal image load' or pull"),
    ("builder", "building images is not in Shoal yet"),
    ("bake", "building images is not in Shoal yet"),
    ("checkpoint", "checkpoints are not in Shoal"),
    ("manifest", "manifests are the registry's: Shoal pulls what fits the host"),
    ("plugin", "plugins are not in Shoal"),
    ("search", "searching registries is not in Shoal: name the image"),
    ("trust", "content trust is not in Shoal: use a digest, as in web@sha256:…"),
    ("history", "image histories are not built yet"),
    ("stack", "stacks are not built yet: create networks and services one by one"),
    ("compose", "Compose files are not built yet: create networks and services one by one"),
    ("secret", "secrets are not built yet"),
    ("config", "configs are not built yet"),
    ("volume", "volumes are made when a container first names one; listing and removing them is not built yet"),
    ("events", "events are not built yet: 'shoal service ps' shows what happened"),
    ("login", "registry credentials are not built yet"),
    ("logout", "registry credentials are not built yet"),
    ("system", "see 'shoal info'"),
    ("context", "contexts are not built yet: see --host"),
    ("rollback", "rollback is not built yet: 'shoal service update --image' with the former image"),
    ("ca", "rotating the CA is not built yet"),
    ("unlock", "locking of managers is not built yet"),
    ("unlock-key", "locking of managers is not built yet"),
];

/// The verb of a command line, without `container` before it.
pub(crate) fn verb(line: impl IntoIterator<Item = String>) -> Option<String> {
    let mut words = line.into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-H" | "--host" | "--socket" => drop(words.next()),
            "container" => {}
            flag if flag.starts_with('-') => {}
            _ => return Some(word),
        }
    }
    None
}

/// Both what was typed and the sentence, if what clap did not know is known to Docker.
pub(crate) fn sentence(e: &clap::Error, verb: Option<&str>) -> Option<String> {
    let by_hand = matches!(verb, Some("run" | "create"));
    let (kind, tables) = match e.kind() {
        ErrorKind::UnknownArgument if by_hand => (ContextKind::InvalidArg, [RUN_FLAGS, FLAGS]),
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, [FLAGS, &[]]),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, [VERBS, &[]]),
        _ => return None,
    };
    let Some(ContextValue::String(given)) = e.get(kind) else { return None };
    // clap names a value too where one was glued on: `--publish=80:80`.
    let name = given.split('=').next().unwrap_or(given);
    tables.into_iter().flatten().find(|(known, _)| *known == name).map(|(known, why)| format!("{known}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;

    fn said(line: &str) -> String {
        let e = Cli::try_parse_from(line.split(' ')).expect_err("not built");
        sentence(&e, verb(line.split(' ').map(str::to_owned)).as_deref())
            .unwrap_or_else(|| panic!("no sentence for {line}: {e}"))
    }

    #[test]
    fn what_docker_has_and_shoal_has_not_is_said_in_a_sentence() {
        for (line, part) in [
            ("shoal service create --mount type=volume nginx", "not built yet"),
            ("shoal service create --mount=type=volume nginx", "not built yet"),
            ("shoal service create -t nginx", "not built yet"),
            ("shoal service create --secret s nginx", "not built yet"),
            ("shoal service update --force web", "not built yet"),
            ("shoal service ls --filter name=x", "jq"),
            ("shoal stack deploy -c f s", "not built yet"),
            ("shoal run --init busybox", "not in Shoal yet"),
            ("shoal run --ulimit nofile=1 busybox", "--pids-limit"),
            ("shoal run --memory-swap 1g busybox", "see --memory"),
            ("shoal create --oom-score-adj 1 busybox", "see --memory"),
            ("shoal service create --memory-swap 1g nginx", "see --limit-memory"),
            ("shoal network create --ipv4=false --ipv6 n", "a network has IPv4 unless"),
            ("shoal -H /s.sock container create --device /dev/fuse busybox", "--privileged"),
            ("shoal service create --ulimit nofile=1 nginx", "--limit-pids"),
            ("shoal cp a:/f .", "exec"),
            ("shoal container commit a", "not in Shoal yet"),
            ("shoal pause a", "not in Shoal yet"),
        ] {
            assert!(said(line).contains(part), "{line}: {}", said(line));
        }
    }

    /// Of Docker 28.
    const RUN: &str = "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent \
        cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus \
        cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps device-read-iops \
        device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint env \
        env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval \
        health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc \
        isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory \
        memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck \
        oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only \
        restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit \
        use-api-socket user userns uts volume volume-driver volumes-from workdir";

    #[test]
    fn every_flag_of_dockers_run_is_there_or_has_its_sentence() {
        use clap::CommandFactory;
        let cli = Cli::command();
        let run = cli.find_subcommand("run").expect("there is one");
        for flag in RUN.split_whitespace() {
            let is_there = run.get_arguments().any(|a| a.get_long() == Some(flag));
            let long = format!("--{flag}");
            assert_ne!(
                is_there,
                RUN_FLAGS.iter().any(|(f, _)| *f == long) || !is_there && FLAGS.iter().any(|(f, _)| *f == long),
                "{long}"
            );
        }
    }

    #[test]
    fn nothing_is_called_unbuilt_that_is_built() {
        use clap::CommandFactory;
        let cli = Cli::command();
        let service = cli.find_subcommand("service").expect("there is one");
        for verb in ["create", "update"] {
            let command = service.find_subcommand(verb).expect("there is one");
            for long in command.get_arguments().filter_map(|a| a.get_long()) {
                assert!(!FLAGS.iter().any(|(f, _)| *f == format!("--{long}")), "{verb} --{long}");
            }
        }
        for (verb, _) in VERBS {
            assert!(cli.find_subcommand(verb).is_none(), "{verb}");
        }
    }
}
