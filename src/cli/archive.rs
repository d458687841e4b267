//! `archive`: the files that events went to before they were deleted.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::ApiArgs;
use super::load_config;
use crate::Failure;
use crate::archive::check;
use crate::client::archive::{Files, list};
use crate::config::Overrides;
use crate::store::{Readers, StoreError};

#[derive(Args)]
pub struct ArchiveArgs {
    #[command(subcommand)]
    verb: ArchiveVerb,
}

#[derive(Subcommand)]
enum ArchiveVerb {
    /// The files, in the order in which they were written
    List {
        /// How many [default: 20]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// Where the list before this one ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Read every file and hold it against what the journal says of it; exit code 1 if one is missing or changed
    Verify(VerifyArgs),
}

#[derive(Args)]
struct VerifyArgs {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// archive.folder
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn run_archive(args: ArchiveArgs) -> ExitCode {
    match args.verb {
        ArchiveVerb::List { limit, cursor, api } => api.run(|shell| list(shell, Files { limit, cursor })),
        ArchiveVerb::Verify(args) => match verify(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(failure) => {
                eprintln!("crm-events-sink: {failure}");
                ExitCode::from(failure.exit_code())
            }
        },
    }
}

/// Whether every file is there and as it was written.
fn verify(args: VerifyArgs) -> Result<bool, Failure> {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    let config = load_config(args.config.as_deref(), &overrides)?;
    let folder = args.folder.unwrap_or(config.archive.folder);
    if folder.as_os_str().is_empty() {
        return Err(Failure::Config("archive.folder is not set; name the folder with --folder".to_owned()));
    }
    let (mut files, mut rows, mut wrong) = (0, 0, 0);
    let checked = check(&folder, &Readers::open(&config.journal.path), |file, finding| match finding {
        Some(finding) => {
            wrong += 1;
            println!("{}: {finding}", file.path);
        }
        None if file.erased.is_some() => {}
        None => {
            files += 1;
            rows += file.rows;
        }
    });
    checked.map_err(|error| StoreError::located(error, &config.journal.path))?;
    println!("{files} files with {rows} events are as they were written, {wrong} are not");
    Ok(wrong == 0)
}
