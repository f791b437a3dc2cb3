use super::*;
use crate::args::{Cli, Command, service::Service};
use clap::Parser;

fn command(line: &str) -> Service {
    let words = crate::units::words(&format!("shoal service {line}")).expect("words").0;
    match Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}")).command {
        Command::Service(s) => s,
        other => panic!("{other:?}"),
    }
}

fn created(line: &str) -> Result<pb::ServiceSpec, Failure> {
    match command(&format!("create {line}")) {
        Service::Create(c) => create(&c, 7),
        other => panic!("{other:?}"),
    }
}

fn updated(mut spec: pb::ServiceSpec, line: &str) -> Result<pb::ServiceSpec, Failure> {
    match command(&format!("update {line} web")) {
        Service::Update(u) => {
            let gone = u.network_rm.clone();
            update(&mut spec, &u, &gone).map(|()| spec)
        }
        other => panic!("{other:?}"),
    }
}

fn web() -> pb::ServiceSpec {
    created("--name web nginx").expect("accepted")
}

/// One flag each: what it changes, and nothing else.
#[test]
fn each_flag_of_create_sets_its_field_alone() {
    type Change = fn(&mut pb::ServiceSpec);
    fn c(s: &mut pb::ServiceSpec) -> &mut pb::ContainerSpec {
        s.container.as_mut().expect("a container")
    }
    fn r(s: &mut pb::ServiceSpec) -> &mut pb::Resources {
        s.resources.as_mut().expect("resources")
    }
    let table: &[(&str, Change)] = &[
        ("", |_| ()),
        ("--replicas 3", |s| s.mode = Some(Mode::Replicas(3))),
        ("--replicas=0", |s| s.mode = Some(Mode::Replicas(0))),
        ("--mode global", |s| s.mode = Some(Mode::Global(true))),
        ("--mode replicated", |_| ()),
        ("--endpoint-mode dnsrr", |s| s.endpoint_mode = "dnsrr".into()),
        ("--network blue", |s| s.networks = vec![pb::NetworkAttachment { network: "blue".into(), aliases: vec![] }]),
        ("--network name=blue,alias=db --network red", |s| {
            s.networks = vec![
                pb::NetworkAttachment { network: "blue".into(), aliases: vec!["db".into()] },
                pb::NetworkAttachment { network: "red".into(), aliases: vec![] },
            ];
        }),
        ("-e A=1 --env B=x=y", |s| c(s).env = [("A".into(), "1".into()), ("B".into(), "x=y".into())].into()),
        ("--constraint node.role==worker --constraint node.labels.disk!=hdd", |s| {
            s.placement.as_mut().expect("a placement").constraints =
                vec!["node.role==worker".into(), "node.labels.disk!=hdd".into()];
        }),
        ("--restart-condition on-failure", |s| s.restart.as_mut().expect("some").condition = "on-failure".into()),
        ("--restart-delay 1m30s", |s| s.restart.as_mut().expect("some").delay_ms = 90_000),
        ("--restart-max-attempts 4", |s| s.restart.as_mut().expect("some").max_attempts = 4),
        ("--restart-window 1h", |s| s.restart.as_mut().expect("some").window_ms = 3_600_000),
        ("--limit-cpu 0.5", |s| r(s).limits.as_mut().expect("some").nano_cpus = 500_000_000),
        ("--limit-memory 512m", |s| r(s).limits.as_mut().expect("some").memory_bytes = 512 << 20),
        ("--limit-pids 100", |s| r(s).pids_limit = 100),
        ("--reserve-cpu 2", |s| r(s).reservations.as_mut().expect("some").nano_cpus = 2_000_000_000),
        ("--reserve-memory 1g", |s| r(s).reservations.as_mut().expect("some").memory_bytes = 1 << 30),
        ("-l tier=front", |s| s.labels = [("tier".into(), "front".into())].into()),
        ("--container-label a", |s| c(s).labels = [("a".into(), String::new())].into()),
        ("--hostname h1", |s| c(s).hostname = Some("h1".into())),
        ("-w /srv", |s| c(s).workdir = Some("/srv".into())),
        ("-u 1000:1000", |s| c(s).user = Some("1000:1000".into())),
        ("--entrypoint '/bin/sh -c'", |s| {
            c(s).has_entrypoint = true;
            c(s).entrypoint = vec!["/bin/sh".into(), "-c".into()];
        }),
        ("--stop-grace-period 2s", |s| c(s).stop_grace_ms = 2000),
        ("--health-cmd 'curl -f localhost' --health-interval 1s --health-retries 2", |s| {
            let test = ["CMD-SHELL", "curl -f localhost"].map(String::from).to_vec();
            c(s).health = Some(pb::HealthCheck { test, interval_ms: 1000, retries: 2, ..Default::default() });
        }),
        ("--no-healthcheck", |s| {
            c(s).health = Some(pb::HealthCheck { test: vec!["NONE".into()], ..Default::default() });
        }),
        ("--replicas-max-per-node 2", |s| s.placement.as_mut().expect("some").max_replicas_per_node = 2),
        ("--update-parallelism 0", |s| s.update.as_mut().expect("some").parallelism = 0),
        ("--update-delay 10s", |s| s.update.as_mut().expect("some").delay_ms = 10_000),
        ("--service-port http=80", |s| {
            c(s).ports = vec![pb::NamedPort { name: "http".into(), port: 80, protocol: "tcp".into() }];
        }),
        ("--detach -q", |_| ()),
        ("--detach=true", |_| ()),
    ];
    for (flags, change) in table {
        let mut want = web();
        change(&mut want);
        assert_eq!(created(&format!("--name web {flags} nginx")), Ok(want), "{flags}");
    }
}

#[test]
fn what_follows_the_image_is_the_command_whatever_it_looks_like() {
    let spec = created("--name web busybox sleep -d --replicas 9").expect("accepted");
    assert_eq!(
        spec.container.map(|c| c.args),
        Some(vec!["sleep".into(), "-d".into(), "--replicas".into(), "9".into()])
    );
    assert_eq!(spec.mode, Some(Mode::Replicas(1)));
}

#[test]
fn a_service_without_a_name_gets_one() {
    assert!(created("nginx").expect("accepted").name.parse::<shoal_common::Name>().is_ok());
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    for (flags, field) in [
        ("--mode global --replicas 3", "replicas"),
        ("--workdir srv", "workdir"),
        ("--hostname a_b-", "hostname"),
        ("--network name=blue,alias=A", "network alias"),
        ("--replicas 60000", "replicas"),
        ("-e =x", "env"),
        ("--service-port a=1 --service-port a=2", "service-port: \"a\""),
    ] {
        let f = created(&format!("--name web {flags} nginx")).expect_err(flags);
        assert!(f.message.contains(field), "{flags}: {f}");
    }
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let mut old = created(
        "--name web -e A=1 -e B=2 -l x=1 --constraint node.role==worker --hostname h --replicas 3 \
         --service-port http=80 --limit-memory 1g --container-label k=v nginx:1 serve",
    )
    .expect("accepted");
    old.networks = vec![pb::NetworkAttachment { network: "net-4".into(), aliases: vec![] }];
    assert_eq!(updated(old.clone(), ""), Ok(old.clone()));

    let new = updated(
        old.clone(),
        "--image nginx:2 --args 'serve --fast' --env-add C=3 --env-rm A --label-add y=2 --label-rm x \
         --constraint-rm node.role==worker --constraint-add node.hostname==w1 --network-rm net-4 --network-add red \
         --replicas 5 --service-port-rm http --service-port-add dns=53/udp --hostname '' --limit-cpu 1 \
         --container-label-rm k --restart-condition none --update-parallelism 2",
    )
    .expect("accepted");
    let mut want = old;
    want.mode = Some(Mode::Replicas(5));
    want.labels = [("y".to_owned(), "2".to_owned())].into();
    want.networks = vec![pb::NetworkAttachment { network: "red".into(), aliases: vec![] }];
    want.placement = Some(pb::Placement { constraints: vec!["node.hostname==w1".into()], max_replicas_per_node: 0 });
    want.restart.as_mut().expect("some").condition = "none".into();
    want.update.as_mut().expect("some").parallelism = 2;
    want.resources.as_mut().and_then(|r| r.limits.as_mut()).expect("some").nano_cpus = 1_000_000_000;
    let c = want.container.as_mut().expect("some");
    c.image = "nginx:2".into();
    c.args = vec!["serve".into(), "--fast".into()];
    c.env = [("B".to_owned(), "2".to_owned()), ("C".to_owned(), "3".to_owned())].into();
    c.ports = vec![pb::NamedPort { name: "dns".into(), port: 53, protocol: "udp".into() }];
    c.hostname = None;
    c.labels.clear();
    assert_eq!(new, want);
}

#[test]
fn taking_away_what_is_not_there_is_said() {
    for flags in
        ["--label-rm x", "--constraint-rm node.role==worker", "--service-port-rm http", "--container-label-rm a"]
    {
        assert!(updated(web(), flags).is_err(), "{flags}");
    }
}

#[test]
fn a_global_service_has_no_replicas_to_scale() {
    let mut global = created("--name web --mode global nginx").expect("accepted");
    assert!(scale(&mut global, 3).is_err());
    assert!(scale(&mut web(), 3).is_ok());
}
