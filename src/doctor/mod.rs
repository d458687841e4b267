//! `crm-events-sink doctor`: what is right with the box and what is not, and what to do. It only looks, with the sink running or
//! stopped.
//!
//! `access` people, keys and certificates; `broker` Kafka; `disk` room, files and backups; `journal` what is in the file;
//! `running` the service and the clock.

mod access;
mod broker;
mod disk;
mod journal;
mod running;

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::client::Client;
use crate::config::Config;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, and will not for ever; or it could not be seen.
    Warn,
    /// It does not work, or something is lost.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    pub what: String,
    /// What to do, where it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, what: what.into(), fix: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Fail, what: what.into(), fix: Some(fix.into()) }
    }

    /// What a look at a setting said: its error says what to do as well.
    fn of<T, E: fmt::Display>(check: &'static str, looked: &Result<T, E>, well: impl FnOnce(&T) -> String) -> Finding {
        match looked {
            Ok(value) => Finding::ok(check, well(value)),
            Err(error) => Finding { check, level: Level::Fail, what: error.to_string(), fix: None },
        }
    }

    /// The configuration cannot be read: nothing else can be looked at.
    pub fn of_configuration(error: &impl fmt::Display) -> Finding {
        Finding { check: "configuration", level: Level::Fail, what: error.to_string(), fix: None }
    }
}

/// A line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let word = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{word}  {}: {}", self.check, self.what.trim().replace('\n', ", "))?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, ". What to do: {}", fix.replace('\n', ", ")))
    }
}

/// What is looked at.
pub struct Patient<'a> {
    pub config: &'a Config,
    /// The file that the configuration came from, where there is one.
    pub file: Option<&'a Path>,
    pub api: &'a Client,
    pub now: Timestamp,
}

/// Looks at everything. Where the broker does not answer it takes ten seconds.
pub fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = vec![access::configuration(patient), access::properties(patient)];
    findings.extend([access::people(patient), access::certificate(patient)]);
    findings.extend([disk::folder(patient), disk::files(patient), disk::room(patient), disk::log(patient)]);
    findings.extend(journal::look(patient));
    findings.extend([running::service(), running::health(patient), running::synchronized()]);
    findings.extend(broker::look(patient));
    findings.push(disk::backup(patient));
    findings
}
