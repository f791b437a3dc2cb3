use super::*;
use std::{net::Ipv6Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Says its name to whoever connects.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            client.write_all(name.as_bytes()).await.unwrap();
        }
    });
    at
}

async fn ask(at: SocketAddr) -> io::Result<String> {
    let mut answer = String::new();
    TcpStream::connect(at).await?.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn free(transport: Transport, ip: std::net::IpAddr) -> Listener {
    let at = match transport {
        Transport::Udp => StdUdpSocket::bind((ip, 0)).unwrap().local_addr(),
        Transport::Tcp | Transport::Sctp => StdTcpListener::bind((ip, 0)).unwrap().local_addr(),
    };
    Listener { transport, at: at.unwrap() }
}

fn localhost() -> std::net::IpAddr {
    Ipv6Addr::LOCALHOST.into()
}

#[tokio::test]
async fn a_port_leads_where_it_was_told_last_and_is_free_when_nobody_wants_it() {
    let ports = Ports::default();
    let listener = free(Transport::Tcp, localhost());
    let (one, two) = (server("one").await, server("two").await);
    assert!(ports.hold([(listener, vec![one])].into()).await.is_empty());
    assert_eq!(ask(listener.at).await.unwrap(), "one");
    // Nobody else gets it, and it names us.
    assert_eq!(StdTcpListener::bind(listener.at).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(ports.hold([(listener, vec![two])].into()).await.is_empty());
    assert_eq!(ask(listener.at).await.unwrap(), "two");
    // In turn, and past one that is gone.
    let gone = free(Transport::Tcp, [127, 0, 0, 1].into()).at;
    assert!(ports.hold([(listener, vec![one, gone, two])].into()).await.is_empty());
    let mut met = Vec::new();
    for _ in 0..6 {
        met.push(ask(listener.at).await.unwrap());
    }
    assert!(met.contains(&"one".to_owned()) && met.contains(&"two".to_owned()), "{met:?}");
    assert!(ports.hold(BTreeMap::new()).await.is_empty());
    assert!(ports.is_empty().await);
    StdTcpListener::bind(listener.at).unwrap();
}

#[tokio::test]
async fn a_port_whose_listener_has_ended_is_listened_at_again() {
    let ports = Ports::default();
    let listener = free(Transport::Tcp, localhost());
    let there = server("there").await;
    assert!(ports.hold([(listener, vec![there])].into()).await.is_empty());
    // As after a panic: by itself, and nobody asked for it.
    {
        let mut open = ports.open.lock().await;
        let listening = &mut open.get_mut(&listener).unwrap().listening;
        listening.abort();
        assert!(listening.await.is_err());
    }
    assert_eq!(ask(listener.at).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert!(ports.hold([(listener, vec![there])].into()).await.is_empty());
    assert_eq!(ask(listener.at).await.unwrap(), "there");
}

#[tokio::test]
async fn a_port_that_others_have_is_theirs_and_they_are_named() {
    let ports = Ports::default();
    let theirs = StdTcpListener::bind((localhost(), 0)).unwrap();
    let at = theirs.local_addr().unwrap();
    let listener = Listener { transport: Transport::Tcp, at };
    let closed = ports.hold([(listener, vec![at])].into()).await;
    let why = &closed[&listener];
    let pid = std::process::id();
    assert!(why.contains(&format!("port {}/tcp of ::1", at.port())) && why.contains(&format!("(pid {pid})")), "{why}");
    // Once they have ended it is ours.
    drop(theirs);
    assert!(ports.hold([(listener, vec![at])].into()).await.is_empty());

    let theirs = StdUdpSocket::bind((localhost(), 0)).unwrap();
    let listener = Listener { transport: Transport::Udp, at: theirs.local_addr().unwrap() };
    assert!(ports.hold([(listener, vec![at])].into()).await[&listener].contains("/udp of ::1"));

    // TEST-NET-1 (RFC 5737).
    let listener = Listener { transport: Transport::Tcp, at: "192.0.2.77:80".parse().unwrap() };
    assert!(ports.hold([(listener, vec![at])].into()).await[&listener].contains("no address 192.0.2.77"));
}

#[tokio::test]
async fn a_connection_that_somebody_made_from_a_port_does_not_close_it() {
    let there = server("there").await;
    let client = TcpStream::connect(there).await.unwrap();
    let listener = Listener { transport: Transport::Tcp, at: client.local_addr().unwrap() };
    assert!(Ports::default().hold([(listener, vec![there])].into()).await.is_empty());
}

/// Answers each datagram with its name and what was asked.
async fn answering(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let answer = [name.as_bytes(), &datagram[..length]].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    at
}

#[tokio::test]
async fn datagrams_are_passed_on_and_answered_by_whom_the_port_leads_to_now() {
    let (one, other) = (answering("one ").await, answering("other ").await);
    let ports = Ports::default();
    let listener = free(Transport::Udp, localhost());
    let client = UdpSocket::bind((localhost(), 0)).await.unwrap();
    for (to, answer) in [(one, "one ?"), (one, "one ?"), (other, "other ?")] {
        assert!(ports.hold([(listener, vec![to])].into()).await.is_empty());
        client.send_to(b"?", listener.at).await.unwrap();
        let mut datagram = [0; 64];
        let heard = timeout(Duration::from_secs(5), client.recv_from(&mut datagram)).await.unwrap().unwrap();
        assert_eq!((&datagram[..heard.0], heard.1), (answer.as_bytes(), listener.at));
    }
    // Who was answered lately does not keep the port.
    ports.hold(BTreeMap::new()).await;
    UdpSocket::bind(listener.at).await.unwrap();
}
