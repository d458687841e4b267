//! The certificate that the API shows, read again on reload.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config;

/// Files are read to this size: a chain of certificates is some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The pair in use. What a message says of the key is its file's name.
pub struct Certificate {
    files: config::Tls,
    current: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the certificate in {}", self.files.certificate.display())
    }
}

impl Certificate {
    /// # Errors
    /// Names the setting, the file and what to do.
    pub fn read(files: &config::Tls) -> Result<Arc<Certificate>, String> {
        let current = RwLock::new(Arc::new(pair(files)?));
        Ok(Arc::new(Certificate { files: files.clone(), current }))
    }

    /// Takes the files' pair for new connections; what it is now.
    ///
    /// # Errors
    /// As [`Certificate::read`]; the old pair stays.
    pub fn reload(&self) -> Result<String, String> {
        let new = Arc::new(pair(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(format!("new connections get the certificate in {}", self.files.certificate.display()))
    }

    /// When it ends, in seconds since 1970; `None` where it does not say so in a way that is known.
    pub fn ends_at(&self) -> Option<i64> {
        let current = self.current();
        let (_, certificate) = x509_parser::parse_x509_certificate(current.cert.first()?).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// TLS 1.2 and 1.3, without client certificates.
    ///
    /// # Errors
    /// If the provider does not know these versions.
    pub fn acceptor(self: &Arc<Certificate>) -> Result<TlsAcceptor, String> {
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("api.tls: {error}"))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is taken up again would not see a new certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn pair(files: &config::Tls) -> Result<CertifiedKey, String> {
    let config::Tls { certificate, key } = files;
    let chain = bytes("api.tls.certificate", certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        format!("api.tls.certificate: {} holds no certificate in PEM form; write one there", certificate.display())
    })?;
    only_for_the_service(key)?;
    // What the parser says could repeat a line of the file.
    let private = PrivateKeyDer::from_pem_slice(&bytes("api.tls.key", key)?).map_err(|_| {
        format!("api.tls.key: {} holds no private key in PEM form (PKCS #8, PKCS #1 or SEC1)", key.display())
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "api.tls: the key in {} is not that of the certificate in {}; put both of one pair there",
            key.display(),
            certificate.display()
        ),
        _ => format!(
            "api.tls: {} and {} make no pair that can be used; RSA from 2048 bits, ECDSA and Ed25519 can",
            certificate.display(),
            key.display()
        ),
    })
}

fn bytes(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: &dyn fmt::Display| {
        format!("{setting}: cannot read {}: {error}; let the service's user read it", path.display())
    };
    let size = fs::metadata(path).map_err(|error| problem(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{setting}: {} is larger than {FILE_BYTES_MAX} bytes; name the PEM file", path.display()));
    }
    fs::read(path).map_err(|error| problem(&error))
}

fn only_for_the_service(key: &Path) -> Result<(), String> {
    let mode = fs::metadata(key).map(|file| file.mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        let key = key.display();
        return Err(format!("api.tls.key: everybody on this machine may read {key}; run: chmod o-rwx {key}"));
    }
    Ok(())
}
