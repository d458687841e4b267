//! `backup` and `restore`: the journal, away and back.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::load_config;
use super::progress::Progress;
use crate::Failure;
use crate::backup::{self, Comparison, Restore, Restored, Take, Taken};
use crate::config::Overrides;
use crate::store::JournalContents;

/// Offsets that are listed.
const OFFSETS_SHOWN_MAX: usize = 100;

#[derive(Args)]
pub struct BackupArgs {
    /// The folder for it; it must exist [default: backup.folder]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Remove all but so many, the oldest first, once the new one is proven [default: backup.keep; with --to: none is removed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keep: Option<u32>,
    /// Compress it with zstd [default: backup.zstd]
    #[arg(long)]
    zstd: bool,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// The backup: journal-….db or journal-….db.zst, as `backup` made it
    file: PathBuf,
    /// Do all but the exchange, and say what it would do; the sink may run
    #[arg(long)]
    dry_run: bool,
    /// Even if the journal holds what the backup does not; what is replaced is moved aside either way
    #[arg(long)]
    force: bool,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

pub fn run_backup(args: BackupArgs) -> Result<(), Failure> {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    let config = load_config(args.config.as_deref(), &overrides)?;
    let keep = args.keep.or(args.to.is_none().then_some(config.backup.keep));
    let folder = args.to.unwrap_or(config.backup.folder);
    if folder.as_os_str().is_empty() {
        let fix = "backup.folder: names no folder; set it, as \"/var/lib/crm-events-sink/backups\", or give --to DIR";
        return Err(Failure::Config(fix.to_owned()));
    }
    let wanted = Take { journal: &config.journal.path, folder: &folder, keep, zstd: args.zstd || config.backup.zstd };
    let progress = Progress::start();
    let taken = backup::take(&wanted, &progress.watch());
    drop(progress);
    print(&taken_text(&taken?))
}

pub fn run_restore(args: RestoreArgs) -> Result<(), Failure> {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    let journal = load_config(args.config.as_deref(), &overrides)?.journal.path;
    let wanted = Restore { file: &args.file, journal: &journal, dry_run: args.dry_run, force: args.force };
    let progress = Progress::start();
    let restored = backup::restore(&wanted, &progress.watch());
    drop(progress);
    print(&restored_text(&wanted, &restored?))
}

fn taken_text(taken: &Taken) -> String {
    let mut text = format!(
        "{}: {} bytes in {:.1} s, sha256 {}\n",
        taken.path.display(),
        taken.bytes,
        taken.took.as_secs_f64(),
        taken.sha256
    );
    text += &contents_text("It holds", &taken.contents);
    for removed in &taken.removed {
        writeln!(text, "removed {}", removed.display()).ok();
    }
    text
}

fn restored_text(wanted: &Restore, Restored { comparison, aside }: &Restored) -> String {
    let Comparison { backup, journal, newer, is_sealed, bytes } = comparison;
    let sealed = if *is_sealed { "it has the hash in its .sha256" } else { "there is no .sha256 to compare it with" };
    let mut text = format!("{}: whole, {bytes} bytes unpacked; {sealed}\n", wanted.file.display());
    text += &contents_text("The backup holds", backup);
    match journal {
        None => text += "There is no journal now\n",
        Some(Err(why)) => writeln!(text, "The journal cannot be read: {why}").unwrap_or(()),
        Some(Ok(journal)) => text += &contents_text("The journal holds", journal),
    }
    if !newer.is_empty() {
        let gone = if wanted.dry_run { "Only the journal holds" } else { "Only the replaced journal holds" };
        writeln!(text, "{gone}:\n  {}", newer.join("\n  ")).ok();
    }
    if backup.running_jobs > 0 {
        let waits = "replay jobs were running; they wait until somebody resumes them: what they have sent since, the backup does not know";
        writeln!(text, "{} {waits}", backup.running_jobs).ok();
    }
    let journal = wanted.journal.display();
    if wanted.dry_run {
        let force = if newer.is_empty() { "" } else { " It would need --force." };
        writeln!(text, "Dry run: nothing was changed.{force}").ok();
        return text;
    }
    if let Some(aside) = aside {
        let aside = aside.display();
        writeln!(text, "What was {journal} is now {aside}, with its -wal and -shm where there were any").ok();
    }
    writeln!(text, "Restored to {journal}. Start the sink: it reads from Kafka what came after the backup").ok();
    text
}

fn contents_text(holds: &str, contents: &JournalContents) -> String {
    let JournalContents { events, dead_letters, newest_received_at, offsets, .. } = contents;
    let newest = newest_received_at.as_ref().map_or_else(String::new, |at| format!(", the newest of {at} UTC"));
    let mut text = format!("{holds} {events} events{newest}, and {dead_letters} dead letters, up to these offsets:\n");
    for offset in offsets.iter().take(OFFSETS_SHOWN_MAX) {
        writeln!(text, "  {}/{}: next offset {}", offset.topic, offset.partition, offset.next_offset).ok();
    }
    if offsets.len() > OFFSETS_SHOWN_MAX {
        writeln!(text, "  and {} more; see the table kafka_position", offsets.len() - OFFSETS_SHOWN_MAX).ok();
    }
    text
}

/// On standard output. Who reads it may be gone, which is no fault.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
