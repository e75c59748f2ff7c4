//! What one call of a module costs, without the work of the module.

#![expect(clippy::expect_used, reason = "a measurement that cannot go on has failed")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mgate_wasm::{Bounds, Module, Options, POLICY_EVALUATE, Reply};

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = call
}
criterion_main!(benches);

fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a module that does not look at the question");
    let text = format!("i64.const {}", ANSWER.len());
    for (name, body, expected) in [
        ("answer by a code", "i64.const 1", Reply::Code(1)),
        ("answer in JSON", text.as_str(), Reply::Text(ANSWER.into())),
    ] {
        let module = module(body);
        assert_eq!(module.call(QUESTION, NOW), Ok(expected), "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| module.call(black_box(QUESTION), NOW)));
    }
}

/// A module whose answer is what `body` computes; a small number is the length of what lies at the beginning.
fn module(body: &str) -> Module {
    let text = format!(
        "(module
            (memory (export \"memory\") 1)
            (data (i32.const 0) {ANSWER:?})
            (func (export \"policy_abi_version\") (result i32) i32.const 1)
            (func (export \"policy_alloc\") (param i32) (result i32) i32.const 1024)
            (func (export \"policy_configure\") (param i32 i32) (result i32) i32.const 0)
            (func (export \"policy_evaluate\") (param i32 i32) (result i64) {body}))"
    );
    let options = Options {
        entry: POLICY_EVALUATE,
        config: b"{}".into(),
        bounds: Bounds { deadline: Duration::from_secs(1), memory_bytes: 1 << 20, reply_bytes: 4096 },
        log: Arc::new(|_, _| {}),
    };
    Module::load(&wat::parse_str(text).expect("a module"), options, NOW).expect("a good module")
}

const NOW: Duration = Duration::from_secs(1_700_000_000);
const ANSWER: &str = r#"{"decision":"deny","reason":"the topic belongs to somebody else"}"#;
const QUESTION: &[u8] = br#"{"subject":{"type":"client","id":"dev-1","properties":{"client_id":"dev-1"}},"action":{"name":"publish","properties":{"qos":1,"retain":false}},"resource":{"type":"topic","id":"devices/dev-1/data"},"context":{"protocol":"mqtt","listener":"devices","peer":"10.0.0.7","tls":true}}"#;
