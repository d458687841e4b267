//! The configuration, and who is let in by it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Finding, Patient};
use crate::auth::Gate;
use crate::{consume, serve};

/// When a certificate's end is spoken of: time enough to get another from most authorities.
const CERTIFICATE_SOON_DAYS: i64 = 14;

/// It was read; but who else may?
pub fn configuration(patient: &Patient) -> Finding {
    let check = "configuration";
    let Some(file) = patient.file else {
        return Finding::ok(check, "valid; there is no file, the defaults are in force");
    };
    let at = file.display();
    let has_secret = patient.config.kafka.properties.keys().any(|name| name.contains("password"));
    let is_open = fs::metadata(file).is_ok_and(|file| file.mode() & 0o004 != 0);
    if has_secret && is_open {
        let what = format!("valid, but every user of this box may read {at}, which holds a password");
        return Finding::warn(check, what, format!("chmod o-rwx {at}"));
    }
    Finding::ok(check, format!("{at} is valid"))
}

pub fn properties(patient: &Patient) -> Finding {
    Finding::of("kafka properties", &consume::check_settings(patient.config), |()| "accepted by librdkafka".to_owned())
}

/// Users and keys, as the sink reads them.
pub fn people(patient: &Patient) -> Finding {
    let auth = &patient.config.api.auth;
    let well = |_: &Gate| match (auth.has_users(), auth.has_tokens()) {
        (false, false) => "nobody has to say who it is: api.auth is off".to_owned(),
        (users, tokens) => format!("passwords {}, tokens {}", on(users), on(tokens)),
    };
    Finding::of("users", &Gate::new(patient.config), well)
}

fn on(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

pub fn certificate(patient: &Patient) -> Finding {
    let check = "certificate";
    let file = patient.config.api.tls.certificate.display();
    let certificate = match serve::certificate(patient.config) {
        Ok(Some(certificate)) => certificate,
        Ok(None) => return Finding::ok(check, "none: the API speaks plain HTTP"),
        Err(error) => return Finding::of::<(), _>(check, &Err(error), |()| String::new()),
    };
    let fix = "put a new pair in the place of the files and run: systemctl reload crm-events-sink";
    let Some(ends_at) = certificate.ends_at() else {
        return Finding::warn(check, format!("it cannot be seen when {file} ends"), fix);
    };
    match (ends_at - patient.now.as_second()).div_euclid(86_400) {
        days if days < 0 => Finding::fail(check, format!("{file} has ended"), fix),
        days if days < CERTIFICATE_SOON_DAYS => Finding::warn(check, format!("{file} ends in {days} days"), fix),
        days => Finding::ok(check, format!("{file} ends in {days} days")),
    }
}
