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
    let key = KeyPair::generate()?.serialize_der();
    let request = signing_request_of(&key)?;
    Ok((key, request))
}

/// The request to have a key (PKCS #8, DER) certified.
pub fn signing_request_of(key: &[u8]) -> Result<Vec<u8>, Error> {
    let key = KeyPair::try_from(key)?;
    Ok(CertificateParams::default().serialize_request(&key)?.der().to_vec())
}

/// Hex SHA-256 of the request's public key: by it a retried join finds the node that it already became.
///
/// The request must be signed with that key: public keys are no secret, and nobody may pass for a node by its own.
pub fn public_key_sha256(signing_request_der: &[u8]) -> Result<String, Error> {
    verified(signing_request_der)?;
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
        let request = verified(signing_request_der)?;
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

/// Signed with the key that it is about.
fn verified(signing_request_der: &[u8]) -> Result<CertificateSigningRequestParams, Error> {
    CertificateSigningRequestParams::from_der(&signing_request_der.to_vec().into())
        .map_err(|e| Error::Request(e.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;
    use shoal_rt::PeerIdentity;

    const CLUSTER: &str = "c1";

    fn authority() -> Ca {
        let CaMaterial { certificate_pem, key_pem } = generate(CLUSTER).unwrap();
        let settings = ClusterSettings {
            id: CLUSTER.to_owned(),
            ca_certificate_pem: certificate_pem,
            ca_key_pem: key_pem,
            worker_join_secret: String::new(),
            manager_join_secret: String::new(),
            address_pools: Vec::new(),
            subnet_prefix_len: 24,
            ula_prefix: "fd00::/48".parse().unwrap(),
            data_path_port: 4789,
        };
        Ca::from_settings(&settings).unwrap()
    }

    #[test]
    fn who_asks_for_another_name_is_given_its_own() {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec![peer::node_name(NodeId(1)), peer::MANAGER_NAME.to_owned()]).unwrap();
        params.distinguished_name =
            name(&[(DnType::CommonName, "node-1"), (DnType::OrganizationalUnitName, "manager")]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap();

        let now = Timestamp(1_800_000_000_000);
        let certificate = authority().sign(request.der(), NodeId(7), Role::Worker, now).unwrap();
        let (identity, (from, until)) = PeerIdentity::of_certificate(&certificate).unwrap();
        assert_eq!(identity, PeerIdentity { node: NodeId(7), role: Role::Worker });
        assert_eq!(now.0 - from.0, 3_600_000);
        assert_eq!(until.0 - now.0, 90 * 24 * 3_600_000);

        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&certificate).unwrap();
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names: Vec<String> = names.value.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["DNSName(node-7.shoal)"]);
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    }

    #[test]
    fn a_request_is_of_no_use_to_who_lacks_its_key() {
        let (_, mut request) = signing_request().unwrap();
        assert!(public_key_sha256(&request).is_ok());
        // The end of a request is its signature.
        *request.last_mut().unwrap() ^= 1;
        assert!(matches!(public_key_sha256(&request), Err(Error::Request(_))));
        let signed = authority().sign(&request, NodeId(7), Role::Worker, clock::now());
        assert!(matches!(signed, Err(Error::Request(_))));
    }
}
