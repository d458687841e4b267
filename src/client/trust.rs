//! Whose certificates the API is believed by.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Debian's authorities.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Authorities by which an API's certificate is checked.
#[derive(Default)]
pub struct Trust(Vec<Certificate<'static>>);

impl Trust {
    /// Those in `file` and no others.
    ///
    /// # Errors
    /// If it holds none.
    pub fn only(file: &Path) -> Result<Trust, String> {
        let certificates = read(file)?;
        if certificates.is_empty() {
            return Err(format!(
                "--ca: {} holds no certificate in PEM form; name the authority's file",
                file.display()
            ));
        }
        Ok(Trust(certificates))
    }

    /// This machine's, and what is in `own`, the sink's file: a certificate that is signed by itself, or the chain up to
    /// its authority. A file that cannot be read adds none.
    pub fn system_and(own: &Path) -> Trust {
        let files = [Path::new(SYSTEM), own];
        Trust(files.into_iter().filter_map(|file| read(file).ok()).flatten().collect())
    }

    pub fn config(self) -> TlsConfig {
        TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(RootCerts::new_with_certs(&self.0))
            .build()
    }
}

fn read(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = fs::read(file).map_err(|error| format!("--ca: cannot read {}: {error}", file.display()))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&pem).filter_map(certificate).collect())
}
