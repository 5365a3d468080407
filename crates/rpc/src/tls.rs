//! TLS 1.3 and nothing else, by the cluster's authority and nobody else.
//!
//! **Invariant:** no clock is asked: see [`crate::Authority`]. Sessions are not resumed, so that each
//! connection shows its certificate anew.

use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::authority::{BadCredentials, Credentials, Fingerprint, bad, node_name, parse_node};

/// A moment in 2026 that lies within the dates of all our certificates.
const ALWAYS: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));

#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(ALWAYS)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, BadCredentials> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(bad)?;
    Ok(Arc::new(roots))
}

/// What the node port shows and asks for. A client may come without a certificate; then it is a
/// joiner, see [`peer`].
pub(crate) fn server(credentials: &Credentials) -> Result<Arc<ServerConfig>, BadCredentials> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&credentials.authority)?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(bad)?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(credentials), key(credentials))
        .map_err(bad)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How a node calls another one.
pub(crate) fn client(credentials: &Credentials) -> Result<Arc<ClientConfig>, BadCredentials> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(&credentials.authority)?, provider())
            .build()
            .map_err(bad)?;
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad)?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain(credentials), key(credentials))
        .map_err(bad)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// How a joiner calls a node of the cluster that its token names.
pub(crate) fn joiner(authority: Fingerprint) -> Result<Arc<ClientConfig>, BadCredentials> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByFingerprint(authority)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name by which a client asks for a node.
pub(crate) fn server_name(node: NodeId, cluster: u128) -> ServerName<'static> {
    let name = node_name(node, cluster);
    ServerName::try_from(name).expect("letters, digits and dots")
}

/// The name by which a joiner asks, who does not know any node's.
pub(crate) fn any_name() -> ServerName<'static> {
    ServerName::try_from("join.martlet").expect("letters and a dot")
}

/// The node that a certificate names. The handshake has checked who signed it.
pub(crate) fn peer(
    certificate: &CertificateDer<'_>,
    cluster: u128,
) -> Result<NodeId, BadCredentials> {
    let name = name(certificate)?;
    match parse_node(&name) {
        Some((node, of)) if of == cluster => Ok(node),
        Some(_) => Err(bad(format!("{name}: a node of another cluster"))),
        None => Err(bad(format!("{name}: not the name of a node"))),
    }
}

/// The one name in a certificate.
pub(crate) fn name(certificate: &CertificateDer<'_>) -> Result<String, BadCredentials> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(bad)?;
    let mut names = parsed.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (None, _) => Err(bad("a certificate without a name")),
        (Some(_), Some(_)) => Err(bad("a certificate with several names")),
    }
}

/// That key, certificate and authority belong together.
pub(crate) fn check(credentials: &Credentials) -> Result<(), BadCredentials> {
    let certified = CertifiedKey::from_der(chain(credentials), key(credentials), &provider());
    certified.map_err(bad)?;
    verify(&credentials.certificate, &credentials.authority).map_err(bad)
}

fn verify(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(certificate)?,
        &roots,
        &[],
        ALWAYS,
        algorithms().all,
    )
}

/// The authority's certificate comes along for the joiner's sake, who knows only its fingerprint.
fn chain(credentials: &Credentials) -> Vec<CertificateDer<'static>> {
    vec![
        credentials.certificate.clone(),
        credentials.authority.clone(),
    ]
}

fn key(credentials: &Credentials) -> rustls::pki_types::PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(credentials.key.clone()).into()
}

/// Trusts whom the authority with this fingerprint signed; any of its nodes will do.
#[derive(Debug)]
struct ByFingerprint(Fingerprint);

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = chain
            .iter()
            .find(|shown| Fingerprint::of(shown) == self.0)
            .ok_or(CertificateError::UnknownIssuer)?;
        verify(certificate, &authority.clone().into_owned())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
