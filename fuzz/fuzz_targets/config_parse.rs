//! Any text as a configuration, and as the files that it names.

#![no_main]

use std::fs;
use std::net::IpAddr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mgate::config::{Config, Environment};
use tempfile::TempDir;

fuzz_target!(|input: &[u8]| check(input));

/// The texts of all files, each behind the other with a 0 byte between them.
fn check(input: &[u8]) {
    if asks_for_addresses(input) {
        return;
    }
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder for the files"));
    let mut texts = input.split(|byte| *byte == 0);
    for name in FILES {
        fs::write(FOLDER.path().join(name), texts.next().unwrap_or_default()).expect("a file can be written");
    }
    if let Err(problems) = Config::load(&FOLDER.path().join(FILES[0]), &Environment::default()) {
        assert!(!problems.0.is_empty(), "refused without a problem");
        for problem in &problems.0 {
            assert!(!problem.message.is_empty(), "a problem without words at {}", problem.place);
        }
    }
}

/// Whether an address may have a name, which would be looked for in the network.
fn asks_for_addresses(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let is_named = |address: &str| {
        let host = address.split(['/', '"', '\'', '\n']).next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
        host.parse::<IpAddr>().is_err()
    };
    text.contains('\\') || text.split("://").skip(1).any(is_named)
}

const FILES: [&str; 4] = ["mgate.toml", "acl.toml", "acl.yaml", "users.toml"];
