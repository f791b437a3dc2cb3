//! Replies in wire form.

use hickory_proto::{
    ProtoError,
    op::{Edns, EmitAndCount, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts},
    rr::{
        DNSClass, Name, RecordType,
        rdata::{A, AAAA, SOA, SRV},
    },
    serialize::binary::{BinEncodable, BinEncoder},
};
use shoal_common::Generation;

use crate::answer::Transport;

/// How long an answer of ours may be remembered, in seconds. Less than a second cannot be said but by 0, which
/// some clients take for an error; more, and a client goes on to addresses that are gone.
pub const TTL_SECONDS: u32 = 1;

/// The largest UDP payload that is sent or asked for, in bytes: fits unfragmented everywhere (dnsflagday.net/2020).
pub const UDP_PAYLOAD: u16 = 1232;

/// Without EDNS (RFC 1035 §4.2.1).
const CLASSIC_UDP_PAYLOAD: u16 = 512;

/// An OPT record without options, in bytes (RFC 6891 §6.1.2).
const OPT_BYTES: u16 = 11;

/// Where the question's name begins in every message, as a compression pointer (RFC 1035 §4.1.4).
const QUESTION_NAME: u16 = 0xc000 | 12;

/// Whose record it is.
pub(crate) enum Owner<'a> {
    /// The name that was asked for, from so many bytes into it; a pointer, which spares the search for the name.
    Question(u8),
    Name(&'a Name),
}

pub(crate) enum Content<'a> {
    A(A),
    Aaaa(AAAA),
    Ptr(&'a Name),
    Srv(SRV),
    Soa(SOA),
}

pub(crate) struct Record<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) content: Content<'a>,
}

impl BinEncodable for Record<'_> {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        match self.owner {
            Owner::Question(into) => encoder.emit_u16(QUESTION_NAME + u16::from(into))?,
            Owner::Name(name) => name.emit(encoder)?,
        }
        let record_type = match self.content {
            Content::A(_) => RecordType::A,
            Content::Aaaa(_) => RecordType::AAAA,
            Content::Ptr(_) => RecordType::PTR,
            Content::Srv(_) => RecordType::SRV,
            Content::Soa(_) => RecordType::SOA,
        };
        record_type.emit(encoder)?;
        DNSClass::IN.emit(encoder)?;
        encoder.emit_u32(TTL_SECONDS)?;
        let length = encoder.place::<u16>()?;
        match &self.content {
            Content::A(a) => a.emit(encoder)?,
            Content::Aaaa(aaaa) => aaaa.emit(encoder)?,
            Content::Ptr(name) => name.emit(encoder)?,
            Content::Srv(srv) => srv.emit(encoder)?,
            Content::Soa(soa) => soa.emit(encoder)?,
        }
        let written = encoder.len_since_place(&length);
        length.replace(encoder, u16::try_from(written).map_err(|_| ProtoError::Message("record data is too long"))?)
    }
}

/// The start of authority that goes with a denial: who may remember it, and how long (RFC 2308 §3). Nothing but
/// the minimum and the serial means anything here; there are no transfers.
pub(crate) fn start_of_authority(generation: Generation) -> SOA {
    let nobody = Name::root();
    // A serial wraps around by design (RFC 1982).
    SOA::new(nobody.clone(), nobody, generation.0 as u32, 3600, 600, 86_400, TTL_SECONDS)
}

/// All that a reply says.
#[derive(Default)]
pub(crate) struct Body<'a> {
    pub(crate) answers: Vec<Record<'a>>,
    pub(crate) authorities: Vec<Record<'a>>,
    /// May be left out where there is no room.
    pub(crate) additionals: Vec<Record<'a>>,
}

/// To whom a reply goes.
pub(crate) struct Addressee<'a> {
    pub(crate) metadata: Metadata,
    pub(crate) question: Option<&'a Query>,
    /// The query's; then the reply has one too.
    pub(crate) edns: Option<&'a Edns>,
    pub(crate) transport: Transport,
}

/// Of a section: keeps clear the bytes that OPT will need, so that it is there even in a truncated reply.
struct Section<'a, 'r> {
    records: &'r [Record<'a>],
    limit: u16,
    /// Whether to leave records out is truncation (RFC 2181 §9).
    required: bool,
    then_limit: u16,
}

impl EmitAndCount for Section<'_, '_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        encoder.set_max_size(self.limit);
        let emitted = match encoder.emit_all(self.records.iter()) {
            Err(ProtoError::NotAllRecordsWritten { count, .. }) if !self.required => Ok(count),
            other => other,
        };
        encoder.set_max_size(self.then_limit);
        emitted
    }
}

impl Addressee<'_> {
    fn payload_limit(&self) -> u16 {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => CLASSIC_UDP_PAYLOAD,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(CLASSIC_UDP_PAYLOAD, UDP_PAYLOAD),
        }
    }

    /// The reply's bytes. `None` where the message cannot be written, which only a question that did not come
    /// off the wire could cause.
    pub(crate) fn reply(&self, code: ResponseCode, body: &Body<'_>) -> Option<Vec<u8>> {
        let limit = self.payload_limit();
        let edns = self.edns.map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            edns
        });
        let before_opt = if edns.is_some() { limit - OPT_BYTES } else { limit };
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = code;
        metadata.recursion_available = true;
        // An error in the query or on the way is nobody's authority.
        metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let section = |records, required, then_limit| Section { records, limit: before_opt, required, then_limit };

        let mut bytes = Vec::with_capacity(usize::from(CLASSIC_UDP_PAYLOAD));
        let mut encoder = BinEncoder::new(&mut bytes);
        emit_message_parts(
            &metadata,
            &mut self.question.into_iter(),
            &mut section(&body.answers, true, before_opt),
            &mut section(&body.authorities, true, before_opt),
            &mut section(&body.additionals, false, limit),
            edns.as_ref(),
            None,
            &mut encoder,
        )
        .ok()?;
        // A record that did not fit left its bytes behind the end.
        encoder.trim();
        Some(bytes)
    }
}

/// `SERVFAIL` for a query that could not be forwarded.
pub(crate) fn server_failure(metadata: &Metadata, question: &Query, edns: Option<&Edns>) -> Option<Vec<u8>> {
    debug_assert!(metadata.message_type == MessageType::Query && metadata.op_code == OpCode::Query);
    let to = Addressee { metadata: *metadata, question: Some(question), edns, transport: Transport::Udp };
    to.reply(ResponseCode::ServFail, &Body::default())
}
