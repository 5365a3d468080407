//! The protocol by hand, as docs/formats/rpc.md has it: for what no node of ours would say.

use std::net::SocketAddr;
use std::sync::Arc;

use rpc::Credentials;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const HELLO: u8 = 1;
pub(crate) const CALL: u8 = 2;
pub(crate) const CANCEL: u8 = 3;
pub(crate) const ANSWER: u8 = 4;
pub(crate) const REFUSED: u8 = 5;
pub(crate) const NOT_TAKEN: u8 = 6;
pub(crate) const UNFINISHED: u8 = 7;
pub(crate) const ALIVE: u8 = 8;

pub(crate) const SMALL: u8 = 0;
pub(crate) const JOIN: u8 = 2;

pub(crate) fn frame(kind: u8, tag: u16, id: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, 0]);
    frame.extend(tag.to_le_bytes());
    frame.extend(id.to_le_bytes());
    frame.extend(60_000_u32.to_le_bytes());
    frame.extend(body);
    frame
}

pub(crate) fn hello(versions: (u16, u16), purpose: u8) -> Vec<u8> {
    let mut body = b"MRTLRPC\n".to_vec();
    body.extend(versions.0.to_le_bytes());
    body.extend(versions.1.to_le_bytes());
    body.extend([purpose, 0, 0, 0]);
    body.extend((1_u32 << 20).to_le_bytes());
    body.extend(1024_u32.to_le_bytes());
    frame(HELLO, 0, 0, &body)
}

/// The next frame that is more than a sign of life: kind, tag, id, body.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
) -> std::io::Result<(u8, u16, u64, Vec<u8>)> {
    loop {
        let bytes = from.read_u32_le().await?;
        let kind = from.read_u8().await?;
        assert_eq!(from.read_u8().await?, 0);
        let tag = from.read_u16_le().await?;
        let id = from.read_u64_le().await?;
        from.read_u32_le().await?;
        let mut body = vec![0; bytes as usize];
        from.read_exact(&mut body).await?;
        if kind != ALIVE {
            return Ok((kind, tag, id, body));
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn identity(of: &Credentials) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pem = of.to_pem();
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// A client that trusts everybody, with any certificate or none.
pub(crate) async fn connect(
    address: SocketAddr,
    credentials: Option<&Credentials>,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let config = match credentials.map(identity) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("anybody.martlet").unwrap();
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// A callee that does what the test tells it.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Fake {
    pub(crate) async fn new(credentials: &Credentials) -> Self {
        let (chain, key) = identity(credentials);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: tcp.local_addr().unwrap(),
            tcp,
            tls: TlsAcceptor::from(Arc::new(config)),
        }
    }

    pub(crate) async fn accept_tcp(&self) -> TcpStream {
        self.tcp.accept().await.unwrap().0
    }

    /// A connection whose caller has said hello.
    pub(crate) async fn accept(&self) -> server::TlsStream<TcpStream> {
        let tcp = self.accept_tcp().await;
        let mut stream = self.tls.accept(tcp).await.unwrap();
        assert_eq!(read(&mut stream).await.unwrap().0, HELLO);
        stream
    }
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only TLS 1.3 is built in")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
