use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::serial::random;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, as far as the process's umask allows.
    Everyone,
    /// Its owner alone.
    Owner,
}

/// Writes a file so that a crash leaves either the old content or the new one, never a part.
///
/// A symbolic link is followed. An existing file keeps its owner and group. With [`Access::Owner`] nobody else may read it, except its
/// group where the file was readable for owner and group only.
pub fn replace_file(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let random = random::<8>().map_err(io::Error::other)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    let temporary = path.with_file_name(temporary);
    let written = write_new(&temporary, path, content, access).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(path)
}

fn write_new(temporary: &Path, replaced: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = create(temporary, access)?;
    if let Ok(existing) = fs::metadata(replaced) {
        take_over(&file, &existing, access)?;
    }
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(unix)]
fn create(path: &Path, access: Access) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let mode = if access == Access::Owner { 0o600 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path, _access: Access) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn take_over(file: &File, existing: &fs::Metadata, access: Access) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (existing.uid(), existing.gid()) {
        fchown(file, Some(existing.uid()), Some(existing.gid()))?;
    }
    // A gateway that is not run by the file's owner reads it as a member of its group.
    let is_shared_with_group = access == Access::Owner && existing.mode() & 0o047 == 0o040;
    if is_shared_with_group {
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn take_over(_file: &File, _existing: &fs::Metadata, _access: Access) -> io::Result<()> {
    Ok(())
}

/// Makes a rename last: it is the directory that remembers it.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_file_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(mode_after(&directory.path().join("new"), None), 0o600);
        assert_eq!(mode_after(&directory.path().join("open"), Some(0o644)), 0o600);
    }

    #[test]
    fn group_that_could_read_a_private_file_still_can() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(mode_after(&directory.path().join("shared"), Some(0o640)), 0o640);
    }

    #[test]
    fn link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| directory.path().join(name));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace_file(&link, b"new", Access::Owner).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(replace_file(&path, b"new", Access::Owner).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    fn mode_after(path: &Path, before: Option<u32>) -> u32 {
        if let Some(mode) = before {
            fs::write(path, b"old").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        replace_file(path, b"new", Access::Owner).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"new");
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}
