//! What a record costs: opened as it comes from a client, and sealed as it goes to one.

#![expect(clippy::expect_used, reason = "a measurement that cannot go on has failed")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mgate_dtls::{ContentType, Head, Keys, Suite, key_block, records};

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = open_and_seal
}
criterion_main!(benches);

fn open_and_seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a record of 64 bytes with a connection id, opened and sealed");
    for suite in Suite::ALL {
        let keys = key_block(suite, &[1; 48], &[2; 32], &[3; 32]);
        let mut datagram = Vec::new();
        keys.client.seal(&HEAD, &[b'x'; 64], &mut datagram).expect("a short plaintext");
        let mut out = Vec::with_capacity(datagram.len());
        group.bench_function(format!("{suite:?}"), |bencher| {
            bencher.iter_batched_ref(
                || datagram.clone(),
                |datagram| answer(&keys, black_box(datagram), &mut out),
                BatchSize::SmallInput,
            );
        });
    }
}

/// Sends back what came.
fn answer(keys: &Keys, datagram: &mut [u8], out: &mut Vec<u8>) {
    out.clear();
    let record = records(datagram, HEAD.cid.len()).next().expect("a record");
    let (_, payload) = keys.client.open(datagram, &record).expect("an authentic record");
    keys.server.seal(&HEAD, &datagram[payload], out).expect("a short plaintext");
}

const HEAD: Head<'static> =
    Head { content_type: ContentType::ApplicationData, epoch: 1, sequence: 7, cid: &[9; 8] };
