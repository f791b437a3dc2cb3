//! A query as it came over the wire.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// One question, and in which manner it wants its answer.
pub(crate) struct Asked {
    pub(crate) metadata: Metadata,
    pub(crate) question: Query,
    pub(crate) edns: Option<Edns>,
}

/// What a datagram or frame was.
pub(crate) enum Parsed {
    Asked(Box<Asked>),
    /// Something that is answered with an error, with its question as far as it was understood.
    Wrong(Metadata, Option<Query>, ResponseCode),
    /// Nothing that one answers: too short for a header, or itself an answer.
    Noise,
}

pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(Header { metadata, counts }) = Header::read(&mut decoder) else { return Parsed::Noise };
    if metadata.message_type == MessageType::Response {
        // To answer an answer could go on for ever.
        return Parsed::Noise;
    }
    if metadata.op_code != OpCode::Query {
        return Parsed::Wrong(metadata, None, ResponseCode::NotImp);
    }
    if counts.queries != 1 {
        return Parsed::Wrong(metadata, None, ResponseCode::FormErr);
    }
    let Ok(question) = Query::read(&mut decoder) else {
        return Parsed::Wrong(metadata, None, ResponseCode::FormErr);
    };
    let mut edns = None;
    // Most queries end here, or hold one OPT record and no others.
    for (count, is_additional) in [(counts.answers, false), (counts.authorities, false), (counts.additionals, true)] {
        if count == 0 {
            continue;
        }
        match Message::read_records(&mut decoder, usize::from(count), is_additional, metadata.op_code) {
            Ok((_, found, _)) => edns = found,
            Err(_) => return Parsed::Wrong(metadata, Some(question), ResponseCode::FormErr),
        }
    }
    Parsed::Asked(Box::new(Asked { metadata, question, edns }))
}
