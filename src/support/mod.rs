//! `crm-events-sink support-bundle`: what somebody who helps needs to know of the box, without what the box is there to keep: no
//! payload, no key, no header, no secret.

mod secrets;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use self::secrets::Secrets;
use crate::client::Client;
use crate::config::Config;
use crate::doctor::Finding;
use crate::store::{self, file_sizes};

/// The folder in the archive.
const FOLDER: &str = "crm-events-sink-support";
/// Lines of the log at most.
const LOG_LINES: &str = "2000";
/// Of the unit; its environment is not asked for.
const UNIT: &str = "LoadState,ActiveState,SubState,Result,UnitFileState,NRestarts,ExecMainStatus,ExecMainCode,ActiveEnterTimestamp,\
    InactiveEnterTimestamp,WatchdogTimestamp,StatusText,MemoryCurrent,MemoryMax,TasksCurrent,LimitNOFILE,DropInPaths";
/// Bytes of one file at most; the beginning of a longer one is kept.
const FILE_BYTES_MAX: usize = 4 << 20;

/// What is asked.
pub struct Bundle<'a> {
    pub config: &'a Config,
    /// The operators' API, and the port that Prometheus reads.
    pub api: &'a Client,
    pub metrics: &'a Client,
    pub findings: &'a [Finding],
}

/// Writes a tar archive, compressed by gzip, to `to`. What cannot be had is said in its place.
///
/// # Errors
/// If `to` cannot be written.
pub fn write_bundle(bundle: &Bundle, to: impl Write) -> io::Result<()> {
    let secrets = Secrets::of(bundle.config);
    let mut archive = Builder::new(GzEncoder::new(to, Compression::default()));
    for (name, text) in files(bundle) {
        append(&mut archive, name, &secrets.hide(&text))?;
    }
    archive.into_inner()?.finish()?.flush()
}

fn append(archive: &mut Builder<impl Write>, name: &str, text: &str) -> io::Result<()> {
    let bytes = &text.as_bytes()[..text.len().min(FILE_BYTES_MAX)];
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
    archive.append_data(&mut header, format!("{FOLDER}/{name}"), bytes)
}

fn files(bundle: &Bundle) -> Vec<(&'static str, String)> {
    let config = bundle.config;
    let unit = "crm-events-sink.service";
    let doctor = bundle.findings.iter().map(|finding| format!("{finding}\n")).collect();
    vec![
        ("version.txt", version()),
        ("config.toml", config.shown().unwrap_or_else(|error| format!("# {error}\n"))),
        ("doctor.txt", doctor),
        ("health.json", asked(bundle.api, "/health")),
        ("integrity.json", asked(bundle.api, "/integrity")),
        ("metrics.txt", asked(bundle.metrics, "/metrics")),
        ("journal.txt", journal(&config.journal.path)),
        ("log.txt", said("journalctl", &["-u", unit, "-n", LOG_LINES, "--no-pager", "-o", "short-iso"])),
        ("unit.txt", said("systemctl", &["show", unit, "--no-pager", "--property", UNIT])),
        ("kernel.txt", said("uname", &["-srvm"])),
        ("disk.txt", said("df", &["-PkT"]) + &said("df", &["-Pi"])),
        ("memory.txt", said("cat", &["/proc/meminfo", "/proc/loadavg", "/proc/uptime"])),
    ]
}

fn version() -> String {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let target = format!("{} {}", std::env::consts::ARCH, std::env::consts::OS);
    format!("crm-events-sink {} ({build}, {target}), SQLite {}\n", env!("CARGO_PKG_VERSION"), store::sqlite_version())
}

fn asked(client: &Client, path: &str) -> String {
    match client.look(path) {
        Ok((status, body)) => format!("{}\n# {path}: {status}\n", String::from_utf8_lossy(&body)),
        Err(error) => format!("# {path}: {error}\n"),
    }
}

/// Sizes, tables, counts and offsets; of no row what is in it.
fn journal(journal: &Path) -> String {
    let (file, log) = file_sizes(journal);
    let head = format!("{}: {file} bytes, -wal: {log} bytes\n", journal.display());
    match store::outline(journal) {
        Ok(outline) => head + &outline,
        Err(error) => format!("{head}{error}\n"),
    }
}

/// What a program of the box prints, or that it does not.
fn said(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output();
    match ran {
        Ok(ran) => String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr),
        Err(error) => format!("# {program}: {error}\n"),
    }
}
