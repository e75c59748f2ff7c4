use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{
    Caller, Extern, Linker, Memory, Store, StoreLimits, StoreLimitsBuilder, Trap, TypedFunc, WasmParams,
    WasmResults,
};

use crate::error::{CallError, LoadError};
use crate::host::ticks;
use crate::log::{Log, LogLevel};
use crate::module::{ABI_VERSION, Bounds, Plan, Reply};

/// One instance of a module: its memory and what it keeps there between calls.
pub(crate) struct Instance {
    store: Store<Guest>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    entry: TypedFunc<(u32, u32), u64>,
}

/// What the functions know that an instance may call.
pub(crate) struct Guest {
    limits: StoreLimits,
    log: Arc<Log>,
    now: Duration,
    /// The last line that it logged.
    words: Option<String>,
}

impl Instance {
    /// Instantiates and configures it, which may take ten times as long as a request.
    pub(crate) fn start(plan: &Plan, now: Duration) -> Result<Self, LoadError> {
        let bounds = &plan.options.bounds;
        let time = bounds.deadline * START_FACTOR;
        let guest = Guest { limits: limits(bounds), log: Arc::clone(&plan.log), now, words: None };
        let mut store = Store::new(&plan.host.engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(ticks(time));
        let failed = |error| CallError::of(&error, time);
        let instance = plan.pre.instantiate(&mut store).map_err(failed)?;
        let memory = instance.get_memory(&mut store, "memory");
        let memory = memory.ok_or(LoadError::Export { name: "memory", wanted: "its memory" })?;
        let version = instance.get_typed_func::<(), u32>(&mut store, "policy_abi_version").map_err(failed)?;
        let alloc = instance.get_typed_func(&mut store, "policy_alloc").map_err(failed)?;
        let configure: TypedFunc<(u32, u32), u32> =
            instance.get_typed_func(&mut store, "policy_configure").map_err(failed)?;
        let entry = instance.get_typed_func(&mut store, plan.options.entry).map_err(failed)?;
        let mut instance = Self { store, memory, alloc, entry };
        match instance.run(&version, (), time)? {
            ABI_VERSION => {}
            other => return Err(LoadError::AbiVersion(other)),
        }
        let config = instance.hand_over(&plan.options.config, time)?;
        match instance.run(&configure, config, time)? {
            0 => Ok(instance),
            code => Err(LoadError::Refused { code, words: instance.store.data_mut().words.take() }),
        }
    }

    /// Puts a request to it. After an error it must not be used again.
    pub(crate) fn call(
        &mut self,
        request: &[u8],
        bounds: &Bounds,
        now: Duration,
    ) -> Result<Reply, CallError> {
        self.store.data_mut().now = now;
        self.store.set_epoch_deadline(ticks(bounds.deadline));
        let request = self.hand_over(request, bounds.deadline)?;
        let entry = self.entry.clone();
        let answer = self.run(&entry, request, bounds.deadline)?;
        match u8::try_from(answer) {
            Ok(code) if code <= LAST_CODE => Ok(Reply::Code(code)),
            _ => self.reply(answer, bounds.reply_bytes),
        }
    }

    /// Puts bytes where the module wants to have them.
    fn hand_over(&mut self, bytes: &[u8], time: Duration) -> Result<(u32, u32), CallError> {
        let length = u32::try_from(bytes.len()).map_err(|_| CallError::RequestTooLong)?;
        let alloc = self.alloc.clone();
        let at = self.run(&alloc, length, time)?;
        let memory = self.memory.data_mut(&mut self.store);
        memory.get_mut(range(at, length)).ok_or(CallError::OutOfBounds)?.copy_from_slice(bytes);
        Ok((at, length))
    }

    /// The bytes that an answer points to: the address in its upper half, the length in its lower.
    fn reply(&self, answer: u64, most: usize) -> Result<Reply, CallError> {
        #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
        let (at, length) = ((answer >> 32) as u32, answer as u32);
        let bytes = self.memory.data(&self.store).get(range(at, length)).ok_or(CallError::OutOfBounds)?;
        match bytes.len() <= most {
            true => Ok(Reply::Text(bytes.to_vec())),
            false => Err(CallError::ReplyTooLong(most)),
        }
    }

    fn run<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        time: Duration,
    ) -> Result<R, CallError> {
        function.call(&mut self.store, parameters).map_err(|error| CallError::of(&error, time))
    }
}

impl CallError {
    fn of(error: &wasmtime::Error, time: Duration) -> Self {
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::TooLate(time),
            Some(trap) => Self::Trap(trap.to_string()),
            None => Self::Trap(words(error)),
        }
    }
}

/// Offers what modules may import.
pub(crate) fn offer(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap("mgate", "now_ms", |caller: Caller<'_, Guest>| -> u64 {
        u64::try_from(caller.data().now.as_millis()).unwrap_or(u64::MAX)
    })?;
    linker.func_wrap("mgate", "log", write_log)?;
    Ok(())
}

fn write_log(mut caller: Caller<'_, Guest>, level: u32, at: u32, length: u32) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg(CallError::OutOfBounds));
    };
    let (memory, guest) = memory.data_and_store_mut(&mut caller);
    let line = memory.get(range(at, length)).ok_or_else(|| wasmtime::Error::msg(CallError::OutOfBounds))?;
    guest.words = Some(guest.log.write(LogLevel::of(level), line, guest.now));
    Ok(())
}

/// What an error is about at its bottom, on one line.
pub(crate) fn words(error: &wasmtime::Error) -> String {
    let root = error.root_cause().to_string();
    root.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

fn limits(bounds: &Bounds) -> StoreLimits {
    StoreLimitsBuilder::new()
        .instances(1)
        .memories(1)
        .memory_size(bounds.memory_bytes)
        .tables(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .trap_on_grow_failure(true)
        .build()
}

fn range(at: u32, length: u32) -> Range<usize> {
    let at = at as usize;
    at..at.saturating_add(length as usize)
}

const START_FACTOR: u32 = 10;
const LAST_CODE: u8 = 7;
const TABLES: usize = 4;
/// References to functions: a large program has some thousands.
const TABLE_ELEMENTS: usize = 20_000;
