//! The cluster's own certificate authority, and what a node shows to the others.
//!
//! A certificate binds a key to one name, `<node>.<cluster>.martlet`, and is good both for calling
//! and for being called. Keys are ECDSA P-256: what every TLS tool can read and the fastest to check.
//!
//! **Certificates do not expire**, and no clock is asked when one is checked: a node whose clock
//! jumps to 1970 or 2100 must go on serving, and a cluster left alone for years must start. What an
//! expiry is for, taking trust back, is done by the map instead: a node that is removed from it is
//! refused at once, whatever its certificate says ([`crate::Service::admits`]). So the dates in a
//! certificate are the widest that can be said, 2000 to 9999 (RFC 5280, 4.1.2.5).

use std::fmt;

use base::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tls;

/// What every name of a certificate of ours ends with.
const DOMAIN: &str = "martlet";

const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// An uncompressed point of P-256.
const PUBLIC_KEY_BYTES: usize = 65;

/// A key or certificate cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCredentials(pub(crate) String);

pub(crate) fn bad(what: impl fmt::Display) -> BadCredentials {
    BadCredentials(what.to_string())
}

/// SHA-256 of an authority's certificate: by it a joiner knows the cluster before it has been let in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The authority of one cluster, with its key. There is one, in the control shard.
pub struct Authority {
    cluster: u128,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(cluster: u128) -> Result<Self, BadCredentials> {
        let key = KeyPair::generate().map_err(bad)?;
        let certificate = authority_params(cluster)?.self_signed(&key).map_err(bad)?;
        Ok(Self {
            cluster,
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// Reads what [`Authority::to_pem`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, BadCredentials> {
        let [certificate, key] = blocks(pem, [CERTIFICATE, PRIVATE_KEY])?;
        let certificate = CertificateDer::from(certificate);
        let name = tls::name(&certificate)?;
        Ok(Self {
            cluster: parse_cluster(&name).ok_or_else(|| bad(format!("{name}: no authority")))?,
            certificate,
            key: KeyPair::try_from(key).map_err(bad)?,
        })
    }

    /// Certificate and private key. Whoever reads it can let in whom they like.
    pub fn to_pem(&self) -> String {
        to_pem([
            (CERTIFICATE, self.certificate.to_vec()),
            (PRIVATE_KEY, self.key.serialize_der()),
        ])
    }

    /// The certificate (DER), which is no secret.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Certifies that who has the key to `public_key` is `node`. Returns the certificate (DER).
    ///
    /// That the asker has the private key need not be proved: without it the certificate is useless.
    ///
    /// # Errors
    /// If `public_key` is not what [`NodeKey::public`] gives.
    pub fn sign(&self, node: NodeId, public_key: &[u8]) -> Result<Vec<u8>, BadCredentials> {
        if public_key.len() != PUBLIC_KEY_BYTES || public_key[0] != 4 {
            return Err(bad("not a public key of P-256"));
        }
        let issuer = Issuer::new(authority_params(self.cluster)?, &self.key);
        let mut params = params(&node_name(node, self.cluster))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&PublicKey(public_key), &issuer);
        Ok(signed.map_err(bad)?.der().to_vec())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:032x})", self.cluster)
    }
}

/// A node's private key, before it has a certificate.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self, BadCredentials> {
        Ok(Self(KeyPair::generate().map_err(bad)?))
    }

    /// Reads what [`NodeKey::to_pem`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, BadCredentials> {
        let [key] = blocks(pem, [PRIVATE_KEY])?;
        Ok(Self(KeyPair::try_from(key).map_err(bad)?))
    }

    /// The private key: who waits for its certificate keeps it, so that it is the same one who asks again.
    pub fn to_pem(&self) -> String {
        to_pem([(PRIVATE_KEY, self.0.serialize_der())])
    }

    /// What [`Authority::sign`] wants to see.
    pub fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The key together with its certificate and that of the authority which signed it (DER).
    ///
    /// # Errors
    /// If they do not fit together.
    pub fn certified(
        self,
        certificate: Vec<u8>,
        authority: Vec<u8>,
    ) -> Result<Credentials, BadCredentials> {
        Credentials::new(certificate, authority, self.0.serialize_der())
    }
}

/// All that a node needs to be one: its certificate and key, and the authority it trusts.
#[derive(Clone)]
pub struct Credentials {
    node: NodeId,
    cluster: u128,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
    /// PKCS #8, DER.
    pub(crate) key: Vec<u8>,
}

impl Credentials {
    fn new(certificate: Vec<u8>, authority: Vec<u8>, key: Vec<u8>) -> Result<Self, BadCredentials> {
        let certificate = CertificateDer::from(certificate);
        let name = tls::name(&certificate)?;
        let (node, cluster) =
            parse_node(&name).ok_or_else(|| bad(format!("{name}: not the name of a node")))?;
        let credentials = Self {
            node,
            cluster,
            certificate,
            authority: authority.into(),
            key,
        };
        tls::check(&credentials)?;
        Ok(credentials)
    }

    /// Reads what [`Credentials::to_pem`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, BadCredentials> {
        let [certificate, authority, key] = blocks(pem, [CERTIFICATE, CERTIFICATE, PRIVATE_KEY])?;
        Self::new(certificate, authority, key)
    }

    /// The node's certificate, the authority's, and the node's private key: one file, only for the
    /// node's own eyes.
    pub fn to_pem(&self) -> String {
        to_pem([
            (CERTIFICATE, self.certificate.to_vec()),
            (CERTIFICATE, self.authority.to_vec()),
            (PRIVATE_KEY, self.key.clone()),
        ])
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Of the authority that this node trusts.
    pub fn authority(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", node_name(self.node, self.cluster))
    }
}

/// The name in a node's certificate.
pub(crate) fn node_name(node: NodeId, cluster: u128) -> String {
    format!("{node}.{}", cluster_name(cluster))
}

fn cluster_name(cluster: u128) -> String {
    format!("{cluster:032x}.{DOMAIN}")
}

/// The opposite of [`node_name`]; whatever that would write otherwise is refused.
pub(crate) fn parse_node(name: &str) -> Option<(NodeId, u128)> {
    let (node, rest) = name.strip_prefix('n')?.split_once('.')?;
    let node = NodeId(node.parse().ok()?);
    let cluster = parse_cluster(rest)?;
    (node_name(node, cluster) == name).then_some((node, cluster))
}

fn parse_cluster(name: &str) -> Option<u128> {
    let (cluster, DOMAIN) = name.split_once('.')? else {
        return None;
    };
    let cluster = u128::from_str_radix(cluster, 16).ok()?;
    (cluster_name(cluster) == name).then_some(cluster)
}

fn params(name: &str) -> Result<CertificateParams, BadCredentials> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(bad)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    Ok(params)
}

/// A function of the cluster alone, so that the issuer's name in a certificate is the same after a
/// restart.
fn authority_params(cluster: u128) -> Result<CertificateParams, BadCredentials> {
    let mut params = params(&cluster_name(cluster))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

struct PublicKey<'a>(&'a [u8]);

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn to_pem<const N: usize>(blocks: [(&str, Vec<u8>); N]) -> String {
    let blocks = blocks.map(|(tag, der)| pem::Pem::new(tag, der));
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_many_config(&blocks, lines)
}

/// The blocks of a PEM file, which must be exactly these.
fn blocks<const N: usize>(pem: &str, tags: [&str; N]) -> Result<[Vec<u8>; N], BadCredentials> {
    let blocks = pem::parse_many(pem).map_err(bad)?;
    let found: Vec<_> = blocks.iter().map(|block| block.tag()).collect();
    if found != tags {
        return Err(bad(format!("expected {tags:?}, found {found:?}")));
    }
    let ders = blocks.into_iter().map(pem::Pem::into_contents).collect();
    Vec::try_into(ders).map_err(|_| bad("counted above"))
}
