//! The named messages of `corpus/coap`, as bytes.

use std::fs;
use std::path::Path;

/// One message of the corpus.
pub(crate) struct Case {
    /// The name of its file.
    pub(crate) name: String,
    /// What its first line says is wrong with it; empty where nothing is.
    pub(crate) comment: String,
    /// The message, or what there is of it.
    pub(crate) bytes: Vec<u8>,
}

/// The messages of one judgement: `valid`, `refused` or `malformed`, in the order of their names.
pub(crate) fn cases(judgement: &str) -> Vec<Case> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy/corpus/coap")).join(judgement);
    let entries = fs::read_dir(folder).expect("a folder with messages");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "only {} messages", files.len());
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Case {
    let text = fs::read_to_string(file).expect("a readable message");
    let (comments, hex): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let bytes = hex.into_iter().flat_map(str::split_whitespace);
    let bytes = bytes.map(|digits| u8::from_str_radix(digits, 16).expect("two hex digits")).collect();
    let comment = comments.first().map(|line| line.trim_start_matches(['#', ' '])).unwrap_or_default();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Case { name, comment: comment.into(), bytes }
}
