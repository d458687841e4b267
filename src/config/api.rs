//! The two ports: where they listen, who may ask, and by which certificate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{duration, not_empty, within};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
    /// Whether an address that others can reach may be listened on without `api.auth`: everybody there is trusted.
    pub allow_unauthenticated: bool,
    /// Names by which clients may call the API, beside `localhost`, this box's own and every address: a web page
    /// whose name was made to point here has another.
    pub hosts: Vec<String>,
    /// Requests that replay, by one person or program in a minute. 1 to 1,000,000.
    pub replays_per_minute: u32,
    pub auth: Auth,
    pub tls: Tls,
}

impl Default for Api {
    fn default() -> Api {
        Api {
            listen: SocketAddr::from(([127, 0, 0, 1], 9106)),
            allow_unauthenticated: false,
            hosts: Vec::new(),
            // An operator's loop of curl comes to about 100 a second.
            replays_per_minute: 30_000,
            auth: Auth::default(),
            tls: Tls::default(),
        }
    }
}

/// Who may ask; with neither users nor tokens, everybody who reaches the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// People who log in by name and password, as `crm-events-sink user` writes them. Empty: none.
    pub users_file: PathBuf,
    /// How bearer tokens (JWT) are signed: `HS256`, `RS256` or `ES256`, and by nothing else. Empty: none are taken.
    pub jwt_algorithm: JwtAlgorithm,
    /// HS256: the secret, 32 bytes or more. Else the public keys, as a JWKS (RFC 7517).
    pub jwt_key_file: PathBuf,
    /// What a token's `iss` and `aud` must be.
    pub jwt_issuer: String,
    pub jwt_audience: String,
    /// How far the clocks of this box and the issuer may differ. 0 to 5 min.
    #[serde(with = "duration")]
    pub jwt_leeway: Duration,
    /// Wrong passwords of one name, and wrong tokens, from one address in a minute; more have to wait. 1 to 1000.
    pub failures_per_minute: u32,
}

impl Auth {
    /// Whether who asks has to say who it is.
    pub fn is_on(&self) -> bool {
        self.has_users() || self.has_tokens()
    }

    pub fn has_users(&self) -> bool {
        !self.users_file.as_os_str().is_empty()
    }

    pub fn has_tokens(&self) -> bool {
        self.jwt_algorithm != JwtAlgorithm::None
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("api.auth.failures_per_minute", self.failures_per_minute, 1..=1000)?;
        within("api.auth.jwt_leeway", self.jwt_leeway, Duration::ZERO..=Duration::from_secs(300))?;
        if !self.has_tokens() {
            return Ok(());
        }
        not_empty("api.auth.jwt_issuer", &self.jwt_issuer, "https://login.example.com")?;
        not_empty("api.auth.jwt_audience", &self.jwt_audience, "crm-events-sink")?;
        not_empty("api.auth.jwt_key_file", &self.jwt_key_file.to_string_lossy(), "/etc/crm-events-sink/jwks.json")
    }
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            users_file: PathBuf::new(),
            jwt_algorithm: JwtAlgorithm::None,
            jwt_key_file: PathBuf::new(),
            jwt_issuer: String::new(),
            jwt_audience: String::new(),
            jwt_leeway: Duration::from_secs(30),
            failures_per_minute: 10,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    #[serde(rename = "")]
    None,
    HS256,
    RS256,
    ES256,
}

/// Both or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file: the certificate, then those between it and the authority's. Empty: the API speaks plain HTTP.
    pub certificate: PathBuf,
    /// A PEM file that only the service reads: the certificate's private key.
    pub key: PathBuf,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    pub listen: SocketAddr,
    /// Tenants that get a label of their own; the others share `_other`.
    pub max_tenants: usize,
    /// Whether Prometheus has to say who it is, as `api.auth` has it.
    pub auth: bool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { listen: SocketAddr::from(([127, 0, 0, 1], 9105)), max_tenants: 200, auth: false }
    }
}

impl Metrics {
    pub(super) fn check(&self, auth: &Auth) -> Result<(), ConfigError> {
        within("metrics.max_tenants", self.max_tenants, 0..=10_000)?;
        if self.auth && !auth.is_on() {
            return Err(ConfigError("metrics.auth: nobody could log in; set api.auth.users_file or api.auth.jwt_algorithm, or metrics.auth = false".into()));
        }
        Ok(())
    }
}

impl Api {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("api.replays_per_minute", self.replays_per_minute, 1..=1_000_000)?;
        self.auth.check()?;
        self.tls.check()?;
        self.refuse_open()
    }

    /// An API that others can reach asks who they are, unless the configuration says that they are trusted.
    fn refuse_open(&self) -> Result<(), ConfigError> {
        let listen = self.listen;
        if listen.ip().is_loopback() || self.auth.is_on() || self.allow_unauthenticated {
            return Ok(());
        }
        Err(ConfigError(format!(
            "api.listen: {listen} can be reached from other machines, and everybody there could replay events and see every tenant's; \
             set api.auth.users_file or api.auth.jwt_algorithm, listen on 127.0.0.1, or, if the whole network is trusted, \
             set api.allow_unauthenticated = true"
        )))
    }
}

impl Tls {
    fn check(&self) -> Result<(), ConfigError> {
        let Tls { certificate, key } = self;
        if certificate.as_os_str().is_empty() != key.as_os_str().is_empty() {
            return Err(ConfigError(
                "api.tls: certificate and key belong together; name both files, or none for plain HTTP".into(),
            ));
        }
        Ok(())
    }
}
