//! Secrets that systemd hands to the service alone (`LoadCredential=`): a setting names one, the file has it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, Property, Tls};

/// What a setting begins with that names a credential.
const CREDENTIAL: &str = "credential:";
/// Where systemd says that the credentials are.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// `config` with what its `credential:NAME` stand for: in `kafka.properties`, the credential's text without the end of its
/// line, or the file's path for a property that names a file (`ssl.key.location`); in `api.tls` and for
/// `api.auth.jwt_key_file` the path. For whoever talks to Kafka or serves; it must not be shown.
///
/// # Errors
/// Names the setting and the credential that is not there, or is no text.
pub fn with_credentials(config: Config) -> Result<Config, ConfigError> {
    resolve(config, env::var_os(DIRECTORY))
}

fn resolve(mut config: Config, directory: Option<OsString>) -> Result<Config, ConfigError> {
    let directory = directory.map(PathBuf::from);
    for (name, value) in &mut config.kafka.properties {
        let Property::Text(text) = value else { continue };
        let key = format!("kafka.properties.{name:?}");
        let Some(path) = credential(&key, text, directory.as_deref())? else { continue };
        *text = if name.ends_with(".location") { path.to_string_lossy().into_owned() } else { content(&key, &path)? };
    }
    let api = &mut config.api;
    let files = [
        ("api.tls.certificate", &mut api.tls.certificate),
        ("api.tls.key", &mut api.tls.key),
        ("api.auth.jwt_key_file", &mut api.auth.jwt_key_file),
    ];
    for (key, file) in files {
        if let Some(path) = credential(key, &file.to_string_lossy(), directory.as_deref())? {
            *file = path;
        }
    }
    Ok(config)
}

impl Config {
    /// Without the files that are credentials, for a check where there are none: TLS whose files are is off.
    pub fn without_credentials(&self) -> Config {
        let mut config = self.clone();
        let tls = &mut config.api.tls;
        if [&tls.certificate, &tls.key].iter().any(|file| file.to_string_lossy().starts_with(CREDENTIAL)) {
            *tls = Tls::default();
        }
        let names = |value: &Property| matches!(value, Property::Text(text) if text.starts_with(CREDENTIAL));
        config.kafka.properties.retain(|_, value| !names(value));
        config
    }
}

/// The credential's file, if `value` names one.
fn credential(key: &str, value: &str, directory: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
    let Some(name) = value.strip_prefix(CREDENTIAL) else { return Ok(None) };
    let wrong = |what: String| Err(ConfigError(format!("{key}: {what}")));
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return wrong(format!("{name:?} is no name of a credential; give credential:NAME, as LoadCredential= has it"));
    }
    let Some(directory) = directory else {
        return wrong(format!(
            "the credential {name:?} is handed to the service alone ({DIRECTORY} is not set here); give LoadCredential={name}:/FILE in a drop-in of the unit"
        ));
    };
    let path = directory.join(name);
    if !path.exists() {
        return wrong(format!(
            "there is no credential {name:?} in {}; give LoadCredential={name}:/FILE in a drop-in of the unit",
            directory.display()
        ));
    }
    Ok(Some(path))
}

fn content(key: &str, path: &Path) -> Result<String, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError(format!("{key}: cannot read the credential {}: {error}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
