use super::*;
use hickory_proto::{
    op::{Message, OpCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use std::time::Instant;
use tokio::net::TcpListener;

fn query() -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii("Example.com.").unwrap(), RecordType::A));
    message
}

fn reply_to(query: &[u8], last: u8) -> Message {
    let mut reply = Message::from_vec(query).unwrap().into_response();
    let name = reply.queries[0].name().clone();
    reply.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, last].into()))));
    reply
}

/// A server on loopback that sends what `replies` makes of each query.
async fn fake(replies: impl Fn(&[u8]) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for reply in replies(&buffer[..length]) {
                socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    address
}

fn share() -> Share {
    Share::of(&crate::share::Pool::default())
}

async fn forward(servers: &[SocketAddr]) -> Message {
    let bytes = query().to_vec().unwrap();
    let reply = super::forward(&bytes, Transport::Udp, servers, &OwnWay, &share()).await.unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.id, &reply.queries), (0xbeef, &query().queries));
    reply
}

fn address(reply: &Message) -> String {
    assert_eq!(reply.response_code, ResponseCode::NoError);
    reply.answers[0].data.to_string()
}

#[tokio::test]
async fn only_the_answer_to_the_question_is_taken_for_it() {
    let forger = fake(|query| {
        let good = reply_to(query, 1);
        let mut wrong_id = reply_to(query, 66);
        wrong_id.metadata.id = wrong_id.id.wrapping_add(1);
        let mut wrong_name = reply_to(query, 67);
        wrong_name.queries[0].set_name(Name::from_ascii("example.org.").unwrap());
        let mut wrong_type = reply_to(query, 68);
        wrong_type.queries[0].set_query_type(RecordType::AAAA);
        let mut no_answer = reply_to(query, 69);
        no_answer.metadata.message_type = MessageType::Query;
        vec![wrong_id, wrong_name, wrong_type, no_answer, good]
    })
    .await;
    assert_eq!(address(&forward(&[forger]).await), "192.0.2.1");
}

#[tokio::test]
async fn an_answer_from_another_address_is_not_taken() {
    let other = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address_of_server = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        other.send_to(&reply_to(&buffer[..length], 66).to_vec().unwrap(), from).await.unwrap();
        server.send_to(&reply_to(&buffer[..length], 1).to_vec().unwrap(), from).await.unwrap();
    });
    assert_eq!(address(&forward(&[address_of_server]).await), "192.0.2.1");
}

#[tokio::test]
async fn ids_and_ports_differ_from_question_to_question() {
    #[allow(clippy::disallowed_methods, reason = "as many as the test below sends")]
    let (seen, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            seen.send((u16::from_be_bytes([buffer[0], buffer[1]]), from.port())).unwrap();
            socket.send_to(&reply_to(&buffer[..length], 1).to_vec().unwrap(), from).await.unwrap();
        }
    });
    let (mut ids, mut ports) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..16 {
        forward(&[server]).await;
        let (id, port) = questions.recv().await.unwrap();
        ids.insert(id);
        ports.insert(port);
    }
    // Of 16 draws out of many thousands a few may be equal, not many.
    assert!(ids.len() > 12 && ports.len() > 12, "{ids:?} {ports:?}");
}

#[tokio::test]
async fn a_server_that_is_silent_is_passed_over_and_its_late_answer_unheard() {
    let silent = fake(|_| vec![]).await;
    let good = fake(|query| vec![reply_to(query, 2)]).await;
    let begun = Instant::now();
    assert_eq!(address(&forward(&[silent, good]).await), "192.0.2.2");
    assert!(begun.elapsed() >= ATTEMPT_TIMEOUT);
}

#[tokio::test]
async fn where_nobody_listens_the_next_is_asked_at_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let good = fake(|query| vec![reply_to(query, 3)]).await;
    let begun = Instant::now();
    assert_eq!(address(&forward(&[nobody, good]).await), "192.0.2.3");
    assert!(begun.elapsed() < ATTEMPT_TIMEOUT);
    assert_eq!(forward(&[nobody]).await.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn with_nobody_to_ask_it_is_a_server_failure() {
    let ourselves: SocketAddr = "127.0.0.11:53".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:127.0.0.11]:53".parse().unwrap();
    for servers in [vec![], vec![ourselves, mapped]] {
        assert_eq!(forward(&servers).await.response_code, ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn all_silent_is_a_server_failure_before_libc_gives_up() {
    let silent = fake(|_| vec![]).await;
    let begun = Instant::now();
    assert_eq!(forward(&[silent]).await.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_will_not_is_passed_over_but_heard_if_none_will() {
    let unwilling = fake(|query| {
        let mut reply = Message::from_vec(query).unwrap().into_response();
        reply.metadata.response_code = ResponseCode::Refused;
        vec![reply]
    })
    .await;
    let good = fake(|query| vec![reply_to(query, 4)]).await;
    assert_eq!(address(&forward(&[unwilling, good]).await), "192.0.2.4");
    assert_eq!(forward(&[unwilling]).await.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn more_questions_than_a_containers_share_fail_at_once() {
    let share = share();
    let held: Vec<_> = std::iter::from_fn(|| share.forward()).collect();
    let ask = || async {
        let bytes = query().to_vec().unwrap();
        let good = fake(|query| vec![reply_to(query, 6)]).await;
        let reply = super::forward(&bytes, Transport::Udp, &[good], &OwnWay, &share).await.unwrap();
        Message::from_vec(&reply).unwrap().response_code
    };
    assert_eq!(ask().await, ResponseCode::ServFail);
    drop(held);
    assert_eq!(ask().await, ResponseCode::NoError);
}

#[tokio::test]
async fn what_came_by_tcp_is_asked_by_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let query = read_frame(&mut stream).await.unwrap().unwrap();
        write_frame(&mut stream, &reply_to(&query, 5).to_vec().unwrap()).await.unwrap();
    });
    let bytes = query().to_vec().unwrap();
    let reply = super::forward(&bytes, Transport::Tcp, &[server], &OwnWay, &share()).await.unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!((reply.id, address(&reply).as_str()), (0xbeef, "192.0.2.5"));
}
