//! The service, and the clock that it lives by.

use std::process::{Command, Stdio};

use super::{Finding, Patient};

/// What a program of the box says, in one line; `None` where it is not there, or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&ran.stdout).trim().replace('\n', " ");
    (ran.status.success() && !said.is_empty()).then_some(said)
}

pub fn service() -> Finding {
    let check = "service";
    let property = |name: &str| said("systemctl", &["show", "crm-events-sink.service", "--value", "--property", name]);
    match (property("ActiveState").as_deref(), property("UnitFileState").as_deref()) {
        (Some("active"), Some("enabled")) => Finding::ok(check, "active, and enabled"),
        (Some("failed"), _) => Finding::fail(
            check,
            "it has failed",
            "see why: journalctl -u crm-events-sink -n 50; then systemctl start it",
        ),
        (Some("active"), _) => {
            Finding::warn(check, "active, but not started at boot", "systemctl enable crm-events-sink")
        }
        (Some(state), Some(_)) => {
            Finding::warn(check, format!("it is {state}"), "systemctl enable --now crm-events-sink")
        }
        (_, _) => Finding::ok(check, "no unit of systemd is here to be looked at"),
    }
}

/// What the running sink says of itself.
pub fn health(patient: &Patient) -> Finding {
    let check = "health";
    let (status, body) = match patient.api.look("/health") {
        Ok(answer) => answer,
        Err(error) => return Finding::warn(check, error.to_string(), "systemctl start crm-events-sink"),
    };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reasons: Vec<&str> = body["reasons"].as_array().into_iter().flatten().filter_map(|why| why.as_str()).collect();
    match status {
        200 => Finding::ok(check, "the sink says that it is well"),
        401 | 403 => Finding::warn(
            check,
            "it was not told: these are not the right credentials",
            "set CRM_EVENTS_SINK_USER and CRM_EVENTS_SINK_PASSWORD, or CRM_EVENTS_SINK_TOKEN",
        ),
        _ => Finding::fail(check, reasons.join("; "), "docs/operating.md has what each reason asks for"),
    }
}

pub fn synchronized() -> Finding {
    let check = "time synchronization";
    match said("timedatectl", &["show", "--value", "--property", "NTPSynchronized"]).as_deref() {
        Some("yes") => Finding::ok(check, "the clock follows a time server"),
        Some(_) => Finding::warn(check, "the clock follows no time server", "timedatectl set-ntp true"),
        None => Finding::ok(check, "no timedatectl is here to be asked"),
    }
}
