//! The configuration's files: the one that is named, and over it the drop-ins of the folder beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use toml::{Table, Value};

use super::{Config, ConfigError};

/// The folder beside the configuration file. Each of its files whose name ends in `.toml` may set any key; they are
/// read in the order of their names, a later one beats an earlier one.
const DROP_INS: &str = "config.d";

/// One file, as it is.
struct Layer {
    path: PathBuf,
    text: String,
}

/// The files, in the order in which they are laid over each other.
pub(super) struct Files(Vec<Layer>);

impl Files {
    /// `path` and its drop-ins; the file itself need not be there unless `is_needed`.
    pub fn read(path: &Path, is_needed: bool) -> Result<Files, ConfigError> {
        let mut paths = if is_needed || path.exists() { vec![path.to_owned()] } else { Vec::new() };
        paths.extend(drop_ins(&path.with_file_name(DROP_INS))?);
        let read = |path: PathBuf| Ok(Layer { text: read(&path)?, path });
        Ok(Files(paths.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Each file must be right by itself. Tables are merged; any other value replaces the one before, an array as a whole.
    pub fn merged(&self) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        for layer in &self.0 {
            layer.parse::<Config>()?;
            merge(&mut merged, layer.parse()?);
        }
        merged.try_into().map_err(|error| ConfigError(error.to_string()))
    }

    /// Where the setting that `error` begins with was given its value, for the end of the error's text.
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        let key = error.0.split(": ").next().unwrap_or_default();
        let found = self.0.iter().rev().find_map(|layer| layer.line_of(key).map(|line| (layer.path.display(), line)));
        match found {
            Some((file, line)) => ConfigError(format!("{} ({file}, line {line})", error.0)),
            None => error,
        }
    }
}

impl Layer {
    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        // The error's own text shows the offending line, which may hold a password: only its message is passed on.
        toml::from_str(&self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line_at(span.start));
            let (file, message) = (self.path.display(), error.message().trim_end());
            ConfigError(format!(
                "{file}, line {line}: {message}; every key is described in the file the package installs"
            ))
        })
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// The line of a key that is written as in TOML, `kafka.properties."acks"`.
    fn line_of(&self, key: &str) -> Option<usize> {
        let mut names: Table = format!("{key} = 0").parse().ok()?;
        let mut table = DeTable::parse(&self.text).ok()?.into_inner();
        loop {
            let (name, deeper) = names.into_iter().next()?;
            let (at, value) = table.into_iter().find(|(known, _)| known.get_ref() == name.as_str())?;
            match deeper {
                Value::Table(deeper) => names = deeper,
                _ => return Some(self.line_at(at.span().start)),
            }
            match value.into_inner() {
                toml::de::DeValue::Table(inner) => table = inner,
                _ => return None,
            }
        }
    }
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>());
    let mut paths = listed.map_err(|error| unreadable(folder, &error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let fix = match error.kind() {
        ErrorKind::NotFound => "create it or name another with --config FILE",
        ErrorKind::PermissionDenied => "let the service's user read it (root:crm-events-sink, 0640; a folder 0750)",
        _ => "it must be a readable UTF-8 text file",
    };
    ConfigError(format!("{}: cannot read the configuration: {error}; {fix}", path.display()))
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
