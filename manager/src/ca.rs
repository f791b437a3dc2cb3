//! The cluster's certificate authority. Its key is part of the replicated state, so any manager can sign.
//!
//! Of a signing request only the public key is taken; who it is for, and as what, is decided here
//! (names as in [`shoal_rt::peer`]).

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use sha2::{Digest, Sha256};
use shoal_common::{NodeId, Timestamp, node::Role};
use shoal_rt::{clock, peer};
use shoal_state::ClusterSettings;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer;

const CA_LIFE: Duration = Duration::days(20 * 365);
const NODE_LIFE: Duration = Duration::days(90);
/// Hosts' clocks may differ.
const BACKDATED: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the certificate authority cannot be read: {0}")]
    Authority(String),
    #[error("the signing request is of no use: {0}")]
    Request(String),
    #[error("cannot make a key or a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A new CA, as PEM.
#[derive(Clone)]
pub struct CaMaterial {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for CaMaterial {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaMaterial").finish_non_exhaustive()
    }
}

pub fn generate(cluster_id: &str) -> Result<CaMaterial, Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::OrganizationName, cluster_id), (DnType::CommonName, "shoal CA")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = life(clock::now(), CA_LIFE);
    let certificate = params.self_signed(&key)?;
    Ok(CaMaterial { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// A new key (PKCS #8) and the request to have it certified, both DER.
pub fn signing_request() -> Result<(Vec<u8>, Vec<u8>), Error> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((key.serialize_der(), request.der().to_vec()))
}

/// Hex SHA-256 of the request's public key: by it a retried join finds the node that it already became.
pub fn public_key_sha256(signing_request_der: &[u8]) -> Result<String, Error> {
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(signing_request_der)
        .map_err(|e| Error::Request(e.to_string()))?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(request.certification_request_info.subject_pki.raw)))
}

/// Signs for one cluster.
pub struct Ca {
    cluster_id: String,
    certificate_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

impl Ca {
    pub fn from_settings(settings: &ClusterSettings) -> Result<Self, Error> {
        let unreadable = |e: &dyn std::fmt::Display| Error::Authority(e.to_string());
        let certificate_der = certificate_der(settings)?;
        let key = KeyPair::from_pem(&settings.ca_key_pem).map_err(|e| unreadable(&e))?;
        let issuer = Issuer::from_ca_cert_pem(&settings.ca_certificate_pem, key).map_err(|e| unreadable(&e))?;
        Ok(Self { cluster_id: settings.id.clone(), certificate_der, issuer })
    }

    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// A certificate, as DER, for this node in this role.
    pub fn sign(&self, signing_request_der: &[u8], node: NodeId, role: Role, now: Timestamp) -> Result<Vec<u8>, Error> {
        let request = CertificateSigningRequestParams::from_der(&signing_request_der.to_vec().into())
            .map_err(|e| Error::Request(e.to_string()))?;
        let mut names = vec![peer::node_name(node)];
        if role == Role::Manager {
            names.push(peer::MANAGER_NAME.to_owned());
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name(&[
            (DnType::CommonName, &node.to_string()),
            (DnType::OrganizationalUnitName, &role.to_string()),
            (DnType::OrganizationName, &self.cluster_id),
        ]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
        (params.not_before, params.not_after) = life(now, NODE_LIFE);
        Ok(params.signed_by(&request.public_key, &self.issuer)?.der().to_vec())
    }
}

/// The CA's certificate, as the digest in join tokens is made of.
pub fn certificate_der(settings: &ClusterSettings) -> Result<Vec<u8>, Error> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(settings.ca_certificate_pem.as_bytes())
        .map_err(|e| Error::Authority(e.to_string()))?;
    Ok(pem.contents)
}

fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

fn life(from: Timestamp, length: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let from = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(i64::try_from(from.0).unwrap_or(i64::MAX));
    (from - BACKDATED, from + length)
}
