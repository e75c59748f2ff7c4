use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::{ExternType, InstancePre, Linker};

use crate::error::{CallError, LoadError};
use crate::host::Host;
use crate::instance::{self, Guest, Instance};
use crate::log::{Log, LogSink};

/// One module, compiled and configured: asked from any thread, by several at once.
///
/// It has as many instances as there are calls at one time, each with a memory of its own; they are kept, so that
/// what a module made of its configuration is made once. Which instance answers a request is not to be foreseen.
pub struct Module {
    plan: Plan,
    idle: Mutex<Vec<Instance>>,
}

/// How a module is used.
#[derive(Clone)]
pub struct Options {
    /// The export that requests are put to, such as [`POLICY_EVALUATE`].
    pub entry: &'static str,
    /// What every instance is given before its first request.
    pub config: Vec<u8>,
    /// What it may use.
    pub bounds: Bounds,
    /// Where its log goes.
    pub log: LogSink,
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time for one request, in milliseconds of the wall's clock; starting may take ten times as much.
    pub deadline: Duration,
    /// Bytes of memory; to want more ends the call.
    pub memory_bytes: usize,
    /// Bytes of one answer.
    pub reply_bytes: usize,
}

/// What a module answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One of the codes 0 to 7.
    Code(u8),
    /// Bytes, in whatever language the entry speaks.
    Text(Vec<u8>),
}

impl Module {
    /// Compiles a module in WebAssembly's binary format and starts a first instance; `now` is the time since the
    /// Unix epoch. It takes as long as compilers do.
    pub fn load(binary: &[u8], options: Options, now: Duration) -> Result<Self, LoadError> {
        let plan = Plan::new(binary, options)?;
        let first = Instance::start(&plan, now)?;
        Ok(Self { plan, idle: Mutex::new(vec![first]) })
    }

    /// Puts a request to it; `now` is the time that it is told, since the Unix epoch.
    pub fn call(&self, request: &[u8], now: Duration) -> Result<Reply, CallError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // the one that rested last, whose memory is most likely in the processor's caches
        let rested = idle().pop();
        let mut instance = match rested {
            Some(instance) => instance,
            None => Instance::start(&self.plan, now).map_err(|error| match error {
                LoadError::Call(error) => error,
                other => CallError::Trap(other.to_string()),
            })?,
        };
        let reply = instance.call(request, &self.plan.options.bounds, now)?;
        idle().push(instance);
        Ok(reply)
    }
}

/// What every instance of a module begins with.
pub(crate) struct Plan {
    pub(crate) host: Arc<Host>,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) options: Options,
    pub(crate) log: Arc<Log>,
}

impl Plan {
    fn new(binary: &[u8], options: Options) -> Result<Self, LoadError> {
        let host = Host::shared()?;
        let invalid = |error: wasmtime::Error| LoadError::Invalid(instance::words(&error));
        let module = wasmtime::Module::from_binary(&host.engine, binary).map_err(invalid)?;
        check_imports(&module)?;
        check_exports(&module, options.entry)?;
        let mut linker = Linker::new(&host.engine);
        instance::offer(&mut linker).map_err(invalid)?;
        let pre = linker.instantiate_pre(&module).map_err(invalid)?;
        let log = Arc::new(Log::new(Arc::clone(&options.log)));
        Ok(Self { host, pre, options, log })
    }
}

fn check_imports(module: &wasmtime::Module) -> Result<(), LoadError> {
    for import in module.imports() {
        let name = format!("{}.{}", import.module(), import.name());
        let offered = IMPORTS.iter().find(|(known, _)| *known == name).map(|(_, what)| *what);
        if offered.is_none() || signature(&import.ty()).as_deref() != offered {
            return Err(LoadError::Import { name, offered });
        }
    }
    Ok(())
}

fn check_exports(module: &wasmtime::Module, entry: &'static str) -> Result<(), LoadError> {
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() => {}
        _ => return Err(LoadError::Export { name: "memory", wanted: "its memory" }),
    }
    for (name, wanted) in EXPORTS.iter().copied().chain([(entry, ENTRY)]) {
        if module.get_export(name).and_then(|export| signature(&export)).as_deref() != Some(wanted) {
            return Err(LoadError::Export { name, wanted });
        }
    }
    Ok(())
}

/// The type of a function as its text format has it.
fn signature(external: &ExternType) -> Option<String> {
    let ExternType::Func(function) = external else { return None };
    let list = |types: &mut dyn Iterator<Item = wasmtime::ValType>| {
        types.map(|each| each.to_string()).collect::<Vec<_>>().join(", ")
    };
    Some(format!("a function ({}) -> ({})", list(&mut function.params()), list(&mut function.results())))
}

/// The version of the interface.
pub const ABI_VERSION: u32 = 1;
/// The entry of a policy.
pub const POLICY_EVALUATE: &str = "policy_evaluate";
/// The entry of a transform.
pub const TRANSFORM_APPLY: &str = "transform_apply";

const ENTRY: &str = "a function (i32, i32) -> (i64)";
const EXPORTS: &[(&str, &str)] = &[
    ("policy_abi_version", "a function () -> (i32)"),
    ("policy_alloc", "a function (i32) -> (i32)"),
    ("policy_configure", "a function (i32, i32) -> (i32)"),
];

/// What may be imported.
const IMPORTS: &[(&str, &str)] =
    &[("mgate.log", "a function (i32, i32, i32) -> ()"), ("mgate.now_ms", "a function () -> (i64)")];
