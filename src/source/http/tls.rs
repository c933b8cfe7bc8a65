//! Whose certificates are trusted.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};
use crate::source::Env;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nobody: for servers that speak no TLS, whose clients need not read hundreds of certificates.
    Nobody,
    /// The system's roots.
    System,
    /// The roots in a PEM file, which the environment named so.
    Bundle { variable: &'static str, path: PathBuf },
    /// The roots in this text, PEM.
    Given(String),
    /// Any certificate, for a lab.
    Anyone,
}

/// The roots that the environment names instead of the system's: one's own, or the cluster's that KServe mounts.
pub fn named_bundle(get: impl Fn(&str) -> Option<String>) -> Option<(&'static str, PathBuf)> {
    let named = |variable: &'static str| get(variable).map(|path| (variable, PathBuf::from(path)));
    let mounted = || {
        get("CA_BUNDLE_CONFIGMAP_NAME")?;
        let (variable, folder) = named("CA_BUNDLE_VOLUME_MOUNT_POINT")?;
        Some((variable, folder.join("cabundle.crt")))
    };
    named("AWS_CA_BUNDLE").or_else(mounted).or_else(|| named("REQUESTS_CA_BUNDLE"))
}

impl Trust {
    /// Whom the environment says: the roots that it names, else the system's.
    pub fn from_env(env: Env<'_>) -> Trust {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        named_bundle(set).map_or(Trust::System, |(variable, path)| Trust::Bundle { variable, path })
    }
}

/// # Errors
/// When the bundle cannot be read or holds no certificate.
pub fn config(trust: &Trust) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::load(format!("TLS: {error}")))?;
    let config = match trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider))).with_no_client_auth()
        }
        trust => builder.with_root_certificates(roots(trust)?).with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Trust::Bundle { variable, path } => {
            let failed = |reason: String| Error::load(format!("{variable} {}: {reason}", path.display()));
            let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            add(&mut roots, &text).map_err(failed)?;
        }
        Trust::Given(text) => add(&mut roots, text.as_bytes()).map_err(Error::load)?,
        Trust::Nobody | Trust::Anyone => {}
    }
    Ok(roots)
}

/// Adds the certificates of a bundle in PEM, or says what is wrong with it.
fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no PEM certificate".to_owned()) } else { Ok(()) }
}

/// rustls's own error, at whatever depth `io::Error`s are wrapped around it.
pub(super) fn error_in(error: &std::io::Error) -> Option<&rustls::Error> {
    let mut inner = error.get_ref()?;
    loop {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        inner = inner.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

/// `S3_VERIFY_SSL=0`: any certificate will do, though the handshake must still be sound.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
