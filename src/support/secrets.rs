//! The secrets that this program knows of, so that none of them is in what it gives away, wherever it came from.

use std::fs;
use std::path::Path;

use crate::config::{Config, JwtAlgorithm};

/// A shorter word may be part of another one by chance.
const BYTES_MIN: usize = 4;
const HIDDEN: &str = "(not shown)";

pub struct Secrets(Vec<String>);

impl Secrets {
    /// Properties of Kafka that are not shown, and each line of the files that hold users, keys and private keys.
    pub fn of(config: &Config) -> Secrets {
        let mut secrets: Vec<String> = config.secrets().map(|property| property.text()).collect();
        let auth = &config.api.auth;
        secrets.extend(words(&auth.users_file));
        secrets.extend(words(&config.api.tls.key));
        if auth.jwt_algorithm == JwtAlgorithm::HS256 {
            // The other algorithms' keys are public.
            secrets.extend(words(&auth.jwt_key_file));
        }
        for name in ["CRM_EVENTS_SINK_PASSWORD", "CRM_EVENTS_SINK_TOKEN"] {
            secrets.extend(std::env::var(name));
        }
        secrets.retain(|secret| secret.len() >= BYTES_MIN);
        // The longest first: one may begin another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(secrets)
    }

    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
    }
}

/// The last part of each line: a hash, a secret, a line of PEM.
fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let last = |line: &str| line.rsplit(':').next().unwrap_or(line).trim().to_owned();
    text.lines().filter(|line| !line.starts_with("-----") && !line.starts_with('#')).map(last).collect()
}
