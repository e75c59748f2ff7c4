use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::*;

const NOW: Duration = Duration::from_millis(1_700_000_000_123);
const MEMORY: usize = 1024 * 1024;

#[test]
fn codes_are_passed_on() {
    for code in 0..8 {
        assert_eq!(ask(&answering(&format!("i64.const {code}"))), Ok(Reply::Code(code)));
    }
}

#[test]
fn answer_is_read_where_it_points() {
    let hello = format!("(i64.or (i64.shl (i64.const {TEXT_AT}) (i64.const 32)) (i64.const 5))");
    assert_eq!(ask(&answering(&hello)), Ok(Reply::Text(b"hello".into())));
}

#[test]
fn module_is_given_request_configuration_and_time() {
    let echo =
        "(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))";
    assert_eq!(load(&answering(echo)).unwrap().call(b"{\"a\":1}", NOW), Ok(Reply::Text(b"{\"a\":1}".into())));
    let configured = format!("(i64.or (i64.shl (i64.const {CONFIG_AT}) (i64.const 32)) (i64.const 8))");
    assert_eq!(ask(&answering(&configured)), Ok(Reply::Text(CONFIG.into())));
    let later = NOW + Duration::from_millis(5);
    let told = format!("(i64.eq (call $now) (i64.const {}))", later.as_millis());
    let told = format!("(i64.extend_i32_u {told})");
    assert_eq!(load(&with_import(NOW_MS, &told)).unwrap().call(b"{}", later), Ok(Reply::Code(1)));
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let import = |import: &str| load(&with_import(import, "i64.const 1")).err().unwrap().to_string();
    for (text, refused) in [
        ("(import \"env\" \"abort\" (func))", "it imports `env.abort`, which is not offered"),
        (
            "(import \"wasi_snapshot_preview1\" \"fd_write\" (func))",
            "it imports `wasi_snapshot_preview1.fd_write`",
        ),
        ("(import \"mgate\" \"memory\" (global i32))", "it imports `mgate.memory`, which is not offered"),
        (
            "(import \"mgate\" \"log\" (func))",
            "it imports `mgate.log`, which is a function (i32, i32, i32) -> ()",
        ),
        (
            "(import \"mgate\" \"now_ms\" (global i64))",
            "it imports `mgate.now_ms`, which is a function () -> (i64)",
        ),
    ] {
        let said = import(text);
        assert!(said.starts_with(refused), "{said}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let whole = answering("i64.const 1");
    for name in ["memory", "policy_abi_version", "policy_alloc", "policy_configure", "policy_evaluate"] {
        let error = load(&whole.replace(&format!("\"{name}\""), "\"other\"")).err().unwrap();
        assert!(error.to_string().starts_with(&format!("it must export `{name}`: ")), "{error}");
    }
    let other = whole.replace("(result i64)\n", "(result i32)\n").replace("i64.const 1", "i32.const 1");
    let wanted = "it must export `policy_evaluate`: a function (i32, i32) -> (i64)";
    assert_eq!(load(&other).err().unwrap().to_string(), wanted);
}

#[test]
fn what_is_no_module_is_refused() {
    let component = b"\0asm\x0d\0\x01\0";
    for binary in [&b""[..], b"(module)", b"\0asm\x01\0\0", b"\x7fELF", component] {
        assert!(matches!(Module::load(binary, options(), NOW), Err(LoadError::Invalid(_))), "{binary:?}");
    }
}

#[test]
fn threads_and_what_hangs_on_the_processor_are_switched_off() {
    let whole = answering("i64.const 1");
    for (from, to) in [
        ("(memory (export \"memory\") 1)", "(memory (export \"memory\") 1 1 shared)"),
        ("(memory (export \"memory\") 1)", "(memory (export \"memory\") i64 1)"),
        ("(memory (export \"memory\") 1)", "(memory (export \"memory\") 1) (memory 1)"),
        (
            "(memory (export \"memory\") 1)",
            "(memory (export \"memory\") 1) (func (param v128) (result v128)
                local.get 0 local.get 0 local.get 0 f32x4.relaxed_madd)",
        ),
    ] {
        assert!(matches!(load(&whole.replace(from, to)), Err(LoadError::Invalid(_))), "{to}");
    }
}

#[test]
fn other_version_of_the_interface_is_refused() {
    let next = answering("i64.const 1").replace("i32.const 1 (; version ;)", "i32.const 2");
    assert_eq!(load(&next).err(), Some(LoadError::AbiVersion(2)));
}

#[test]
fn refused_configuration_comes_with_the_last_words() {
    let log = format!("(call $log (i32.const 0) (i32.const {TEXT_AT}) (i32.const 5)) (i32.const 3)");
    let refusing = with_import(LOG, "i64.const 1").replace("i32.const 0 (; configured ;)", &log);
    let expected = LoadError::Refused { code: 3, words: Some("hello".into()) };
    assert_eq!(load(&refusing).err(), Some(expected));
    let silent = answering("i64.const 1").replace("i32.const 0 (; configured ;)", "i32.const 3");
    let said = load(&silent).err().unwrap().to_string();
    assert_eq!(said, "it refuses its configuration with code 3");
}

#[test]
fn trap_ends_the_call() {
    for body in ["unreachable", "(i64.div_u (i64.const 1) (i64.const 0))", "(i64.load (i32.const -1))"] {
        assert!(matches!(ask(&answering(body)), Err(CallError::Trap(_))), "{body}");
    }
    let error = ask(&answering("unreachable")).unwrap_err().to_string();
    assert_eq!(error, "wasm trap: wasm `unreachable` instruction executed");
}

#[test]
fn endless_loop_is_interrupted() {
    let looping = answering("(loop $again (br $again)) i64.const 1");
    assert_eq!(ask(&looping), Err(CallError::TooLate(DEADLINE)));
    let at_start = answering("i64.const 1")
        .replace("i32.const 0 (; configured ;)", "(loop $again (br $again)) i32.const 0");
    assert_eq!(load(&at_start).err(), Some(LoadError::Call(CallError::TooLate(DEADLINE * 10))));
    let before = format!(
        "{} (func $start (loop $again (br $again))) (start $start))",
        without_end(&answering("i64.const 1"))
    );
    assert_eq!(load(&before).err(), Some(LoadError::Call(CallError::TooLate(DEADLINE * 10))));
}

#[test]
fn endless_recursion_ends_the_call() {
    let error = ask(&answering("(call $evaluate (local.get 0) (local.get 1))")).unwrap_err();
    assert_eq!(error, CallError::Trap("wasm trap: call stack exhausted".into()));
}

#[test]
fn memory_is_bounded() {
    let pages = MEMORY / 65536;
    let grow = |pages: usize| answering(&format!("(i64.extend_i32_s (memory.grow (i32.const {pages})))"));
    assert_eq!(ask(&grow(pages - 1)), Ok(Reply::Code(1)));
    let error = ask(&grow(pages)).unwrap_err();
    assert_eq!(
        error,
        CallError::Trap(format!("forcing trap when growing memory to {} bytes", MEMORY + 65536))
    );
    let bomb = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) i64.const 1";
    assert!(matches!(ask(&answering(bomb)), Err(CallError::Trap(_))));
    let large = answering("i64.const 1").replace("\"memory\") 1)", &format!("\"memory\") {})", pages + 1));
    assert!(matches!(load(&large), Err(LoadError::Call(CallError::Trap(_)))));
}

#[test]
fn tables_are_bounded() {
    let with = |table: &str, body: &str| {
        answering(body).replace("(memory (export", &format!("{table} (memory (export"))
    };
    assert!(matches!(load(&with("(table 20001 funcref)", "i64.const 1")), Err(LoadError::Call(_))));
    let growing = "(drop (table.grow (ref.null func) (i32.const 20001))) i64.const 1";
    assert!(matches!(ask(&with("(table 0 funcref)", growing)), Err(CallError::Trap(_))));
    assert!(matches!(load(&with(&"(table 1 funcref)".repeat(5), "i64.const 1")), Err(LoadError::Call(_))));
}

#[test]
fn pointers_outside_of_the_memory_end_the_call() {
    let at = |at: u64, length: u64| answering(&format!("i64.const {}", (at << 32 | length).cast_signed()));
    for (address, length) in
        [(65536, 1), (65535, 2), (0, 65537), (0xffff_ffff, 0xffff_ffff), (0, 0xffff_ffff)]
    {
        assert_eq!(ask(&at(address, length)), Err(CallError::OutOfBounds), "{address} {length}");
    }
    assert_eq!(ask(&at(65535, 1)), Ok(Reply::Text(vec![0])));
    assert_eq!(ask(&at(65536, 0)), Ok(Reply::Text(vec![])), "nothing is nowhere");
    let alloc = answering("i64.const 1").replace("i32.const 1024 (; request ;)", "i32.const -1");
    assert_eq!(load(&alloc).err(), Some(LoadError::Call(CallError::OutOfBounds)));
    let log = "(call $log (i32.const 0) (i32.const 65535) (i32.const 2)) i64.const 1";
    assert!(matches!(ask(&with_import(LOG, log)), Err(CallError::Trap(_))));
}

#[test]
fn long_answer_ends_the_call() {
    assert!(matches!(ask(&answering("i64.const 4096")), Ok(Reply::Text(text)) if text.len() == 4096));
    assert_eq!(ask(&answering("i64.const 4097")), Err(CallError::ReplyTooLong(4096)));
}

#[test]
fn request_that_has_no_room_ends_the_call() {
    let module = load(&answering("i64.const 1")).unwrap();
    assert_eq!(module.call(&vec![b'x'; 65536], NOW), Err(CallError::OutOfBounds));
    assert_eq!(module.call(b"{}", NOW), Ok(Reply::Code(1)));
}

#[test]
fn instance_is_kept_until_it_fails() {
    let counting = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (if (i32.eq (i32.load (i32.const 0)) (i32.const 4)) (then unreachable))
        (i64.load32_u (i32.const 0))";
    let module = load(&answering(counting)).unwrap();
    let answers: Vec<_> = (0..6).map(|_| module.call(b"{}", NOW).ok()).collect();
    let code = |code| Some(Reply::Code(code));
    assert_eq!(answers, [code(1), code(2), code(3), None, code(1), code(2)]);
}

#[test]
fn one_that_loops_does_not_hold_up_another() {
    let looping = load(&answering("(loop $again (br $again)) i64.const 1")).unwrap();
    let good = load(&answering("i64.const 1")).unwrap();
    let answers = AtomicU32::new(0);
    thread::scope(|scope| {
        let bad = scope.spawn(|| looping.call(b"{}", NOW));
        while !bad.is_finished() {
            assert_eq!(good.call(b"{}", NOW), Ok(Reply::Code(1)));
            answers.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(bad.join().unwrap(), Err(CallError::TooLate(DEADLINE)));
    });
    assert!(answers.into_inner() > 10);
}

#[test]
fn several_threads_ask_one_module() {
    let module = load(&answering("i64.const 1")).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| assert_eq!(module.call(b"{}", NOW), Ok(Reply::Code(1)))));
        }
    });
}

#[test]
fn log_goes_where_it_should() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&lines);
    let log: LogSink = Arc::new(move |level, line| written.lock().unwrap().push((level, line.to_owned())));
    let speaking = format!("(call $log (i32.const 2) (i32.const {TEXT_AT}) (i32.const 5)) i64.const 1");
    let binary = wat::parse_str(with_import(LOG, &speaking)).unwrap();
    let module = Module::load(&binary, Options { log, ..options() }, NOW).unwrap();
    assert_eq!(module.call(b"{}", NOW), Ok(Reply::Code(1)));
    assert_eq!(*lines.lock().unwrap(), [(LogLevel::Info, "hello".into())]);
}

fn ask(text: &str) -> Result<Reply, CallError> {
    load(text).unwrap().call(b"{}", NOW)
}

fn load(text: &str) -> Result<Module, LoadError> {
    Module::load(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")), options(), NOW)
}

fn options() -> Options {
    Options {
        entry: POLICY_EVALUATE,
        config: CONFIG.into(),
        bounds: Bounds { deadline: DEADLINE, memory_bytes: MEMORY, reply_bytes: 4096 },
        log: Arc::new(|_, _| {}),
    }
}

/// A module whose answer is what `body` computes.
fn answering(body: &str) -> String {
    with_import("", body)
}

fn with_import(import: &str, body: &str) -> String {
    format!(
        "(module
            {import}
            (memory (export \"memory\") 1)
            (data (i32.const {TEXT_AT}) \"hello\")
            (func (export \"policy_abi_version\") (result i32) i32.const 1 (; version ;))
            (func (export \"policy_alloc\") (param i32) (result i32) i32.const 1024 (; request ;))
            (func (export \"policy_configure\") (param i32 i32) (result i32)
                (memory.copy (i32.const {CONFIG_AT}) (local.get 0) (local.get 1))
                i32.const 0 (; configured ;))
            (func $evaluate (export \"policy_evaluate\") (param i32 i32) (result i64)
                {body}))"
    )
}

fn without_end(module: &str) -> &str {
    module.strip_suffix(')').unwrap()
}

const CONFIG: &str = "{\"a\": 1}";
const TEXT_AT: u32 = 16;
const CONFIG_AT: u32 = 64;
const LOG: &str = "(import \"mgate\" \"log\" (func $log (param i32 i32 i32)))";
const NOW_MS: &str = "(import \"mgate\" \"now_ms\" (func $now (result i64)))";
/// More than a machine that is busy takes for a call that ends.
const DEADLINE: Duration = Duration::from_millis(200);
