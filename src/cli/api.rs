//! Where the API is, who asks it, and how a verb that uses it ends.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::load_config;
use crate::Failure;
use crate::client::{Api, Client, ClientError, Credentials, Outcome, Shell, say};
use crate::config::Overrides;

#[derive(Args)]
pub struct ApiArgs {
    /// Where the API is [default: api.listen of the configuration]
    #[arg(long, value_name = "http://HOST:PORT", global = true)]
    api: Option<Api>,
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
        let api = match self.address() {
            Ok(api) => api,
            Err(failure) => {
                say(&format!("crm-events-sink: {failure}"));
                return ExitCode::from(failure.exit_code());
            }
        };
        let shell = Shell { client: Client::new(api, &operator(), credentials()), json };
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

    fn address(self) -> Result<Api, Failure> {
        if let Some(api) = self.api {
            return Ok(api);
        }
        let mut listen = load_config(self.config.as_deref(), &Overrides::default())?.api.listen;
        // Listening on every address includes this box's own.
        match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        format!("http://{listen}").parse().map_err(Failure::Config)
    }
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
