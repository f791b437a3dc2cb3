use super::*;
use crate::fixture::{BLUE, GREEN, STARTING, VAULT, assignment, endpoint, linked};
use crate::{TTL_SECONDS, UDP_PAYLOAD};
use hickory_proto::{
    op::{Message, MessageType, OpCode},
    rr::{DNSClass, RData},
};
use proptest::prelude::*;
use shoal_common::{NetworkId, TaskId, container::ContainerLink};
use std::collections::BTreeSet;

fn scope(networks: &[NetworkId]) -> Scope {
    Scope { task: None, networks: networks.to_vec(), servers: vec![] }
}

fn query(name: &str, wanted: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), wanted));
    message
}

fn ask_as(scope: &Scope, message: &Message) -> Option<Message> {
    match answer(&message.to_vec().unwrap(), Transport::Udp, scope, &Zone::of(&assignment()), 7) {
        Outcome::Reply(bytes) => {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!((reply.id, reply.message_type), (message.id, MessageType::Response));
            Some(reply)
        }
        Outcome::Forward => None,
        Outcome::Drop => panic!("dropped: {message}"),
    }
}

/// The reply in brief: sorted record data, `NODATA`, the name of an error, or `forward`.
fn brief(scope: &Scope, name: &str, wanted: RecordType) -> String {
    let Some(reply) = ask_as(scope, &query(name, wanted)) else { return "forward".into() };
    assert!(reply.recursion_available);
    if reply.response_code != ResponseCode::NoError {
        assert!(reply.answers.is_empty());
        let denied = reply.response_code == ResponseCode::NXDomain;
        assert_eq!(reply.authorities.len(), usize::from(denied), "a denial says how long it holds");
        return format!("{:?}", reply.response_code);
    }
    assert!(reply.authoritative);
    if reply.answers.is_empty() {
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        return "NODATA".into();
    }
    let mut data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    assert!(reply.answers.iter().all(|r| r.ttl == TTL_SECONDS && r.name == reply.queries[0].name));
    data.sort();
    data.join(" ")
}

#[test]
fn a_link_is_known_to_its_container_alone_and_prevails() {
    let link = |container: &str, alias: &str| ContainerLink {
        container: container.parse().unwrap(),
        alias: alias.parse().unwrap(),
    };
    let mut known = assignment();
    let mut mydb = endpoint(BLUE, 0, "mydb", "10.0.1.77", true);
    mydb.service = None;
    known.endpoints.insert((BLUE, TaskId(77)), mydb.into());
    known.containers.insert(TaskId(78), linked(BLUE, vec![link("mydb", "db"), link("nobody", "web")]).into());
    let zone = Zone::of(&known);
    let told = |task: u64, networks: &[NetworkId], name: &str| {
        let scope = Scope { task: Some(TaskId(task)), ..scope(networks) };
        let asked = query(name, RecordType::A).to_vec().unwrap();
        let Outcome::Reply(bytes) = answer(&asked, Transport::Udp, &scope, &zone, 7) else { panic!("{name}") };
        let reply = Message::from_vec(&bytes).unwrap();
        let mut data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
        data.sort();
        data.join(" ")
    };
    for name in ["db.", "dB.", "db.blue.", "mydb."] {
        assert_eq!(told(78, &[GREEN, BLUE], name), "10.0.1.77", "{name}");
    }
    let service = "10.0.1.21 10.0.1.22 10.0.1.23";
    assert_eq!(told(79, &[BLUE], "db."), service, "another container");
    assert_eq!(told(78, &[BLUE], "web."), "10.0.1.2", "what the link leads to is not there");
    assert_eq!(told(78, &[GREEN], "db."), "", "it left the network");
}

#[test]
fn every_name_has_its_answer() {
    use RecordType::{A, AAAA, ANY, HTTPS, MX, PTR, SRV, TXT};
    let blue = scope(&[BLUE]);
    for (name, wanted, expected) in [
        // A service by its virtual addresses, by whatever case and alias.
        ("web.", A, "10.0.1.2"),
        ("WeB.", A, "10.0.1.2"),
        ("web.", AAAA, "fd00:1::2"),
        ("web.", ANY, "10.0.1.2"),
        ("www.", A, "10.0.1.2"),
        ("web.blue.", A, "10.0.1.2"),
        ("idle.", A, "10.0.1.3"),
        // A dnsrr service by its tasks.
        ("db.", A, "10.0.1.21 10.0.1.22 10.0.1.23"),
        ("db.blue.", A, "10.0.1.21 10.0.1.22 10.0.1.23"),
        // The tasks that serve.
        ("tasks.web.", A, "10.0.1.11 10.0.1.12"),
        ("tasks.web.", AAAA, "fd00:1::11 fd00:1::12"),
        ("tasks.www.", A, "10.0.1.11 10.0.1.12"),
        ("tasks.web.blue.", A, "10.0.1.11 10.0.1.12"),
        // One task.
        ("web.1.", A, "10.0.1.11"),
        ("web.1.blue.", AAAA, "fd00:1::11"),
        ("frontend.", A, "10.0.1.11"),
        ("host.example.com.", A, "10.0.1.11"),
        // There, but not with that type; or there, but nobody serves.
        ("web.", TXT, "NODATA"),
        ("web.", HTTPS, "NODATA"),
        ("web.", SRV, "NODATA"),
        ("db.", AAAA, "NODATA"),
        ("idle.", AAAA, "NODATA"),
        ("tasks.idle.", A, "NODATA"),
        ("gone.", A, "NODATA"),
        ("tasks.gone.", A, "NODATA"),
        ("web.3.", A, "NODATA"),
        // Not there, and nobody else is told that it was asked for.
        ("nope.", A, "NXDomain"),
        ("nope.", TXT, "NXDomain"),
        ("nope.", SRV, "NXDomain"),
        ("nope.", MX, "NXDomain"),
        ("tasks.nope.blue.", A, "NXDomain"),
        ("web.9.blue.", A, "NXDomain"),
        ("web.node-9.blue.", A, "NXDomain"),
        ("blue.", A, "NXDomain"),
        ("tasks.", A, "NXDomain"),
        ("tasks.nope.", A, "NXDomain"),
        ("web.9.", A, "NXDomain"),
        ("web.node-9.", A, "NXDomain"),
        ("_http.", SRV, "NXDomain"),
        // Other networks are not seen.
        ("api.", A, "NXDomain"),
        ("safe.", A, "NXDomain"),
        // Services' ports.
        ("_http._tcp.web.", SRV, "0 0 8080 web.1. 0 0 8080 web.2."),
        ("_HTTP._tcp.tasks.web.blue.", SRV, "0 0 8080 web.1. 0 0 8080 web.2."),
        ("_http._tcp.web.", A, "NODATA"),
        ("_pg._tcp.gone.", SRV, "NODATA"),
        ("_http._udp.web.", SRV, "NXDomain"),
        ("_ftp._tcp.web.", SRV, "NXDomain"),
        ("_ftp._tcp.web.", TXT, "NXDomain"),
        ("_tcp.web.", SRV, "NXDomain"),
        ("_http._tcp.web.1.", SRV, "NXDomain"),
        ("_http._tcp.nope.", SRV, "NXDomain"),
        ("_http._tcp.tasks.nope.", SRV, "NXDomain"),
        ("_http._tcp.tasks.nope.blue.", SRV, "NXDomain"),
        // Addresses of ours.
        ("2.1.0.10.in-addr.arpa.", PTR, "web.blue."),
        ("11.1.0.10.in-addr.arpa.", PTR, "web.1.blue."),
        ("2.1.0.10.in-addr.arpa.", TXT, "NODATA"),
        ("99.1.0.10.in-addr.arpa.", PTR, "NXDomain"),
        ("localhost.", A, "127.0.0.1"),
        ("a.localhost.", AAAA, "::1"),
        // Somebody else's.
        (".", RecordType::NS, "forward"),
        ("example.com.", A, "forward"),
        ("web.example.com.", A, "forward"),
        ("web.com.", A, "forward"),
        ("tasks.google.com.", A, "forward"),
        ("_sip._udp.example.com.", SRV, "forward"),
        ("8.8.8.8.in-addr.arpa.", PTR, "forward"),
        ("11.2.0.10.in-addr.arpa.", PTR, "forward"),
        ("nope.green.", A, "forward"),
        // Below a network's name, and not borne here: blue is a top-level domain too.
        ("nope.blue.", A, "forward"),
        ("www.web.blue.", A, "forward"),
        ("a.b.c.blue.", A, "forward"),
        ("_http._tcp.nope.blue.", SRV, "forward"),
    ] {
        assert_eq!(brief(&blue, name, wanted), expected, "{name} {wanted}");
    }
    let v6 = Name::from("fd00:1::12".parse::<std::net::Ipv6Addr>().unwrap()).to_string();
    assert_eq!(brief(&blue, &v6, PTR), "web.2.blue.");
}

#[test]
fn a_container_on_two_networks_sees_both_in_their_order() {
    let mut shared = assignment();
    shared.endpoints.insert((BLUE, TaskId(70)), endpoint(BLUE, 9, "cache", "10.0.1.70", true).into());
    shared.endpoints.insert((GREEN, TaskId(71)), endpoint(GREEN, 9, "cache", "10.0.2.71", true).into());
    let zone = Zone::of(&shared);
    for (order, expected) in [([BLUE, GREEN], [10, 0, 1, 70]), ([GREEN, BLUE], [10, 0, 2, 71])] {
        let bytes = query("cache.", RecordType::A).to_vec().unwrap();
        let Outcome::Reply(reply) = answer(&bytes, Transport::Udp, &scope(&order), &zone, 0) else { panic!() };
        assert_eq!(Message::from_vec(&reply).unwrap().answers[0].data, RData::A(A(expected.into())));
    }
    let both = scope(&[GREEN, BLUE]);
    assert_eq!(brief(&both, "api.", RecordType::A), "10.0.2.2");
    assert_eq!(brief(&both, "web.", RecordType::A), "10.0.1.2");
    assert_eq!(brief(&both, "web.green.", RecordType::A), "forward");
}

#[test]
fn a_network_that_lacks_the_type_does_not_hide_one_that_has_it() {
    let mut shared = assignment();
    shared.endpoints.insert((GREEN, TaskId(71)), endpoint(GREEN, 9, "web.1", "10.0.2.71", true).into());
    let bytes = query("web.1.", RecordType::AAAA).to_vec().unwrap();
    let outcome = answer(&bytes, Transport::Udp, &scope(&[GREEN, BLUE]), &Zone::of(&shared), 0);
    let Outcome::Reply(reply) = outcome else { panic!("{outcome:?}") };
    assert_eq!(Message::from_vec(&reply).unwrap().answers[0].data.to_string(), "fd00:1::11");
}

#[test]
fn a_container_finds_itself_before_it_serves_and_others_do_not_find_it() {
    let itself = Scope { task: Some(STARTING), networks: vec![BLUE], servers: vec![] };
    assert_eq!(brief(&itself, "web.3.", RecordType::A), "10.0.1.13");
    assert_eq!(brief(&itself, "tasks.web.", RecordType::A), "10.0.1.11 10.0.1.12");
    let other = Scope { task: Some(TaskId(11)), networks: vec![BLUE], servers: vec![] };
    assert_eq!(brief(&other, "web.3.", RecordType::A), "NODATA");
}

#[test]
fn from_internal_networks_no_name_leaves_the_host() {
    assert_eq!(brief(&scope(&[VAULT]), "example.com.", RecordType::A), "Refused");
    assert_eq!(brief(&scope(&[VAULT]), "nope.vault.", RecordType::A), "NXDomain");
    assert_eq!(brief(&scope(&[VAULT]), "safe.", RecordType::A), "10.0.3.2");
    assert_eq!(brief(&scope(&[VAULT]), "safe.node-7.", RecordType::A), "10.0.3.11");
    assert_eq!(brief(&scope(&[VAULT, BLUE]), "example.com.", RecordType::A), "forward");
    assert_eq!(brief(&scope(&[NetworkId(99)]), "example.com.", RecordType::A), "Refused");
    assert_eq!(brief(&scope(&[]), "example.com.", RecordType::A), "forward");
}

#[test]
fn srv_answers_bring_the_addresses_along() {
    let reply = ask_as(&scope(&[BLUE]), &query("_http._tcp.web.", RecordType::SRV)).unwrap();
    let glue: BTreeSet<String> = reply.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
    let expected = ["web.1. 10.0.1.11", "web.1. fd00:1::11", "web.2. 10.0.1.12", "web.2. fd00:1::12"];
    assert_eq!(glue, expected.map(String::from).into());
}

#[test]
fn chance_decides_the_order_and_only_the_order() {
    let (zone, bytes) = (Zone::of(&assignment()), query("db.", RecordType::A).to_vec().unwrap());
    let mut first: BTreeSet<String> = BTreeSet::new();
    for seed in 0..100 {
        let once = answer(&bytes, Transport::Udp, &scope(&[BLUE]), &zone, seed);
        assert_eq!(once, answer(&bytes, Transport::Udp, &scope(&[BLUE]), &zone, seed));
        let Outcome::Reply(reply) = once else { panic!() };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.answers.len(), 3);
        first.insert(reply.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 3, "each task comes first sometimes");
}

/// A zone whose service `many` has so many tasks.
fn crowd(tasks: u64) -> Zone {
    let mut a = assignment();
    let mut many = a.services[&(BLUE, shoal_common::ServiceId(2))].clone();
    many.name = "many".parse().unwrap();
    many.ports = a.services[&(BLUE, shoal_common::ServiceId(1))].ports.clone();
    a.services.insert((BLUE, shoal_common::ServiceId(8)), many);
    for n in 0..tasks {
        let ip = format!("10.0.4.{}", n % 256);
        a.endpoints.insert((BLUE, TaskId(1000 + n)), endpoint(BLUE, 8, &format!("many.{n}"), &ip, true).into());
    }
    Zone::of(&a)
}

#[test]
fn a_reply_fits_what_the_client_takes_and_says_when_it_was_cut() {
    let zone = crowd(200);
    // Client's EDNS payload → the most bytes, whether it is cut.
    for (payload, transport, limit, cut) in [
        (None, Transport::Udp, 512, true),
        (Some(100), Transport::Udp, 512, true),
        (Some(800), Transport::Udp, 800, true),
        (Some(65_000), Transport::Udp, usize::from(UDP_PAYLOAD), true),
        (Some(800), Transport::Tcp, 65_535, false),
        (None, Transport::Tcp, 65_535, false),
    ] {
        let mut message = query("many.", RecordType::A);
        if let Some(payload) = payload {
            // Below 512, which the setter would raise, only by hand.
            message.set_edns(Edns::new());
            let mut bytes = message.to_vec().unwrap();
            let at = bytes.len() - 8;
            bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
            message = Message::from_vec(&bytes).unwrap();
        }
        let outcome = answer(&message.to_vec().unwrap(), transport, &scope(&[BLUE]), &zone, 3);
        let Outcome::Reply(bytes) = outcome else { panic!("{outcome:?}") };
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
        assert!(!cut || bytes.len() > limit - 30, "as many as fit: {}", bytes.len());
        assert_eq!((reply.truncation, reply.answers.len() == 200), (cut, !cut));
        assert_eq!(reply.edns.map(|e| e.max_payload()), payload.map(|_| UDP_PAYLOAD), "OPT answers OPT");
    }
}

#[test]
fn addresses_beside_srv_are_left_out_without_a_word_when_there_is_no_room() {
    let mut message = query("_http._tcp.many.", RecordType::SRV);
    message.set_edns(Edns::new());
    let outcome = answer(&message.to_vec().unwrap(), Transport::Udp, &scope(&[BLUE]), &crowd(14), 3);
    let Outcome::Reply(bytes) = outcome else { panic!("{outcome:?}") };
    let reply = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= 512 && !reply.truncation);
    assert_eq!(reply.answers.len(), 14);
    assert!(reply.additionals.len() < 14 && reply.edns.is_some());
}

#[test]
fn what_is_wrong_with_a_query_is_said() {
    let blue = scope(&[BLUE]);
    let code = |message: &Message| ask_as(&blue, message).map(|r| r.response_code);
    let good = query("web.", RecordType::A);

    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), Some(ResponseCode::NotImp));

    let mut two = good.clone();
    two.add_query(Query::query(Name::root(), RecordType::A));
    assert_eq!(code(&two), Some(ResponseCode::FormErr));
    assert_eq!(code(&Message::new(1, MessageType::Query, OpCode::Query)), Some(ResponseCode::FormErr));

    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), Some(ResponseCode::Refused));

    let mut future = good.clone();
    future.set_edns(Edns::new());
    future.edns.as_mut().unwrap().set_version(1);
    // 16 is BADSIG as well, where there is a signature.
    assert_eq!(code(&future).map(u16::from), Some(16));

    let zone = Zone::of(&assignment());
    let bytes = good.to_vec().unwrap();
    for short in 0..12 {
        assert_eq!(answer(&bytes[..short], Transport::Udp, &blue, &zone, 0), Outcome::Drop);
    }
    for cut in 12..bytes.len() {
        let Outcome::Reply(reply) = answer(&bytes[..cut], Transport::Udp, &blue, &zone, 0) else { panic!("{cut}") };
        assert_eq!(Message::from_vec(&reply).unwrap().response_code, ResponseCode::FormErr);
    }
}

#[test]
fn a_denial_is_made_by_a_zone_that_encloses_the_name() {
    for (name, owner) in [("nope.", "nope."), ("tasks.x.blue.", "blue."), ("9.1.0.10.in-addr.arpa.", "in-addr.arpa.")] {
        let reply = ask_as(&scope(&[BLUE]), &query(name, RecordType::PTR)).unwrap();
        assert_eq!(reply.authorities[0].name.to_string(), owner);
        let RData::SOA(soa) = &reply.authorities[0].data else { panic!("{reply}") };
        assert_eq!((soa.serial, soa.minimum), (42, TTL_SECONDS));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_answer_an_answer(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        plausible in any::<bool>(),
        seed in any::<u64>(),
    ) {
        if plausible && bytes.len() >= 12 {
            // A header that lets the rest be looked at.
            bytes[2] &= 0x87;
            let answers = bytes[12 % bytes.len()] & 1;
            bytes[4..12].copy_from_slice(&[0, 1, 0, answers, 0, 0, 0, 1]);
        }
        let zone = Zone::of(&assignment());
        for transport in [Transport::Udp, Transport::Tcp] {
            match answer(&bytes, transport, &scope(&[BLUE, GREEN]), &zone, seed) {
                Outcome::Reply(reply) => {
                    prop_assert!(bytes[2] & 0x80 == 0, "answered an answer");
                    prop_assert_eq!(&reply[..2], &bytes[..2]);
                    prop_assert!(reply[2] & 0x80 != 0 && reply.len() >= 12);
                }
                Outcome::Forward => prop_assert!(bytes[2] & 0x80 == 0),
                Outcome::Drop => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            }
        }
    }

    #[test]
    fn no_mangled_query_makes_it_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        seed in any::<u64>(),
    ) {
        let mut message = query("_http._tcp.web.", RecordType::SRV);
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        // A name by a pointer, and an option, for the changes to spoil.
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0, 6]);
        bytes.extend_from_slice(&[0, 3, 0, 2, 0xc0, 12]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let outcome = answer(&bytes, Transport::Udp, &scope(&[BLUE]), &Zone::of(&assignment()), seed);
        prop_assert_eq!(outcome == Outcome::Drop, bytes[2] & 0x80 != 0);
    }

    #[test]
    fn any_name_under_ours_stays_here(
        labels in proptest::collection::vec("[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?", 0..4),
        ours in prop_oneof![
            Just("web"), Just("blue"), Just("tasks.web"), Just("web.7"), Just("db.blue"), Just("web.7.blue"),
            Just("tasks.nope.blue"),
        ],
        wanted in any::<u16>(),
    ) {
        // `x.web` and `x.blue` are names in domains that could be anybody's; ours are the underscored ones.
        let name = labels.iter().map(|l| format!("_{l}.")).collect::<String>() + ours + ".";
        prop_assert_ne!(brief(&scope(&[BLUE]), &name, RecordType::from(wanted)), "forward");
    }
}
