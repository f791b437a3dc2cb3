use super::*;
use crate::{
    OwnWay,
    fixture::{BLUE, assignment},
    tcp::{read_frame, write_frame},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{net::TcpStream, time::timeout};

/// A test that takes longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// A UDP and a TCP socket on one port, which a test beside this one may have taken for one of the two.
fn sockets() -> (std::net::UdpSocket, std::net::TcpListener) {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(listener) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, listener);
        }
    }
}

/// One container's resolver on loopback.
struct Served {
    address: SocketAddr,
    zone: watch::Sender<Arc<Zone>>,
    servers: watch::Sender<Vec<SocketAddr>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    fn begin() -> Self {
        Self::of(&Resolver::new())
    }

    fn of(resolver: &Resolver) -> Self {
        let (udp, listener) = sockets();
        let address = udp.local_addr().unwrap();
        let (zone, zone_seen) = watch::channel(Arc::new(Zone::of(&assignment())));
        let (servers, servers_seen) = watch::channel(Vec::new());
        let shutdown = CancellationToken::new();
        let asker = Asker {
            scope: Scope { task: None, networks: vec![BLUE], servers: vec![] },
            servers: Servers { addresses: servers_seen, way: Arc::new(OwnWay) },
        };
        let asker = watch::Sender::new(Arc::new(asker)).subscribe();
        let task = resolver.serve(udp, listener, asker, zone_seen, shutdown.clone()).unwrap();
        Self { address, zone, servers, shutdown, task }
    }

    async fn ask(&self, name: &str, wanted: RecordType) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&query(7, name, wanted)).await.unwrap();
        let mut buffer = [0; 4096];
        let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }
}

fn query(id: u16, name: &str, wanted: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), wanted));
    message.to_vec().unwrap()
}

fn data(reply: &Message) -> Vec<String> {
    let mut data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    data
}

/// A server of other people's names, by UDP and TCP on one port. By UDP it says only that there is more.
async fn outside() -> SocketAddr {
    let (udp, listener) = sockets();
    let address = udp.local_addr().unwrap();
    udp.set_nonblocking(true).unwrap();
    listener.set_nonblocking(true).unwrap();
    let udp = UdpSocket::from_std(udp).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let mut reply = Message::from_vec(&buffer[..length]).unwrap().into_response();
            reply.metadata.truncation = true;
            udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(Some(query)) = read_frame(&mut stream).await {
                let mut reply = Message::from_vec(&query).unwrap().into_response();
                let name = reply.queries[0].name().clone();
                reply.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 1].into()))));
                write_frame(&mut stream, &reply.to_vec().unwrap()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn names_of_ours_are_answered_from_the_newest_zone() {
    let served = Served::begin();
    assert_eq!(data(&served.ask("db.", RecordType::A).await), ["10.0.1.21", "10.0.1.22", "10.0.1.23"]);
    let mut fewer = assignment();
    fewer.endpoints.retain(|_, e| e.task_name != "db.2");
    served.zone.send_replace(Arc::new(Zone::of(&fewer)));
    assert_eq!(data(&served.ask("db.", RecordType::A).await), ["10.0.1.21", "10.0.1.23"]);
    assert_eq!(served.ask("db.2.", RecordType::A).await.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn other_names_are_asked_for_outside_and_a_cut_answer_again_by_tcp() {
    let served = Served::begin();
    assert_eq!(served.ask("example.com.", RecordType::A).await.response_code, ResponseCode::ServFail);
    served.servers.send_replace(vec![outside().await]);
    let cut = served.ask("example.com.", RecordType::A).await;
    assert!(cut.truncation && cut.id == 7);

    let mut stream = TcpStream::connect(served.address).await.unwrap();
    write_frame(&mut stream, &query(8, "example.com.", RecordType::A)).await.unwrap();
    let reply = timeout(DEADLINE, read_frame(&mut stream)).await.expect("an answer").unwrap().unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.id, data(&reply)), (8, vec!["192.0.2.1".to_owned()]));
}

#[tokio::test]
async fn a_query_that_waits_for_the_outside_does_not_hold_up_the_others() {
    let served = Served::begin();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    served.servers.send_replace(vec![silent.local_addr().unwrap()]);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(served.address).await.unwrap();
    client.send(&query(1, "example.com.", RecordType::A)).await.unwrap();
    client.send(&query(2, "web.", RecordType::A)).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(DEADLINE, client.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().id, 2);
}

#[tokio::test]
async fn one_container_has_only_so_many_queries_outside() {
    let served = Served::begin();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    served.servers.send_replace(vec![silent.local_addr().unwrap()]);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(served.address).await.unwrap();
    for _ in 0..FORWARDS_PER_CONTAINER + 20 {
        client.send(&query(1, "example.com.", RecordType::A)).await.unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..FORWARDS_PER_CONTAINER {
        timeout(DEADLINE, silent.recv(&mut buffer)).await.expect("a question").unwrap();
    }
    // Well before the first is asked again.
    assert!(timeout(Duration::from_millis(200), silent.recv(&mut buffer)).await.is_err(), "one more than the limit");
}

#[tokio::test]
async fn eight_containers_with_silent_servers_do_not_keep_a_ninth_from_its_own() {
    let resolver = Resolver::new();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let greedy: Vec<Served> = (0..8).map(|_| Served::of(&resolver)).collect();
    for served in &greedy {
        served.servers.send_replace(vec![silent.local_addr().unwrap()]);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(served.address).await.unwrap();
        for _ in 0..FORWARDS_PER_CONTAINER {
            client.send(&query(1, "example.com.", RecordType::A)).await.unwrap();
        }
    }
    // Until nothing more comes: what they may ask is under way.
    let mut buffer = [0; 512];
    while timeout(Duration::from_millis(200), silent.recv(&mut buffer)).await.is_ok() {}
    let ninth = Served::of(&resolver);
    ninth.servers.send_replace(vec![outside().await]);
    let cut = ninth.ask("example.com.", RecordType::A).await;
    assert!(cut.truncation && cut.response_code == ResponseCode::NoError, "{cut}");
}

#[tokio::test]
async fn one_connection_carries_several_queries() {
    let served = Served::begin();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // Two at once, then one more.
    for id in [1, 2] {
        write_frame(&mut stream, &query(id, "web.", RecordType::A)).await.unwrap();
    }
    for id in [1, 2, 3] {
        if id == 3 {
            write_frame(&mut stream, &query(id, "web.", RecordType::A)).await.unwrap();
        }
        let reply = timeout(DEADLINE, read_frame(&mut stream)).await.expect("an answer").unwrap().unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.id, data(&reply)), (id, vec!["10.0.1.2".to_owned()]));
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let served = Served::begin();
    let mut held = Vec::new();
    for _ in 0..tcp::CONNECTIONS {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        write_frame(&mut stream, &query(1, "web.", RecordType::A)).await.unwrap();
        timeout(DEADLINE, read_frame(&mut stream)).await.expect("an answer").unwrap().unwrap();
        held.push(stream);
    }
    let mut late = TcpStream::connect(served.address).await.unwrap();
    write_frame(&mut late, &query(9, "web.", RecordType::A)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), read_frame(&mut late)).await.is_err(), "not served yet");
    // The future of the reading was dropped before a byte came, so the next begins at the beginning.
    held.pop();
    let reply = timeout(DEADLINE, read_frame(&mut late)).await.expect("an answer").unwrap().unwrap();
    assert_eq!(Message::from_vec(&reply).unwrap().id, 9);
}

#[tokio::test]
async fn answers_and_noise_get_no_answer() {
    let served = Served::begin();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(served.address).await.unwrap();
    let mut answer = query(1, "web.", RecordType::A);
    answer[2] |= 0x80;
    for bytes in [&answer[..], b"", b"noise", &query(2, "web.", RecordType::A)] {
        client.send(bytes).await.unwrap();
    }
    let mut buffer = [0; 4096];
    let length = timeout(DEADLINE, client.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().id, 2, "the first answer is to the only query");
}

#[tokio::test]
async fn after_shutdown_the_sockets_are_free_and_connections_closed() {
    let served = Served::begin();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    write_frame(&mut stream, &query(1, "web.", RecordType::A)).await.unwrap();
    timeout(DEADLINE, read_frame(&mut stream)).await.expect("an answer").unwrap().unwrap();
    served.shutdown.cancel();
    timeout(DEADLINE, served.task).await.expect("an end").unwrap();
    let end = timeout(DEADLINE, read_frame(&mut stream)).await.expect("an end");
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    UdpSocket::bind(served.address).await.expect("the port is free");
}

#[tokio::test(start_paused = true)]
async fn serving_begins_again_after_a_panic() {
    let begun = AtomicUsize::new(0);
    super::served_on(|| async {
        let times = begun.fetch_add(1, Ordering::Relaxed);
        assert!(times == 2, "a query that was not thought of");
    })
    .await;
    assert_eq!(begun.into_inner(), 3);
}
