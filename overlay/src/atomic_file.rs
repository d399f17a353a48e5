//! Replaces a small file so that readers see the old text or the new one, never a part.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

/// Distinguishes temporary files of threads; those of processes differ by process id.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Writes `text` to `path`, mode 0644, through a hidden temporary file in the same directory, which must exist.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{}.{}.{unique}", name.to_string_lossy(), std::process::id()));
    let result = write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The error at hand matters more than one of the clean-up.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    // Without it a power failure after the rename can leave an empty file under the final name.
    file.sync_all()
}
