use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::authority::{Authority, Certificate, Issued, PrivateKey, Usage};
use crate::error::StoreError;
use crate::file::{Access, replace_file};
use crate::index::{Index, Record};
use crate::name::San;
use crate::serial::Serial;
use crate::time::{Timestamp, Validity};

/// An authority in a directory: `ca.pem`, `ca.key`, `crl.pem`, `index.txt`, and a `.pem` and a `.key` for each
/// name that it issued certificates to.
///
/// One process at a time has it open.
pub struct Store {
    directory: PathBuf,
    authority: Authority,
    index: Index,
    _lock: File,
}

impl Store {
    /// Makes the directory and writes a new authority into it, with an empty revocation list.
    pub fn create(
        directory: &Path,
        authority: Authority,
        list_valid: Validity,
        existing: Existing,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(at(directory))?;
        let lock = lock(directory)?;
        let mut store = Self { directory: directory.into(), authority, index: Index::default(), _lock: lock };
        store.check_free(CA, existing)?;
        store.write(&file_name(CA, KEY), store.authority.key().pem(), Access::Owner)?;
        store.write(&file_name(CA, CERTIFICATE), store.authority.certificate_pem(), Access::Everyone)?;
        store.write_revocation_list(list_valid)?;
        Ok(store)
    }

    /// Opens a directory that [`Self::create`] made.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let certificate = read(&directory.join(file_name(CA, CERTIFICATE)))?;
        let lock = lock(directory)?;
        let key = read(&directory.join(file_name(CA, KEY)))?;
        let authority = Authority::load(&certificate, &key)?;
        let path = directory.join(INDEX);
        let index = Index::parse(&read(&path)?).map_err(|line| StoreError::Index(path, line))?;
        Ok(Self { directory: directory.into(), authority, index, _lock: lock })
    }

    /// Issues a server certificate; the first name names the files.
    pub fn issue_server(
        &mut self,
        names: &[impl AsRef<str>],
        valid: Validity,
        existing: Existing,
    ) -> Result<Kept, StoreError> {
        let issued = self.authority.issue_server(names, valid)?;
        self.keep_issued(&issued, existing)
    }

    /// Issues a client certificate; `id` names the files.
    pub fn issue_client(
        &mut self,
        id: &str,
        sans: &[San],
        valid: Validity,
        existing: Existing,
    ) -> Result<Kept, StoreError> {
        let issued = self.authority.issue_client(id, sans, valid)?;
        self.keep_issued(&issued, existing)
    }

    /// Signs a request in PEM; its common name names the file.
    pub fn sign_request(
        &mut self,
        request_pem: &str,
        usage: Usage,
        valid: Validity,
        existing: Existing,
    ) -> Result<Kept, StoreError> {
        let certificate = self.authority.sign_request(request_pem, usage, valid)?;
        self.keep(&certificate, None, existing)
    }

    /// Revokes the certificate of a serial number, or all of a name, and says which; the revocation list
    /// still has to be written.
    pub fn revoke(&mut self, who: &str, now: SystemTime) -> Result<Vec<Record>, StoreError> {
        let serial = who.parse::<Serial>().ok();
        let is_meant = |record: &Record| record.name == who || Some(record.serial) == serial;
        if !self.index.records.iter().any(is_meant) {
            return Err(StoreError::NotIssued(who.into()));
        }
        let at = Timestamp::try_from(now)?;
        let mut revoked = Vec::new();
        let records = self.index.records.iter_mut();
        for record in records.filter(|record| record.revoked.is_none() && is_meant(record)) {
            record.revoked = Some(at);
            revoked.push(record.clone());
        }
        if revoked.is_empty() {
            return Err(StoreError::AlreadyRevoked(who.into()));
        }
        self.write_index()?;
        Ok(revoked)
    }

    /// Writes `crl.pem` anew and says where it is.
    pub fn write_revocation_list(&mut self, valid: Validity) -> Result<PathBuf, StoreError> {
        self.index.list_number += 1;
        let list = self.authority.revocation_list(&self.index.revoked(), self.index.list_number, valid)?;
        self.write_index()?;
        self.write(&file_name(LIST, CERTIFICATE), &list, Access::Everyone)
    }

    /// The authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// All certificates ever issued, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.index.records
    }

    fn keep_issued(&mut self, issued: &Issued, existing: Existing) -> Result<Kept, StoreError> {
        self.keep(&issued.certificate, Some(&issued.key), existing)
    }

    fn keep(
        &mut self,
        certificate: &Certificate,
        key: Option<&PrivateKey>,
        existing: Existing,
    ) -> Result<Kept, StoreError> {
        let stem = stem(&certificate.name)?;
        self.check_free(&stem, existing)?;
        // First of all the record: what was issued can then always be revoked.
        let record = Record::of(certificate);
        self.append(record.clone())?;
        let write_key = |key: &PrivateKey| self.write(&file_name(&stem, KEY), key.pem(), Access::Owner);
        let key = key.map(write_key).transpose()?;
        let certificate = self.write(&file_name(&stem, CERTIFICATE), &certificate.pem, Access::Everyone)?;
        Ok(Kept { record, certificate, key })
    }

    fn check_free(&self, stem: &str, existing: Existing) -> Result<(), StoreError> {
        let paths = [KEY, CERTIFICATE].map(|kind| self.directory.join(file_name(stem, kind)));
        match paths.into_iter().find(|path| path.exists()) {
            Some(path) if existing == Existing::Keep => Err(StoreError::Exists(path)),
            _ => Ok(()),
        }
    }

    fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let path = self.directory.join(INDEX);
        let append = |line: &str| -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        append(&record.to_line()).map_err(at(&path))?;
        self.index.records.push(record);
        Ok(())
    }

    fn write_index(&self) -> Result<(), StoreError> {
        self.write(INDEX, &self.index.to_text(), Access::Owner).map(drop)
    }

    fn write(&self, name: &str, content: &str, access: Access) -> Result<PathBuf, StoreError> {
        let path = self.directory.join(name);
        replace_file(&path, content.as_bytes(), access).map_err(at(&path))?;
        Ok(path)
    }
}

/// A certificate that was issued, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What is remembered of it.
    pub record: Record,
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its key; `None` if the key is not ours (a signed request).
    pub key: Option<PathBuf>,
}

/// What becomes of files that stand where new ones would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They stay, and nothing is written.
    Keep,
    /// They are overwritten.
    Replace,
}

/// The name of a certificate's files without the ending: what could mislead a shell or a path becomes `_`.
fn stem(name: &str) -> Result<String, StoreError> {
    let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '.' | '@' | '_');
    let stem: String = name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    let is_reserved = [CA, LIST].iter().any(|own| stem.eq_ignore_ascii_case(own));
    if stem.is_empty() || stem.starts_with(['.', '-']) || stem.len() > STEM_LENGTH || is_reserved {
        return Err(StoreError::NoFileName(name.into()));
    }
    Ok(stem)
}

fn file_name(stem: &str, kind: &str) -> String {
    format!("{stem}.{kind}")
}

/// Waits for other processes, but not for long: what they do here takes milliseconds.
fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(StoreError::File(path, error)),
        }
    }
    Err(StoreError::Locked(directory.into()))
}

fn read(path: &Path) -> Result<String, StoreError> {
    fs::read_to_string(path).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::File(path.clone(), error)
}

const CA: &str = "ca";
const CERTIFICATE: &str = "pem";
const INDEX: &str = "index.txt";
const KEY: &str = "key";
const LIST: &str = "crl";
const LOCK: &str = ".lock";
const LOCK_ATTEMPTS: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const STEM_LENGTH: usize = 240;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn existing_authority_is_kept() {
        let (directory, store) = store();
        let key = store.authority().key().pem().to_owned();
        drop(store);
        let again = Store::create(directory.path(), authority(), valid(), Existing::Keep);
        assert!(matches!(again, Err(StoreError::Exists(_))));
        assert_eq!(Store::open(directory.path()).unwrap().authority().key().pem(), key);
    }

    #[test]
    fn existing_authority_is_replaced_on_demand() {
        let (directory, store) = store();
        let key = store.authority().key().pem().to_owned();
        drop(store);
        drop(Store::create(directory.path(), authority(), valid(), Existing::Replace).unwrap());
        assert_ne!(Store::open(directory.path()).unwrap().authority().key().pem(), key);
    }

    #[test]
    fn existing_key_is_kept_and_nothing_recorded() {
        let (directory, mut store) = store();
        store.issue_client("dev-1", &[], valid(), Existing::Keep).unwrap();
        let key = fs::read(directory.path().join("dev-1.key")).unwrap();
        let again = store.issue_client("dev-1", &[], valid(), Existing::Keep);
        assert!(matches!(again, Err(StoreError::Exists(_))));
        assert_eq!(fs::read(directory.path().join("dev-1.key")).unwrap(), key);
        assert_eq!(store.records().len(), 1);
    }

    #[test]
    fn records_survive_reopening() {
        let (directory, mut store) = store();
        store.issue_client("dev-1", &[], valid(), Existing::Keep).unwrap();
        store.issue_server(&["localhost"], valid(), Existing::Keep).unwrap();
        store.revoke("dev-1", now()).unwrap();
        let records = store.records().to_vec();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.records(), records);
        assert_eq!(records.iter().filter(|record| record.revoked.is_some()).count(), 1);
    }

    #[test]
    fn name_revokes_all_its_certificates_and_serial_one() {
        let (_directory, mut store) = store();
        for _ in 0..3 {
            store.issue_client("dev-1", &[], valid(), Existing::Replace).unwrap();
        }
        let serial = store.records()[0].serial;
        assert_eq!(store.revoke(&serial.to_string(), now()).unwrap()[0].serial, serial);
        assert_eq!(store.revoke("dev-1", now()).unwrap().len(), 2);
        assert!(matches!(store.revoke("dev-1", now()), Err(StoreError::AlreadyRevoked(_))));
        assert!(matches!(store.revoke("dev-2", now()), Err(StoreError::NotIssued(_))));
    }

    #[test]
    fn no_name_leaves_the_directory_or_replaces_the_authority() {
        let (directory, mut store) = store();
        for id in ["ca", "CA", "crl", "..", ".lock", "-rf", "../../x"] {
            let issued = store.issue_client(id, &[], valid(), Existing::Replace);
            assert!(matches!(issued, Err(StoreError::NoFileName(_))), "{id}");
        }
        let kept = store.issue_client("a/../b:c", &[], valid(), Existing::Keep).unwrap();
        assert_eq!(kept.certificate, directory.path().join("a_.._b_c.pem"));
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let (directory, mut store) = store();
        store.issue_client("dev-1", &[], valid(), Existing::Keep).unwrap();
        for name in ["ca.key", "dev-1.key"] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    fn store() -> (TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(directory.path(), authority(), valid(), Existing::Keep).unwrap();
        (directory, store)
    }

    fn authority() -> Authority {
        Authority::create("mgate CA", valid()).unwrap()
    }

    fn valid() -> Validity {
        Validity::days(now(), 30).unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_777_888_800)
    }
}
