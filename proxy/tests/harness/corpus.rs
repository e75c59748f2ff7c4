//! The named packets of `corpus/mqtt`, as bytes.

use std::fs;
use std::path::{Path, PathBuf};

use mgate_proxy::mqtt::packet::Version;

/// One packet of the corpus.
pub(crate) struct Case {
    /// The name of its file.
    pub(crate) name: String,
    /// The version that it is a packet of.
    pub(crate) version: Version,
    /// The packet, or what there is of it.
    pub(crate) bytes: Vec<u8>,
}

/// Every packet: valid, malformed or incomplete, of all versions; sorted, so that seeds mean the same everywhere.
pub(crate) fn cases() -> Vec<Case> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy/corpus/mqtt"));
    let mut cases = Vec::new();
    for (name, version) in [("v311", Version::V311), ("v5", Version::V5)] {
        for judgement in ["incomplete", "malformed", "valid"] {
            let files = files(&folder.join(name).join(judgement));
            cases.extend(files.iter().map(|file| read(file, version)));
        }
    }
    assert!(cases.len() >= 320, "only {} packets", cases.len());
    cases
}

/// The files of a folder in the order of their names; none where there is no folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}

fn read(file: &Path, version: Version) -> Case {
    let text = fs::read_to_string(file).expect("a readable packet");
    let hex = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let bytes = hex.map(|digits| u8::from_str_radix(digits, 16).expect("two hex digits"));
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Case { name, version, bytes: bytes.collect() }
}
