//! `check-journal`, `quarantine` and `sql`: the journal's file, without the API.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use jiff::Timestamp;

use super::backup::print;
use super::load_config;
use crate::Failure;
use crate::client::say;
use crate::config::Overrides;
use crate::store::{self, SqlError, StoreError, run_sql};

#[derive(Args)]
pub struct JournalArgs {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Args)]
pub struct SqlArgs {
    /// Refuse to write
    #[arg(long)]
    readonly: bool,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// The statements; without them they are read from standard input
    statements: Option<String>,
}

fn journal(args: JournalArgs) -> Result<PathBuf, Failure> {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    Ok(load_config(args.config.as_deref(), &overrides)?.journal.path)
}

pub fn check_journal(args: JournalArgs) -> Result<(), Failure> {
    let journal = journal(args)?;
    let (began, mut said) = (Instant::now(), 0);
    let findings = store::check_whole(&journal, move || {
        let seconds = began.elapsed().as_secs();
        if seconds > said && io::stderr().is_terminal() {
            said = seconds;
            write!(io::stderr(), "\rchecking: {seconds} s").ok();
        }
    });
    if began.elapsed().as_secs() > 0 && io::stderr().is_terminal() {
        say("");
    }
    let findings = findings?;
    if findings.is_empty() {
        return print(&format!("{}: the journal is whole\n", journal.display()));
    }
    for finding in &findings {
        print(&format!("{finding}\n"))?;
    }
    Err(StoreError::damaged(&journal, format!("{} findings, see above", findings.len())).into())
}

pub fn quarantine(args: JournalArgs) -> Result<(), Failure> {
    let journal = journal(args)?;
    let aside = store::quarantine(&journal, Timestamp::now())?;
    print(&format!(
        "The journal is now {aside}, and so are its -wal and -shm where there were any. Nothing was changed in them:\n  \
         crm-events-sink sql --readonly --journal {aside} 'SELECT count(*) FROM event_journal'\n\
         Now start the sink. It makes a new {journal} and reads from Kafka everything that Kafka still has.\n",
        aside = aside.display(),
        journal = journal.display(),
    ))
}

pub fn sql(args: SqlArgs) -> ExitCode {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    let done =
        load_config(args.config.as_deref(), &overrides).map_err(|failure| failure.to_string()).and_then(|config| {
            let statements = args.statements.map_or_else(|| io::read_to_string(io::stdin()), Ok);
            let statements = statements.map_err(|error| format!("cannot read the statements: {error}"))?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            let ran = run_sql(&config.journal.path, &statements, args.readonly, &mut out);
            let flushed = out.flush().map_err(SqlError::from);
            ran.and(flushed).map_err(|error| format!("{}: {error}", config.journal.path.display()))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crm-events-sink: {message}");
            ExitCode::FAILURE
        }
    }
}
