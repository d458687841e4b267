//! A backup's bytes: written, hashed, and read again from the disk.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use super::folder::{HASH, with_suffix};
use super::{BackupError, FREE_BYTES_MIN, Step, Watch};
use crate::store::{free_bytes, hex};

/// The first bytes of a zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's own default: a journal of JSON becomes a tenth, at a disk's speed.
const LEVEL: i32 = 3;
/// Between two looks at the room on the disk.
const CHUNK_BYTES: u64 = 8 << 20;

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Hashing<R> {
        Hashing { inner, hash: Sha256::new() }
    }

    fn hex(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}

/// Copies all of `from`, and stops before the disk of `folder` has less left than the sink needs.
fn copy(mut from: impl Read, to: &mut impl Write, folder: &Path, mut done: impl FnMut(u64)) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        if free_bytes(folder)? < FREE_BYTES_MIN {
            let what = format!("less than {FREE_BYTES_MIN} bytes would be free on the disk; make room");
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        let count = io::copy(&mut from.by_ref().take(CHUNK_BYTES), to)?;
        copied += count;
        done(copied);
        if count == 0 {
            return Ok(copied);
        }
    }
}

/// Reads a file from the disk, not from the memory that it was written through; its hash, and of a compressed one that of
/// what is in it.
pub fn read_back(path: &Path, watch: &Watch) -> Result<(String, String), BackupError> {
    let failed = || BackupError::output(path, "cannot be read again");
    let file = File::open(path).map_err(failed())?;
    let bytes = file.metadata().map_err(failed())?.len();
    fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| failed()(error.into()))?;
    let mut outer = Hashing::new(BufReader::with_capacity(1 << 20, file));
    if !is_zstd(path).map_err(failed())? {
        drain(&mut outer, |done| watch(Step::Reading, done, bytes)).map_err(failed())?;
        let hash = outer.hex();
        return Ok((hash.clone(), hash));
    }
    let mut decoder = zstd::Decoder::with_buffer(BufReader::new(&mut outer)).map_err(failed())?;
    let mut inner = Hashing::new(&mut decoder);
    drain(&mut inner, |done| watch(Step::Reading, done, 0)).map_err(failed())?;
    let inner = inner.hex();
    drop(decoder);
    drain(&mut outer, |_| ()).map_err(failed())?;
    Ok((outer.hex(), inner))
}

fn drain(mut from: impl Read, mut done: impl FnMut(u64)) -> io::Result<()> {
    let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => total += count as u64,
        }
        done(total);
    }
}

/// Compresses `from` into `to`, an empty file in `folder`; the hash of what `from` holds.
pub fn compress(from: &Path, to: &File, folder: &Path, watch: &Watch) -> io::Result<String> {
    let file = File::open(from)?;
    let bytes = file.metadata()?.len();
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes))?;
    let mut from = Hashing::new(file);
    copy(&mut from, &mut encoder, folder, |done| watch(Step::Compressing, done, bytes))?;
    encoder.finish()?;
    Ok(from.hex())
}

/// Writes the journal that the backup at `path` is, or that is compressed in it, into `to`, a file in `folder`.
pub fn unpack(path: &Path, to: &mut File, folder: &Path, watch: &Watch) -> io::Result<u64> {
    let from = File::open(path)?;
    let bytes = from.metadata()?.len();
    if is_zstd(path)? {
        let decoder = zstd::Decoder::new(from)?;
        return copy(decoder, to, folder, |done| watch(Step::Unpacking, done, 0));
    }
    copy(from, to, folder, |done| watch(Step::Unpacking, done, bytes))
}

fn is_zstd(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut head)?;
    Ok(head == ZSTD)
}

/// Whether the file has the hash that stands in the file beside it; `None` where there is none.
pub fn has_its_hash(path: &Path, watch: &Watch) -> Result<Option<bool>, BackupError> {
    let beside = with_suffix(path, HASH);
    let failed = || BackupError::output(path, "cannot be read");
    let line = match fs::read_to_string(&beside) {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::output(&beside, "cannot be read")(error)),
    };
    let noted = line.split_whitespace().next().unwrap_or_default().to_lowercase();
    let file = File::open(path).map_err(failed())?;
    let bytes = file.metadata().map_err(failed())?.len();
    let mut file = Hashing::new(file);
    drain(&mut file, |done| watch(Step::Reading, done, bytes)).map_err(failed())?;
    Ok(Some(file.hex() == noted))
}
