//! TLS 1.3 between hosts, both sides with certificates of the cluster's CA.

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use std::sync::Arc;

use crate::{identity::Identity, token::CaDigest};

const ALPN: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS from this node's certificate: {0}")]
pub struct SetupError(String);

fn setup(e: impl std::fmt::Display) -> SetupError {
    SetupError(e.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add(ca.clone())?;
    Ok(Arc::new(store))
}

/// A client without a certificate gets through the handshake, because a joiner has none yet; what it may call is
/// decided where the call arrives ([`crate::Peer::identity`] is `None`). A bad certificate does not get through.
pub fn server(identity: &Identity) -> Result<Arc<ServerConfig>, SetupError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.ca).map_err(setup)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(setup)?;
    // The CA goes along: a joiner knows it by digest only.
    let chain = vec![identity.certificate.clone(), identity.ca.clone()];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, identity.key())
        .map_err(setup)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// For a node of the cluster.
pub fn client(identity: &Identity) -> Result<Arc<ClientConfig>, SetupError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_root_certificates(roots(&identity.ca).map_err(setup)?)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key())
        .map_err(setup)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// For a joiner: it has no certificate, and knows the CA by its digest. Nothing is sent before the digest matched.
pub fn joiner(ca: CaDigest) -> Result<Arc<ClientConfig>, SetupError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { ca, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// Accepts a server whose chain ends in the CA with the pinned digest, and is valid under it.
#[derive(Debug)]
struct PinnedCa {
    ca: CaDigest,
    provider: Arc<CryptoProvider>,
}

/// What a joiner says when the other side is of another cluster, or a forger.
pub const WRONG_CA: &str = "the manager's CA is not the one in the join token";

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let ca = intermediates
            .iter()
            .find(|c| CaDigest::of(c) == self.ca)
            .ok_or_else(|| TlsError::General(WRONG_CA.to_owned()))?;
        WebPkiServerVerifier::builder_with_provider(roots(&ca.clone().into_owned())?, self.provider.clone())
            .build()
            .map_err(|e| TlsError::General(e.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
