//! Replays what fuzzing starts from and what it found before, as it is and changed by chance, without a fuzzer.

#![expect(clippy::expect_used, reason = "a test that cannot read its inputs must fail")]

#[path = "harness/datagram.rs"]
mod datagram;
#[expect(dead_code, reason = "packets of MQTT are changed too")]
#[path = "../../proxy/tests/harness/mutate.rs"]
mod mutate;

use std::fs;
use std::path::Path;

use self::mutate::Chance;

#[test]
fn hellos_of_clients_keep_what_is_promised() {
    let target = "dtls_client_hello";
    let seeds = inputs("seeds", target);
    assert!(
        !seeds.is_empty() && seeds.iter().all(|hello| datagram::check_client_hello(hello)),
        "a hello is refused"
    );
    let mut hellos = 0;
    changed(target, |input| hellos += usize::from(datagram::check_client_hello(input)));
    assert!(hellos > ROUNDS / 10, "only {hellos} were hellos");
}

#[test]
fn records_keep_what_is_promised() {
    let target = "dtls_record";
    let seeds = inputs("seeds", target);
    assert!(
        !seeds.is_empty() && seeds.iter().all(|input| datagram::check_records(input) == 1),
        "a record is not authentic"
    );
    changed(target, |input| _ = datagram::check_records(input));
}

fn changed(target: &str, mut check: impl FnMut(&[u8])) {
    let all = [inputs("seeds", target), inputs("regressions", target)].concat();
    all.iter().for_each(|input| check(input));
    let mut chance = Chance::new(1);
    for _ in 0..ROUNDS {
        let mut input = chance.pick(&all).clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(input.len());
            match chance.below(4) {
                0 => input[at] = chance.byte(),
                1 => input[at] ^= 1 << chance.below(8),
                2 => input.truncate(at + 1),
                _ => input.insert(at, chance.byte()),
            }
        }
        check(&input);
    }
}

/// What lies in a folder of `fuzz/`; nothing, if it is not there.
fn inputs(kind: &str, target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(kind).join(target);
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    files.map(|file| fs::read(file.expect("an input").path()).expect("a readable input")).collect()
}

const ROUNDS: usize = 4_000;
