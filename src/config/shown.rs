//! The settings as they may be seen.

use super::{Config, ConfigError, Property};

/// What a property's name has in it if its value is a secret.
const SECRET: [&str; 6] = ["password", "secret", "key", "jaas", "config", "pem"];

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
}

impl Config {
    /// As TOML, without what is secret.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    pub fn shown(&self) -> Result<String, ConfigError> {
        let mut shown = self.clone();
        for (_, value) in shown.kafka.properties.iter_mut().filter(|(name, _)| is_secret(name)) {
            *value = Property::Text("(not shown)".to_owned());
        }
        toml::to_string(&shown).map_err(|error| ConfigError(error.to_string()))
    }

    /// The values that are secret.
    pub fn secrets(&self) -> impl Iterator<Item = &Property> {
        self.kafka.properties.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value)
    }
}
