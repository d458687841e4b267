//! Makes what the package holds beside the program and cannot drift from it: man pages and completions from the command
//! line's own description, the third parties' notices from Cargo.lock. `make deb` runs it:
//! `cargo run --example package -- FOLDER TARGET`.

mod notices;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

const NAME: &str = "crm-events-sink";

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let (Some(folder), Some(target), None) = (given.next(), given.next(), given.next()) else {
        return Err("give the folder to write to and the target, as x86_64-unknown-linux-gnu".into());
    };
    let folder = PathBuf::from(folder);
    for inside in ["man", "completions"] {
        fs::create_dir_all(folder.join(inside))?;
    }
    man_pages(crm_events_sink::cli::command(), &folder.join("man"))?;
    config_page(&folder.join("man"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut crm_events_sink::cli::command(), NAME, folder.join("completions"))?;
    }
    fs::write(folder.join("third-party-notices"), notices::collect(&target)?)?;
    Ok(())
}

/// `crm-events-sink(8)`, and a page for each verb.
fn man_pages(command: clap::Command, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, folder)?;
    let mut open: Vec<_> = command.get_subcommands().cloned().collect();
    while let Some(verb) = open.pop() {
        open.extend(verb.get_subcommands().cloned());
        page(&verb, folder)?;
    }
    Ok(())
}

fn page(command: &clap::Command, folder: &Path) -> Result<(), Box<dyn Error>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(name.to_uppercase()).section("8").manual("System Administration");
    let mut text = Vec::new();
    man.render(&mut text)?;
    if name == NAME {
        text.extend(files().render().into_bytes());
    }
    fs::write(folder.join(format!("{name}.8")), text)?;
    Ok(())
}

/// What the page of the program as a whole says beside its verbs.
fn files() -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["FILES"]);
    for (path, what) in [
        ("/etc/crm-events-sink/config.toml", "settings: see crm-events-sink.toml(5)"),
        ("/etc/crm-events-sink/config.d/*.toml", "settings on top of it"),
        ("/var/lib/crm-events-sink/journal.db", "the journal"),
        ("/usr/share/doc/crm-events-sink/docs/operating.md", "how to operate it, its exit codes included"),
    ] {
        section.control("TP", []).text([bold(path)]).text([roman(what)]);
    }
    section
}

/// `crm-events-sink.toml(5)`: the packaged file explains every setting itself.
fn config_page(folder: &Path) -> Result<(), Box<dyn Error>> {
    let packaged = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/config.toml"))?;
    let mut page = Roff::new();
    page.control("TH", ["CRM-EVENTS-SINK.TOML", "5", "", "", "File Formats"]);
    page.control("SH", ["NAME"]).text([roman(format!("{NAME}.toml - settings of the CRM Events Sink"))]);
    page.control("SH", ["FILES"]);
    page.text([
        bold("/etc/crm-events-sink/config.toml"),
        roman(", then "),
        bold("/etc/crm-events-sink/config.d/*.toml"),
    ]);
    page.control("SH", ["SETTINGS"]).control("nf", []);
    for line in packaged.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []).control("SH", ["SEE ALSO"]).text([bold(NAME), roman("(8)")]);
    fs::write(folder.join(format!("{NAME}.toml.5")), page.render())?;
    Ok(())
}
