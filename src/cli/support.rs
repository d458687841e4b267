//! `support-bundle`: what somebody who helps needs to know.

use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::api::{client_of, metrics_client_of};
use super::backup::print;
use super::doctor::findings;
use super::load_config;
use crate::Failure;
use crate::config::Overrides;
use crate::support::{Bundle, write_bundle};

#[derive(Args)]
pub struct SupportArgs {
    /// The file to make [default: crm-events-sink-support-TIME.tar.gz in this folder]
    #[arg(long, value_name = "FILE.tar.gz")]
    to: Option<PathBuf>,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

pub fn run_support(args: SupportArgs) -> Result<(), Failure> {
    let overrides = Overrides { journal: args.journal.clone(), ..Overrides::default() };
    let config = load_config(args.config.as_deref(), &overrides)?;
    let path = args.to.unwrap_or_else(|| {
        Timestamp::now().strftime("crm-events-sink-support-%Y%m%dT%H%M%SZ.tar.gz").to_string().into()
    });
    let at = path.display();
    let failed = |error: std::io::Error| Failure::Output(format!("{at}: {error}; name another file with --to"));
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let findings = findings(args.config.as_deref(), args.journal);
    let (api, metrics) = (client_of(&config.api)?, metrics_client_of(&config.metrics)?);
    let bundle = Bundle { config: &config, api: &api, metrics: &metrics, findings: &findings };
    write_bundle(&bundle, BufWriter::new(&file)).and_then(|()| file.sync_all()).map_err(failed)?;
    print(&format!(
        "{at}: no payloads, keys, headers or secrets are in it; topics, tenants and this box's names are. Look into it before you give it away: tar -tzf {at}\n"
    ))
}
