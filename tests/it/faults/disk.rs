//! A disk that loses its power, as a model: what the program really wrote (recorded by strace), and the files that
//! could be there afterwards.
//!
//! What is modelled: a write or truncation is safe once an fsync or fdatasync of that file returned after it. Until
//! then it may be there, not there, or there in part, in pieces of 512 bytes, whatever became of the writes around
//! it. A name that was made or removed is safe once an fsync of the folder returned after it. What is not: a disk that
//! lies about a flush, or that damages sectors it was not told to write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

const SECTOR: usize = 512;

/// One thing the program did to the journal's folder.
#[derive(Debug)]
pub enum Act {
    Create(String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Sync(String),
    SyncFolder,
    Unlink(String),
}

#[derive(Debug)]
pub struct Event {
    /// Seconds since 1970: when it began, or for a sync when it returned, which is when it counts.
    pub at: f64,
    pub act: Act,
}

/// The arguments that make strace record what [`read_trace`] reads. Each sync is held up by `delay_us`, so that
/// whatever does not wait for it is caught.
pub fn strace_arguments(delay_us: u32) -> Vec<String> {
    let calls = "openat,pwrite64,write,ftruncate,fdatasync,fsync,unlink,unlinkat,rename,renameat2";
    let mut arguments =
        ["-D", "-f", "-y", "-T", "-ttt", "-xx", "-s", "1000000", "--seccomp-bpf"].map(String::from).to_vec();
    arguments.extend(["-e".to_owned(), format!("trace={calls}")]);
    arguments.extend(["-e".to_owned(), format!("inject=fdatasync,fsync:delay_enter={delay_us}")]);
    arguments
}

/// What a trace says of the files `journal.db…` in `folder`, in order. The shared memory beside the journal and the
/// lock file hold nothing that must last: the box's name stands in the journal as well.
pub fn read_trace(trace: &Path, folder: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unfinished: BTreeMap<String, String> = BTreeMap::new();
    for line in BufReader::new(File::open(trace).unwrap()).lines() {
        let line = line.unwrap();
        let (thread, rest) = line.split_once(' ').unwrap();
        let (at, call) = rest.trim_start().split_once(' ').unwrap();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread.to_owned(), format!("{at} {begun}"));
        } else if call.starts_with("<... ") {
            let Some(begun) = unfinished.remove(thread) else { continue };
            let (at, call_begun) = begun.split_once(' ').unwrap();
            let whole = format!("{call_begun}{}", call.split_once(" resumed>").unwrap().1);
            events.extend(event(at, &whole, folder));
        } else {
            events.extend(event(at, call, folder));
        }
    }
    events
}

fn event(at: &str, call: &str, folder: &Path) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(") "))?;
    let result = result.trim_start_matches([' ', '=']);
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let mut at: f64 = at.parse().unwrap();
    let took = || result.rsplit_once('<')?.1.trim_end_matches('>').parse::<f64>().ok();
    let act = match name {
        "openat" if arguments.contains("O_CREAT") => Act::Create(journal_file(&quoted(arguments)?, folder)?),
        "pwrite64" => {
            let file = journal_file(&behind_descriptor(arguments)?, folder)?;
            let offset = arguments.rsplit(", ").next()?.parse().ok()?;
            Act::Write(file, offset, quoted(arguments)?)
        }
        "ftruncate" => {
            let length = arguments.rsplit(", ").next()?.parse().ok()?;
            Act::Truncate(journal_file(&behind_descriptor(arguments)?, folder)?, length)
        }
        "fsync" | "fdatasync" => {
            at += took().expect("strace -T says how long it took");
            let path = behind_descriptor(arguments)?;
            if path == folder.as_os_str().as_encoded_bytes() {
                Act::SyncFolder
            } else {
                Act::Sync(journal_file(&path, folder)?)
            }
        }
        "unlink" | "unlinkat" => Act::Unlink(journal_file(&quoted(arguments)?, folder)?),
        "write" | "rename" | "renameat2" => {
            let path = if name == "write" { behind_descriptor(arguments) } else { quoted(arguments) };
            assert!(path.and_then(|path| journal_file(&path, folder)).is_none(), "not modelled: {call}");
            return None;
        }
        _ => return None,
    };
    Some(Event { at, act })
}

/// The file's name, if the path is that of the journal or of a file that SQLite keeps beside it and relies on.
fn journal_file(path: &[u8], folder: &Path) -> Option<String> {
    let path = Path::new(std::str::from_utf8(path).ok()?);
    let name = path.strip_prefix(folder).ok()?.to_str()?;
    (name.starts_with("journal.db") && !name.ends_with("-shm") && !name.ends_with(".lock")).then(|| name.to_owned())
}

/// The path that `strace -y` puts behind a descriptor: `12<\x2f…>`.
fn behind_descriptor(arguments: &str) -> Option<Vec<u8>> {
    unescape(arguments.split_once('<')?.1.split_once('>')?.0)
}

fn quoted(arguments: &str) -> Option<Vec<u8>> {
    unescape(arguments.split('"').nth(1)?)
}

/// `\x2f\x74…`, as `strace -xx` writes every string.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| (text.as_bytes()[at] as char).to_digit(16).map(|digit| digit as u8);
    (0..text.len() / 4).map(|n| Some(digit(n * 4 + 2)? << 4 | digit(n * 4 + 3)?)).collect()
}

/// What becomes of everything that was not safe yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// None of it is there.
    Dropped,
    /// All of it is there: as after a kill.
    Kept,
    /// Each write and each name by chance.
    ByWrite,
    /// Each piece of 512 bytes by chance.
    BySector,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => {
                to.resize(to.len().max(offset + bytes.len()), 0);
                to[*offset..][..bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate(length) => to.resize(*length, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Contents {
    safe: Vec<u8>,
    pending: Vec<Change>,
}

impl Contents {
    fn after(&self, fate: Fate, chance: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.safe.clone();
        for change in &self.pending {
            match (fate, change) {
                (Fate::Dropped, _) => {}
                (Fate::BySector, Change::Write(offset, written)) => {
                    for (number, sector) in written.chunks(SECTOR).enumerate() {
                        if chance.bool() {
                            Change::Write(offset + number * SECTOR, sector.to_vec()).apply(&mut bytes);
                        }
                    }
                }
                (Fate::ByWrite | Fate::BySector, _) if chance.bool() => {}
                _ => change.apply(&mut bytes),
            }
        }
        bytes
    }
}

/// The journal's folder: what is safe, and what is not yet.
#[derive(Debug, Default)]
pub struct Disk {
    contents: Vec<Contents>,
    safe_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    /// What the folder's names were to become, oldest first: a file's place in `contents`, or none.
    pending_names: Vec<(String, Option<usize>)>,
}

impl Disk {
    pub fn take(&mut self, act: &Act) {
        match act {
            Act::Create(name) if self.names.contains_key(name) => {}
            Act::Create(name) => {
                self.contents.push(Contents::default());
                self.name(name, Some(self.contents.len() - 1));
            }
            Act::Unlink(name) => self.name(name, None),
            Act::Write(name, offset, bytes) => self.file(name).pending.push(Change::Write(*offset, bytes.clone())),
            Act::Truncate(name, length) => self.file(name).pending.push(Change::Truncate(*length)),
            Act::Sync(name) => {
                let file = self.file(name);
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.safe);
                }
            }
            Act::SyncFolder => {
                self.safe_names = self.names.clone();
                self.pending_names.clear();
            }
        }
    }

    fn file(&mut self, name: &str) -> &mut Contents {
        let at = self.names[name];
        &mut self.contents[at]
    }

    fn name(&mut self, name: &str, at: Option<usize>) {
        set(&mut self.names, name, at);
        self.pending_names.push((name.to_owned(), at));
    }

    /// The files as they could be if the power went now.
    pub fn after_power_cut(&self, fate: Fate, chance: &mut fastrand::Rng) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.safe_names.clone();
        for (name, at) in &self.pending_names {
            if fate == Fate::Kept || (fate != Fate::Dropped && chance.bool()) {
                set(&mut names, name, *at);
            }
        }
        names.into_iter().map(|(name, at)| (name, self.contents[at].after(fate, chance))).collect()
    }
}

fn set(names: &mut BTreeMap<String, usize>, name: &str, at: Option<usize>) {
    match at {
        Some(at) => names.insert(name.to_owned(), at),
        None => names.remove(name),
    };
}

pub fn write_files(files: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
}
