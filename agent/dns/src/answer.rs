//! From a query to its answer.

use hickory_proto::{
    op::{Edns, Query, ResponseCode},
    rr::{
        DNSClass, Name, RecordType,
        rdata::{A, AAAA, SRV},
    },
};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    instance::{Instance, Offer},
    labels::Labels,
    query::{Asked, Parsed, parse},
    reply::{Addressee, Body, Content, Owner, Record, start_of_authority},
    reverse,
    scope::Scope,
    zone::{Entry, Found, FoundAddress, Zone},
};

/// How the query came; a reply by UDP may have to be cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Reply(Vec<u8>),
    /// It is about somebody else's name: an upstream server's to answer.
    Forward,
    /// It deserves no answer.
    Drop,
}

/// Decides about one query. `seed` is the chance by which answers are shuffled; the same seed gives the same reply.
pub fn answer(query: &[u8], transport: Transport, scope: &Scope, zone: &Zone, seed: u64) -> Outcome {
    let asked = match parse(query) {
        Parsed::Asked(asked) => asked,
        Parsed::Wrong(metadata, question, code) => {
            let to = Addressee { metadata, question: question.as_ref(), edns: None, transport };
            return to.reply(code, &Body::default()).map_or(Outcome::Drop, Outcome::Reply);
        }
        Parsed::Noise => return Outcome::Drop,
    };
    let Asked { metadata, question, edns } = *asked;
    let to = Addressee { metadata, question: Some(&question), edns: edns.as_ref(), transport };
    let (code, body) = match verdict(&question, edns.as_ref(), scope, zone, seed) {
        Verdict::Records(body) => (ResponseCode::NoError, body),
        Verdict::NoData => (ResponseCode::NoError, denial(0, zone)),
        Verdict::NoSuchName => (ResponseCode::NXDomain, denial(enclosing(&question), zone)),
        Verdict::Foreign | Verdict::Unclaimed if zone.reaches_outside(scope) => return Outcome::Forward,
        Verdict::Unclaimed => (ResponseCode::NXDomain, denial(enclosing(&question), zone)),
        Verdict::Foreign | Verdict::OtherClass => (ResponseCode::Refused, Body::default()),
        Verdict::UnknownVersion => (ResponseCode::BADVERS, Body::default()),
    };
    to.reply(code, &body).map_or(Outcome::Drop, Outcome::Reply)
}

enum Verdict<'z> {
    Records(Body<'z>),
    /// The name is there, but nothing of this type.
    NoData,
    NoSuchName,
    /// Nobody here bears it; elsewhere somebody may.
    Unclaimed,
    Foreign,
    /// Not the Internet's: `CH TXT version.bind` and the like.
    OtherClass,
    /// Of EDNS (RFC 6891 §6.1.3).
    UnknownVersion,
}

fn verdict<'z>(question: &Query, edns: Option<&Edns>, scope: &'z Scope, zone: &'z Zone, seed: u64) -> Verdict<'z> {
    if edns.is_some_and(|e| e.version() != 0) {
        return Verdict::UnknownVersion;
    }
    if question.query_class() != DNSClass::IN {
        return Verdict::OtherClass;
    }
    let name = Labels::of(question.name());
    let count = name.count();
    if count == 0 {
        return Verdict::Foreign;
    }
    let (wanted, mut chance) = (question.query_type(), Chance(seed));
    if name.label(count - 1) == b"localhost" {
        // RFC 6761 §6.3.
        let loopback = (vec![Ipv4Addr::LOCALHOST], vec![Ipv6Addr::LOCALHOST]);
        return addresses(wanted, loopback.0, loopback.1, &mut chance);
    }
    if let Some(ip) = reverse::address(&name) {
        return match zone.find_address(scope, ip) {
            FoundAddress::Pointer(target) => pointer(wanted, target),
            FoundAddress::Nothing => Verdict::NoSuchName,
            FoundAddress::Foreign => Verdict::Foreign,
        };
    }
    let underscored = (0..count).take_while(|n| name.label(*n).starts_with(b"_")).count();
    let has_wanted = |entry: &Entry| underscored > 0 || has(entry, scope, wanted);
    match zone.find(scope, &name, underscored, has_wanted) {
        Found::Nothing => Verdict::NoSuchName,
        Found::Unclaimed => Verdict::Unclaimed,
        Found::Foreign => Verdict::Foreign,
        Found::Entry(entry) => match underscored {
            0 => {
                let own = entry.own(scope);
                let v4 = entry.v4.iter().copied().chain(own.and_then(|e| e.v4)).collect();
                let v6 = entry.v6.iter().copied().chain(own.and_then(|e| e.v6)).collect();
                addresses(wanted, v4, v6, &mut chance)
            }
            2 => services(wanted, &entry.offers, name.label(0), name.label(1), &mut chance),
            _ => Verdict::NoSuchName,
        },
    }
}

/// Whether an entry can answer for the type.
fn has(entry: &Entry, scope: &Scope, wanted: RecordType) -> bool {
    let own = entry.own(scope);
    let v4 = !entry.v4.is_empty() || own.is_some_and(|e| e.v4.is_some());
    let v6 = !entry.v6.is_empty() || own.is_some_and(|e| e.v6.is_some());
    match wanted {
        RecordType::A => v4,
        RecordType::AAAA => v6,
        _ => v4 || v6,
    }
}

fn addresses<'z>(wanted: RecordType, mut v4: Vec<Ipv4Addr>, mut v6: Vec<Ipv6Addr>, chance: &mut Chance) -> Verdict<'z> {
    match wanted {
        RecordType::A => v6.clear(),
        RecordType::AAAA => v4.clear(),
        // One set of records is enough (RFC 8482 §4.1).
        RecordType::ANY if v4.is_empty() => {}
        RecordType::ANY => v6.clear(),
        _ => return Verdict::NoData,
    }
    chance.shuffle(&mut v4);
    chance.shuffle(&mut v6);
    let v4 = v4.into_iter().map(|ip| Content::A(A(ip)));
    let v6 = v6.into_iter().map(|ip| Content::Aaaa(AAAA(ip)));
    records(v4.chain(v6).map(|content| Record { owner: Owner::Question(0), content }).collect())
}

fn pointer(wanted: RecordType, target: &Name) -> Verdict<'_> {
    match wanted {
        RecordType::PTR | RecordType::ANY => {
            records(vec![Record { owner: Owner::Question(0), content: Content::Ptr(target) }])
        }
        _ => Verdict::NoData,
    }
}

fn services<'z>(
    wanted: RecordType,
    offers: &'z [std::sync::Arc<Offer>],
    port_name: &[u8],
    protocol: &[u8],
    chance: &mut Chance,
) -> Verdict<'z> {
    let mut found: Vec<(u16, &Instance)> = Vec::new();
    let mut named = false;
    for offer in offers {
        if let Some(port) = offer.port(port_name, protocol) {
            named = true;
            found.extend(offer.instances.iter().map(|i| (port, i)));
        }
    }
    if !named {
        return Verdict::NoSuchName;
    }
    if !matches!(wanted, RecordType::SRV | RecordType::ANY) {
        return Verdict::NoData;
    }
    chance.shuffle(&mut found);
    let mut body = Body::default();
    for (port, instance) in found {
        // All are equal: priority 0, weight 0 (RFC 2782: "when there isn't any server selection to do").
        let srv = SRV::new(0, 0, port, instance.target.clone());
        body.answers.push(Record { owner: Owner::Question(0), content: Content::Srv(srv) });
        let v4 = instance.v4.map(|ip| Content::A(A(ip)));
        let v6 = instance.v6.map(|ip| Content::Aaaa(AAAA(ip)));
        let glue = v4.into_iter().chain(v6);
        body.additionals.extend(glue.map(|content| Record { owner: Owner::Name(&instance.target), content }));
    }
    if body.answers.is_empty() { Verdict::NoData } else { Verdict::Records(body) }
}

fn records(answers: Vec<Record<'_>>) -> Verdict<'_> {
    if answers.is_empty() { Verdict::NoData } else { Verdict::Records(Body { answers, ..Body::default() }) }
}

/// What goes with "there is none": how long to remember that.
fn denial<'z>(owner: u8, zone: &Zone) -> Body<'z> {
    let content = Content::Soa(start_of_authority(zone.generation()));
    Body { authorities: vec![Record { owner: Owner::Question(owner), content }], ..Body::default() }
}

/// Where in a name that does not exist the zone begins that could say so: `blue` of `x.blue`.
fn enclosing(question: &Query) -> u8 {
    let name = Labels::of(question.name());
    let labels = if reverse::address(&name).is_some() { 2 } else { 1 };
    name.start(name.count().saturating_sub(labels))
}

/// Chance out of a seed: SplitMix64, which is enough to spread load and nothing more.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher and Yates'.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            // The bias of a remainder is below 2^-40 for as many addresses as a network can have.
            let j = (self.next() % (i as u64 + 1)) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests;
