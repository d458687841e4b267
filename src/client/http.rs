//! Requests to the API, and their answers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Error, Timeout};

use super::{ClientError, Trust};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// What acts may wait for Kafka first, for up to the longest `replay.timeout` (5 min).
const ACT_PATIENCE: Duration = Duration::from_secs(330);
/// How often a request with a key is sent at most, and the time between.
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
/// Larger than any record that Kafka gives; keeps a stranger from filling the memory.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
const DOWNLOAD_BUFFER_BYTES: usize = 64 << 10;

/// Where the API is, as `http://127.0.0.1:9106`.
#[derive(Debug, Clone)]
pub struct Api(String);

impl Api {
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Api, String> {
        let wrong = || "give http://HOST:PORT or https://HOST:PORT, as http://127.0.0.1:9106".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        match (uri.scheme_str(), uri.authority(), uri.path(), uri.query()) {
            (Some(scheme @ ("http" | "https")), Some(authority), "/" | "", None)
                if !authority.as_str().contains('@') =>
            {
                Ok(Api(format!("{scheme}://{authority}")))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The API, and who asks it.
pub struct Client {
    agent: Agent,
    api: Api,
    operator: String,
    /// The header `Authorization`.
    authorization: Option<String>,
}

/// What to log in with.
pub enum Credentials {
    Password { name: String, password: String },
    Token(String),
}

impl Credentials {
    fn header(&self) -> String {
        match self {
            Credentials::Password { name, password } => {
                format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
            }
            Credentials::Token(token) => format!("Bearer {token}"),
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Request {
    acts: bool,
    /// The answer is long: it may take what time it takes, and stands in the audit.
    is_download: bool,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<(&'static str, Vec<u8>)>,
    key: Option<String>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Request {
        Request { acts: false, is_download: false, path: path.into(), query: Vec::new(), body: None, key: None }
    }

    pub fn download(path: impl Into<String>) -> Request {
        Request { is_download: true, ..Request::get(path) }
    }

    pub fn post(path: impl Into<String>) -> Request {
        Request { acts: true, ..Request::get(path) }
    }

    /// Adds what there is of a parameter to the query.
    pub fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Request {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Adds `name=true` to the query, or nothing.
    pub fn flag(self, name: &'static str, is_set: bool) -> Request {
        self.with(name, is_set.then_some(true))
    }

    pub fn body(mut self, content_type: &'static str, body: Vec<u8>) -> Request {
        self.body = Some((content_type, body));
        self
    }

    /// Done once, however often it arrives: so it can be sent again when its answer is lost.
    pub fn once(mut self) -> Request {
        self.key = Some(format!("{:032x}", fastrand::u128(..)));
        self
    }

    fn url(&self, api: &Api) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{api}{}{mark}{query}", self.path)
    }
}

/// What the API answered, when it did what it was asked for.
#[derive(Debug)]
pub struct Answer {
    api: Api,
    /// From `Link: …; rel="next"`: where the list goes on.
    pub cursor: Option<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ClientError::Foreign { api: self.api.to_string(), why: error.to_string() })
    }
}

#[derive(Deserialize)]
struct Detail {
    detail: String,
}

impl Client {
    pub fn new(api: Api, operator: &str, credentials: Option<Credentials>, trust: Trust) -> Client {
        let agent = Agent::config_builder()
            // What a 409 says is needed.
            .http_status_as_error(false)
            .max_redirects(0)
            // The API is on this box: no proxy of the environment's stands between.
            .proxy(None)
            // Minutes may pass before an answer to a question; a connection that was closed meanwhile must not meet
            // a request that acts.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_PATIENCE))
            .tls_config(trust.config())
            .user_agent(concat!("crm-events-sink/", env!("CARGO_PKG_VERSION")))
            .build();
        // A header holds ASCII alone.
        let authorization = credentials.map(|credentials| credentials.header());
        Client { agent: agent.into(), api, operator: operator.escape_default().to_string(), authorization }
    }

    /// Sends a request, and one with a key again while it is not known what became of it.
    ///
    /// # Errors
    /// The API cannot be reached, or refuses.
    pub fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        let mut answered = self.send(request);
        for _ in 1..ATTEMPTS {
            if request.key.is_none() || !matches!(answered, Err(ClientError::Unknown { .. })) {
                break;
            }
            thread::sleep(BETWEEN_ATTEMPTS);
            answered = match self.send(request) {
                // That says nothing of the attempt before.
                Err(ClientError::Unreachable { .. }) => answered,
                again => again,
            };
        }
        answered
    }

    fn send(&self, request: &Request) -> Result<Answer, ClientError> {
        let mut response = self.call(request).map_err(|error| self.not_answered(request, &error))?;
        let cursor = response.headers().get("link").and_then(|link| link.to_str().ok()).and_then(cursor);
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.not_answered(request, &error))?;
        if (200..300).contains(&status) {
            return Ok(Answer { api: self.api.clone(), cursor, body });
        }
        Err(self.refused(status, body))
    }

    /// Writes the answer's body to `to`, and gives its length.
    ///
    /// # Errors
    /// The API cannot be reached, refuses, or the body did not come whole.
    pub fn download(&self, request: &Request, to: &mut impl Write) -> Result<u64, ClientError> {
        let mut response = self.call(request).map_err(|error| self.not_answered(request, &error))?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            return Err(self.refused(status, body.map_err(|error| self.not_answered(request, &error))?));
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; DOWNLOAD_BUFFER_BYTES];
        let mut bytes = 0;
        loop {
            let broken = |error: io::Error| ClientError::Broken { api: self.api.to_string(), why: error.to_string() };
            let read = body.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                return Ok(bytes);
            }
            to.write_all(&buffer[..read])?;
            bytes += read as u64;
        }
    }

    fn refused(&self, status: u16, body: Vec<u8>) -> ClientError {
        let detail = match serde_json::from_slice::<Detail>(&body) {
            Ok(Detail { detail }) => detail,
            Err(_) => format!("{} answered {status}: {:.200}", self.api, String::from_utf8_lossy(&body)),
        };
        ClientError::Refused { status, detail, body }
    }

    fn call(&self, request: &Request) -> Result<Response<Body>, Error> {
        let url = request.url(&self.api);
        if !request.acts {
            let mut get = self.agent.get(url);
            if let Some(authorization) = &self.authorization {
                get = get.header("authorization", authorization);
            }
            if request.is_download {
                let get = get.header("x-operator", &self.operator).config();
                return get.timeout_recv_response(Some(READ_PATIENCE)).build().call();
            }
            return get.config().timeout_global(Some(READ_PATIENCE)).build().call();
        }
        let mut post = self.agent.post(url).header("x-operator", &self.operator);
        if let Some(authorization) = &self.authorization {
            post = post.header("authorization", authorization);
        }
        if let Some(key) = &request.key {
            post = post.header("idempotency-key", key);
        }
        let post = post.config().timeout_global(Some(ACT_PATIENCE)).build();
        match &request.body {
            Some((content_type, body)) => post.content_type(*content_type).send(body),
            None => post.send_empty(),
        }
    }

    /// A request that cannot have arrived was not done; of one that acts and may have, nothing is claimed.
    fn not_answered(&self, request: &Request, error: &Error) -> ClientError {
        let never_sent = match error {
            Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) | Error::Http(_) => true,
            Error::Timeout(timeout) => matches!(timeout, Timeout::Resolve | Timeout::Connect),
            Error::Io(error) if is_of_handshake(error) => true,
            Error::Io(error) => [
                ErrorKind::ConnectionRefused,
                ErrorKind::HostUnreachable,
                ErrorKind::NetworkUnreachable,
                ErrorKind::AddrNotAvailable,
            ]
            .contains(&error.kind()),
            _ => false,
        };
        let why = match error {
            Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let api = self.api.to_string();
        match error {
            _ if request.acts && !never_sent => ClientError::Unknown { api, why },
            Error::Protocol(_) => ClientError::Foreign { api, why },
            _ => ClientError::Unreachable { api, why },
        }
    }
}

/// Before a certificate is believed, nothing is sent.
fn is_of_handshake(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn cursor(link: &str) -> Option<String> {
    let (target, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    let (_, query) = target.split_once('?')?;
    let cursor = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cursor")?;
    Some(cursor.1.into_owned())
}
