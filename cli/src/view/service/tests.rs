use super::*;
use std::collections::BTreeMap;

fn web() -> pb::Service {
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let port = |published, mode: &str| pb::Publish { published, target: 80, protocol: "tcp".into(), mode: mode.into() };
    let container = pb::ContainerSpec {
        image: "demo:1".into(),
        args: vec!["serve".into()],
        env: map("A", "b"),
        hostname: Some("box".into()),
        labels: map("c", "d"),
        stop_grace_ms: 10_000,
        ports: vec![pb::NamedPort { name: "http".into(), port: 80, protocol: "tcp".into() }],
        health: Some(pb::HealthCheck { test: vec!["NONE".into()], interval_ms: 1, ..Default::default() }),
        ..Default::default()
    };
    let spec = pb::ServiceSpec {
        name: "web".into(),
        labels: map("a", "1"),
        mode: Some(pb::service_spec::Mode::Replicas(3)),
        endpoint_mode: "vip".into(),
        networks: vec![pb::NetworkAttachment { network: "net-4".into(), aliases: vec!["www".into()] }],
        container: Some(container),
        resources: Some(pb::Resources {
            limits: Some(pb::Amount { nano_cpus: 500_000_000, memory_bytes: 1024 }),
            reservations: None,
            pids_limit: 7,
        }),
        restart: Some(pb::RestartPolicy { condition: "any".into(), delay_ms: 5_000, max_attempts: 2, window_ms: 1 }),
        placement: Some(pb::Placement { constraints: vec!["node.role==worker".into()], max_replicas_per_node: 1 }),
        update: Some(pb::UpdatePolicy { parallelism: 1, delay_ms: 2 }),
        publish: vec![port(0, "ingress")],
    };
    pb::Service {
        id: 12,
        spec: Some(spec),
        version: 30,
        spec_version: 20,
        vips: vec![pb::Vip { network: 4, network_name: "blue".into(), v4: "10.0.1.2".into(), v6: "fd00::2".into() }],
        created_ms: 1_000,
        updated_ms: 2_000,
        running: 2,
        wanted: 3,
        ports: vec![port(30_000, "ingress"), port(8080, "host")],
    }
}

#[test]
fn a_row_has_dockers_names_and_text_only() {
    let want = json!({
        "ID": "svc-12", "Name": "web", "Mode": "replicated", "Replicas": "2/3", "Image": "demo:1",
        "Ports": "*:30000->80/tcp",
    });
    assert_eq!(super::super::value(&row(&web())), want);
}

#[test]
fn an_inspected_one_has_dockers_shape_and_ours_beside_it() {
    let spec = json!({ "Mode": "vip", "Ports": [
        { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 0, "PublishMode": "ingress" },
    ] });
    let want = json!({
        "ID": "svc-12",
        "Version": { "Index": 30 },
        "CreatedAt": "1970-01-01T00:00:01.000Z",
        "UpdatedAt": "1970-01-01T00:00:02.000Z",
        "Spec": {
            "Name": "web",
            "Labels": { "a": "1" },
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "demo:1", "Args": ["serve"], "Env": ["A=b"], "Hostname": "box", "Labels": { "c": "d" },
                    "StopGracePeriod": 10_000_000_000_u64,
                    "Healthcheck": { "Test": ["NONE"], "Interval": 1_000_000, "Timeout": 0, "StartPeriod": 0,
                                     "StartInterval": 0, "Retries": 0 },
                    "ServicePorts": [{ "Name": "http", "Port": 80, "Protocol": "tcp" }],
                },
                "Resources": {
                    "Limits": { "NanoCPUs": 500_000_000, "MemoryBytes": 1024, "Pids": 7 },
                    "Reservations": { "NanoCPUs": 0, "MemoryBytes": 0 },
                },
                "RestartPolicy": {
                    "Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 2, "Window": 1_000_000,
                },
                "Placement": { "Constraints": ["node.role==worker"], "MaxReplicas": 1 },
                "Networks": [{ "Target": "net-4", "Aliases": ["www"] }],
            },
            "Mode": { "Replicated": { "Replicas": 3 } },
            "UpdateConfig": { "Parallelism": 1, "Delay": 2_000_000 },
            "EndpointSpec": spec,
        },
        "Endpoint": {
            "Spec": spec,
            "Ports": [
                { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30_000, "PublishMode": "ingress" },
                { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host" },
            ],
            "VirtualIPs": [{ "NetworkID": "net-4", "Network": "blue", "Addr": "10.0.1.2", "IPv6": "fd00::2" }],
        },
        "SpecVersion": { "Index": 20 }, "Running": 2, "Wanted": 3,
    });
    assert_eq!(inspected(&web()), want);
}

#[test]
fn a_global_one_has_no_number_of_replicas() {
    let mut all = web();
    if let Some(spec) = &mut all.spec {
        spec.mode = Some(pb::service_spec::Mode::Global(true));
    }
    assert_eq!((row(&all).mode.as_str(), inspected(&all)["Spec"]["Mode"].clone()), ("global", json!({ "Global": {} })));
}
