//! Where the API is, who asks it, and how a verb that uses it ends.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::load_config;
use crate::Failure;
use crate::client::{Api, Client, ClientError, Credentials, Outcome, Shell, Trust, say};
use crate::config::{self, Overrides};

#[derive(Args)]
pub struct ApiArgs {
    /// Where the API is [default: api.listen of the configuration]
    #[arg(long, value_name = "http[s]://HOST:PORT", global = true)]
    api: Option<Api>,
    /// Authority that signed the API's certificate, a PEM file; also CRM_EVENTS_SINK_CA [default: this machine's]
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print the API's JSON as it came, for scripts
    #[arg(long, global = true)]
    json: bool,
}

impl ApiArgs {
    /// Does a verb, says what went wrong, and gives the exit code: 0 done, 1 not all of it or refused, 2 not confirmed,
    /// 130 left by Ctrl-C, else as [`ClientError::exit_code`] and [`Failure::exit_code`] say.
    pub fn run(self, verb: impl FnOnce(&Shell) -> Result<Outcome, ClientError>) -> ExitCode {
        let json = self.json;
        let client = match self.client() {
            Ok(client) => client,
            Err(failure) => {
                say(&format!("crm-events-sink: {failure}"));
                return ExitCode::from(failure.exit_code());
            }
        };
        let shell = Shell { client, json };
        match verb(&shell) {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            Ok(Outcome::NotAll) => ExitCode::FAILURE,
            Ok(Outcome::Left) => ExitCode::from(130),
            Err(error) => {
                shell.failed(&error);
                ExitCode::from(error.exit_code())
            }
        }
    }

    fn client(self) -> Result<Client, Failure> {
        let (api, own) = match self.api {
            Some(api) => (api, PathBuf::new()),
            None => address(&load_config(self.config.as_deref(), &Overrides::default())?.api)?,
        };
        client(api, &own, self.ca)
    }
}

/// Of the API that the configuration means.
pub fn client_of(config: &config::Api) -> Result<Client, Failure> {
    let (api, own) = address(config)?;
    client(api, &own, None)
}

/// Of the port that Prometheus reads.
pub fn metrics_client_of(config: &config::Metrics) -> Result<Client, Failure> {
    let api = format!("http://{}", reachable(config.listen)).parse().map_err(Failure::Config)?;
    client(api, Path::new(""), None)
}

fn client(api: Api, own: &Path, ca: Option<PathBuf>) -> Result<Client, Failure> {
    let named = std::env::var_os("CRM_EVENTS_SINK_CA").filter(|file| !file.is_empty()).map(PathBuf::from);
    let trust = match ca.or(named) {
        _ if !api.is_https() => Trust::default(),
        Some(file) => Trust::only(&file).map_err(Failure::Config)?,
        None => Trust::system_and(own),
    };
    Ok(Client::new(api, &operator(), credentials(), trust))
}

/// Listening on every address includes this box's own.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// Where the configuration says that the API is, and the file of its certificate.
fn address(config: &config::Api) -> Result<(Api, PathBuf), Failure> {
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    let api = format!("{scheme}://{}", reachable(config.listen)).parse().map_err(Failure::Config)?;
    Ok((api, config.tls.certificate.clone()))
}

/// The verb that was named, or what the bare word means. Options before a verb would be lost, so they are refused.
pub fn verb_or<V, A: Default + PartialEq>(
    word: &str,
    verb: Option<V>,
    bare: A,
    meaning: impl FnOnce(A) -> V,
) -> Result<V, ClientError> {
    match verb {
        None => Ok(meaning(bare)),
        Some(verb) if bare == A::default() => Ok(verb),
        Some(_) => Err(ClientError::Usage(format!("options stand after the verb, as: {word} VERB --option"))),
    }
}

/// What the environment says to log in with; a command line could be read by everybody on this box.
fn credentials() -> Option<Credentials> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(token) = given("CRM_EVENTS_SINK_TOKEN") {
        return Some(Credentials::Token(token));
    }
    let (name, password) = (given("CRM_EVENTS_SINK_USER")?, given("CRM_EVENTS_SINK_PASSWORD").unwrap_or_default());
    Some(Credentials::Password { name, password })
}

/// The person, also behind sudo.
fn operator() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    named("SUDO_USER").or_else(|| named("USER")).unwrap_or_else(|| {
        let uid = fs::metadata("/proc/self").map(|process| process.uid().to_string());
        uid.map_or_else(|_| "unknown".to_owned(), |uid| format!("uid {uid}"))
    })
}
