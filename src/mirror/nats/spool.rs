//! Letters on disk, while NATS is away.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::letter::Letter;

/// Where letters are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// A directory of its own.
    pub directory: PathBuf,
    /// The bytes of letters that it holds; the oldest make room.
    pub max_bytes: u64,
    /// How long a letter is of use.
    pub max_age: Duration,
}

/// Letters by their numbers, in one file.
pub(super) struct Spool {
    database: Database,
    max_bytes: u64,
    max_age: Duration,
    bytes: u64,
    /// The number of the next letter.
    next: u64,
    /// The number of the first letter that was not read since the last [`Spool::rewind`].
    unread: u64,
}

/// What left the spool because it is full, or because it is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shed {
    pub(super) for_room: u64,
    pub(super) for_age: u64,
}

/// Why there is no spool.
#[derive(Debug)]
pub(super) enum SpoolError {
    /// Somebody else has it.
    InUse(PathBuf),
    /// The disk does not do what it should.
    Storage(PathBuf, String),
}

impl Spool {
    /// Opens the spool, or makes it.
    pub(super) fn open(config: &SpoolConfig) -> Result<Self, SpoolError> {
        let directory = &config.directory;
        let storage = |error: &dyn fmt::Display| SpoolError::Storage(directory.clone(), error.to_string());
        let path = directory.join(FILE);
        keep_private(directory, &path).map_err(|error| storage(&error))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => SpoolError::InUse(directory.clone()),
            error => storage(&error),
        })?;
        let (bytes, range) = survey(&database).map_err(|error| storage(&error))?;
        let (first, last) = range.unwrap_or((1, 0));
        let SpoolConfig { max_bytes, max_age, .. } = *config;
        Ok(Self { database, max_bytes, max_age, bytes, next: last + 1, unread: first })
    }

    /// The number that the next letter should have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether there is something that was not read.
    pub(super) fn has_unread(&self) -> bool {
        self.unread < self.next
    }

    /// Puts letters behind those that are there, takes out those with the numbers in `done`, and those that are
    /// one too many or too old. What it did is on disk when it returns.
    pub(super) fn change<'a>(
        &mut self,
        letters: impl Iterator<Item = &'a Letter>,
        done: &[u64],
        now: Duration,
    ) -> Result<Shed, redb::Error> {
        let mut shed = Shed::default();
        let (mut bytes, mut next) = (self.bytes, self.next);
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LETTERS)?;
            for number in done {
                bytes -= table.remove(number)?.map_or(0, |value| size(value.value()));
            }
            for letter in letters {
                let value = letter.to_bytes();
                table.insert(letter.number, value.as_slice())?;
                bytes += size(&value);
                next = next.max(letter.number + 1);
            }
            while let Some((reason, freed)) = self.surplus(&table, bytes, now)? {
                table.pop_first()?;
                bytes -= freed;
                match reason {
                    Surplus::Old => shed.for_age += 1,
                    Surplus::Room => shed.for_room += 1,
                }
            }
        }
        transaction.commit()?;
        (self.bytes, self.next) = (bytes, next);
        Ok(shed)
    }

    /// The next letters that were not read, as many as fit into `max_bytes`, at least one.
    pub(super) fn read(&mut self, max_bytes: usize) -> Result<Vec<Letter>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(LETTERS)?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        for entry in table.range(self.unread..)? {
            let (number, value) = entry?;
            // what cannot be read was damaged on disk: it keeps nobody from what is behind it
            let Some(letter) = Letter::from_bytes(number.value(), value.value()) else { continue };
            bytes += letter.bytes();
            letters.push(letter);
            if bytes >= max_bytes {
                self.unread = number.value() + 1;
                return Ok(letters);
            }
        }
        self.unread = self.next;
        Ok(letters)
    }

    /// Counts all as read: whoever put it there has it too.
    pub(super) fn skip(&mut self) {
        self.unread = self.next;
    }

    /// The number of the first letter that was not read.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    /// Goes on with the letter of this number, as if all before it were read.
    pub(super) fn seek(&mut self, unread: u64) {
        self.unread = unread;
    }

    /// Counts all as not read.
    pub(super) fn rewind(&mut self) {
        self.unread = 0;
    }

    /// Whether the first letter must go, why, and what room that makes.
    fn surplus(
        &self,
        table: &Table<'_, u64, &[u8]>,
        bytes: u64,
        now: Duration,
    ) -> Result<Option<(Surplus, u64)>, redb::Error> {
        let Some((_, value)) = table.first()? else { return Ok(None) };
        let at = Letter::age_of(value.value());
        let surplus = match bytes > self.max_bytes {
            true => Some(Surplus::Room),
            false => at.is_none_or(|at| at + self.max_age < now).then_some(Surplus::Old),
        };
        Ok(surplus.map(|surplus| (surplus, size(value.value()))))
    }
}

/// Why a letter leaves before it was sent.
enum Surplus {
    Old,
    Room,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(directory) => {
                write!(f, "the spool {} is in use by another process or mirror", directory.display())
            }
            Self::Storage(directory, why) => write!(f, "the spool {}: {why}", directory.display()),
        }
    }
}

impl std::error::Error for SpoolError {}

/// Makes the directory and the file, and lets nobody else look into the file: letters are what devices say. A directory
/// that was there may be for others, too.
fn keep_private(directory: &Path, file: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
    OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE_FILE).open(file)?;
    if fs::metadata(file)?.permissions().mode() & 0o777 == PRIVATE_FILE {
        return Ok(());
    }
    match fs::set_permissions(file, Permissions::from_mode(PRIVATE_FILE)) {
        // a file that belongs to somebody else is theirs to close
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        set => set,
    }
}

/// The bytes of all letters, and the numbers of the first and the last.
fn survey(database: &Database) -> Result<(u64, Option<(u64, u64)>), redb::Error> {
    let transaction = database.begin_write()?;
    let mut bytes = 0;
    let mut range = None;
    for entry in transaction.open_table(LETTERS)?.iter()? {
        let (number, value) = entry?;
        bytes += size(value.value());
        let first = range.map_or(number.value(), |(first, _)| first);
        range = Some((first, number.value()));
    }
    transaction.commit()?;
    Ok((bytes, range))
}

/// What a letter counts for: its bytes, and about what the file needs for it.
fn size(value: &[u8]) -> u64 {
    value.len() as u64 + OVERHEAD
}

const LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("letters");
const FILE: &str = "spool.redb";
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const OVERHEAD: u64 = 32;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn letters_come_back_in_their_order_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = open(&directory, 1 << 20);
        put(&mut spool, &["a", "b"]);
        put(&mut spool, &["c"]);
        assert_eq!(read(&mut spool), ["a", "b", "c"]);
        assert!(!spool.has_unread());
        drop(spool);
        let mut spool = open(&directory, 1 << 20);
        assert_eq!((spool.next(), read(&mut spool)), (4, vec!["a".into(), "b".into(), "c".into()]));
        spool.change([].iter(), &[1, 2], NOW).unwrap();
        spool.rewind();
        assert_eq!(read(&mut spool), ["c"]);
    }

    #[test]
    fn nobody_else_may_read_it_also_where_others_could() {
        let directory = tempfile::tempdir().unwrap();
        let modes = || {
            let spool = directory.path().join("spool");
            let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            [mode(spool.clone()), mode(spool.join(FILE))]
        };
        let mut spool = open(&directory, 1 << 20);
        put(&mut spool, &["a"]);
        drop(spool);
        assert_eq!(modes(), [0o700, 0o600]);
        let spool = directory.path().join("spool");
        fs::set_permissions(spool.join(FILE), Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(spool, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(read(&mut open(&directory, 1 << 20)), ["a"]);
        // a directory may be for others, too
        assert_eq!(modes(), [0o755, 0o600]);
    }

    #[test]
    fn oldest_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let each = size(&numbered(1, "a").to_bytes());
        let mut spool = open(&directory, 2 * each);
        assert_eq!(put(&mut spool, &["a", "b", "c"]), Shed { for_room: 1, for_age: 0 });
        assert_eq!((read(&mut spool), spool.bytes), (vec!["b".into(), "c".into()], 2 * each));
    }

    #[test]
    fn letter_that_is_too_old_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = open(&directory, 1 << 20);
        put(&mut spool, &["a"]);
        let shed = spool.change([].iter(), &[], NOW + AGE + Duration::from_secs(1)).unwrap();
        assert_eq!((shed, spool.bytes), (Shed { for_room: 0, for_age: 1 }, 0));
        assert!(read(&mut spool).is_empty());
    }

    #[test]
    fn spool_belongs_to_one() {
        let directory = tempfile::tempdir().unwrap();
        let _spool = open(&directory, 1 << 20);
        let error = Spool::open(&config(&directory, 1 << 20)).err().unwrap().to_string();
        assert!(error.ends_with("is in use by another process or mirror"), "{error}");
    }

    fn open(directory: &TempDir, max_bytes: u64) -> Spool {
        Spool::open(&config(directory, max_bytes)).unwrap()
    }

    fn config(directory: &TempDir, max_bytes: u64) -> SpoolConfig {
        SpoolConfig { directory: directory.path().join("spool"), max_bytes, max_age: AGE }
    }

    fn put(spool: &mut Spool, texts: &[&str]) -> Shed {
        let letters: Vec<_> =
            (spool.next()..).zip(texts).map(|(number, text)| numbered(number, text)).collect();
        spool.change(letters.iter(), &[], NOW).unwrap()
    }

    fn numbered(number: u64, text: &str) -> Letter {
        Letter { number, at: NOW, ..letter(1, "a", text) }
    }

    fn read(spool: &mut Spool) -> Vec<String> {
        let mut texts = Vec::new();
        while spool.has_unread() {
            let letters = spool.read(1).unwrap();
            let text = |letter: &Letter| String::from_utf8(letter.draft.record().payload().into()).unwrap();
            texts.extend(letters.iter().map(text));
        }
        texts
    }

    const NOW: Duration = Duration::from_secs(1_700_000_000);
    const AGE: Duration = Duration::from_secs(60);
}
