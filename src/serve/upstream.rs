//! tiny_http behind the edge: it listens on a Unix socket that only this process can reach.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tiny_http::Server;

/// The folder of the sockets: systemd's for this service if there is one. Removed when it is dropped.
///
/// # Errors
/// If it cannot be made.
pub fn folder() -> io::Result<TempDir> {
    let given = std::env::var_os("RUNTIME_DIRECTORY");
    // systemd separates several by colons.
    let given = given.as_ref().and_then(|folders| folders.to_str()).and_then(|folders| folders.split(':').next());
    let parent = given.filter(|folder| !folder.is_empty()).map_or_else(std::env::temp_dir, PathBuf::from);
    let only_ours = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("crm-events-sink-").permissions(only_ours).tempdir_in(parent)
}

/// One port's server and the threads that take its requests.
pub struct Upstream {
    folder: PathBuf,
    name: &'static str,
    threads: usize,
    current: Mutex<Current>,
    stopping: AtomicBool,
}

struct Current {
    number: u32,
    path: PathBuf,
    server: Arc<Server>,
}

impl Upstream {
    /// # Errors
    /// If the socket cannot be made.
    pub fn open(folder: &Path, name: &'static str, threads: usize) -> io::Result<Upstream> {
        let current = Mutex::new(listen(folder, name, 0)?);
        Ok(Upstream { folder: folder.to_owned(), name, threads, current, stopping: AtomicBool::new(false) })
    }

    pub fn path(&self) -> PathBuf {
        self.lock().path.clone()
    }

    /// Gives every request to `answer`, until [`Upstream::stop`].
    pub fn take_requests(&self, answer: impl Fn(tiny_http::Request)) {
        while !self.stopping.load(Ordering::Acquire) {
            let server = Arc::clone(&self.lock().server);
            // An error: it has stopped listening and may have been replaced, or it is to stop.
            while let Ok(request) = server.recv() {
                answer(request);
            }
        }
    }

    /// tiny_http's listener ends for good when it cannot accept, for want of file descriptors above all. This puts a new
    /// one in the place of the one at `dead`, unless that was done already.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn revive(&self, dead: &Path) -> io::Result<()> {
        let mut current = self.lock();
        if current.path != dead {
            return Ok(());
        }
        let new = listen(&self.folder, self.name, current.number + 1)?;
        let old = std::mem::replace(&mut *current, new);
        drop(current);
        tracing::warn!(port = self.name, "the listener behind the port had ended; there is a new one");
        self.unblock(&old.server);
        Ok(())
    }

    /// The threads finish the requests they have.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let server = Arc::clone(&self.lock().server);
        self.unblock(&server);
    }

    fn unblock(&self, server: &Server) {
        for _ in 0..self.threads {
            server.unblock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(folder: &Path, name: &str, number: u32) -> io::Result<Current> {
    let path = folder.join(format!("{name}-{number}.sock"));
    let server = Server::http_unix(&path).map_err(io::Error::other)?;
    Ok(Current { number, path, server: Arc::new(server) })
}
