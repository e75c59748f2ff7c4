//! Plug-ins: WebAssembly modules from files, which are read again when those change.
//!
//! A file that is missing or bad when mgate starts leaves its plug-in *not ready*: whatever it is asked is denied
//! until there is a good one. A good one stays until there is a better one.

mod answer;
mod changes;
mod failures;
mod file;
mod policy;
mod question;
mod transform;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use std::{error, fmt, io};

use mgate_policies::{Now, Scope};
use mgate_wasm::{Bounds, CallError, LoadError, LogLevel, LogSink, Module, Options, Reply};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use self::file::Stamp;
use crate::health::Component;
use crate::withdrawals::Withdrawals;

pub use self::file::Digest;
pub use self::policy::{WasmPolicy, WasmPolicyOptions};
pub use self::transform::{WasmTransform, WasmTransformOptions};

/// One plug-in: the newest good module of its file, if there was one.
pub struct Plugin {
    options: PluginOptions,
    module: RwLock<Option<Arc<Module>>>,
    readiness: watch::Sender<Readiness>,
    seen: Mutex<Seen>,
}

/// What a [`Plugin`] is made of.
pub struct PluginOptions {
    /// The name that logs show.
    pub name: Arc<str>,
    /// Where the module is.
    pub path: PathBuf,
    /// The only contents that the file may have.
    pub sha256: Option<Digest>,
    /// The export that is called.
    pub entry: &'static str,
    /// What the module is configured with, in JSON.
    pub config: Vec<u8>,
    /// What it may use.
    pub bounds: Bounds,
}

/// Whether a plug-in can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is a module.
    Ready,
    /// There is none yet, and this is why.
    NotReady(Arc<str>),
}

/// Why a file makes no plug-in.
#[derive(Debug)]
pub enum PluginError {
    /// Its contents have another digest than the configuration says: this one.
    Digest(Digest),
    /// It is no module that can be used.
    Load(LoadError),
    /// It cannot be read.
    Read(io::Error),
}

/// Why a plug-in has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Call(CallError),
    NotReady,
}

/// What is known of the file.
#[derive(Default)]
struct Seen {
    /// As it was when it was last looked at.
    last: Option<Stamp>,
    /// As it was when it was last tried, whatever came of it.
    tried: Option<Stamp>,
    /// What is in use.
    digest: Option<Digest>,
}

impl Plugin {
    /// The plug-in in a file, ready or not; it takes as long as its compilation.
    pub fn new(options: PluginOptions) -> Self {
        let plugin = Self {
            module: RwLock::default(),
            readiness: watch::Sender::new(Readiness::NotReady("it was not looked at".into())),
            seen: Mutex::default(),
            options,
        };
        let stamp = Stamp::of(&plugin.options.path);
        let mut seen = Seen { last: stamp, tried: stamp, digest: None };
        plugin.renew(&mut seen);
        Self { seen: Mutex::new(seen), ..plugin }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.options.name
    }

    /// Whether it can be asked, now and later.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Looks after the file for ever, and tells `part` how the plug-in is; another module may have withdrawn anybody's
    /// rights. Must run in a tokio runtime.
    pub async fn watch(self: Arc<Self>, part: Component, withdrawals: Withdrawals) {
        match &*self.readiness.borrow() {
            Readiness::Ready => info!(plugin = %self.name(), "the plug-in is ready"),
            Readiness::NotReady(why) => {
                error!(plugin = %self.name(), %why, "the plug-in is not ready: what it is asked is denied");
            }
        }
        loop {
            match &*self.readiness.borrow() {
                Readiness::Ready => part.ready(),
                Readiness::NotReady(why) => part.not_ready(why),
            }
            sleep(INTERVAL).await;
            let plugin = Arc::clone(&self);
            // a compiler is no guest for a runtime; one that panics leaves the module that there is
            if let Ok(true) = spawn_blocking(move || plugin.look()).await {
                withdrawals.add(Scope::Everyone);
            }
        }
    }

    /// Puts a request to the module.
    pub(crate) fn call(&self, request: &[u8], now: Now) -> Result<Reply, Failure> {
        // released before the call, which goes on with the old module if a new one comes
        let module = self.module.read().unwrap_or_else(PoisonError::into_inner).clone();
        module.ok_or(Failure::NotReady)?.call(request, now.unix).map_err(Failure::Call)
    }

    /// Takes the file's new contents, if it has any and they are whole; says whether another module is in use.
    fn look(&self) -> bool {
        let stamp = Stamp::of(&self.options.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // somebody may still be writing: what changed must have rested since the last look
        let has_rested = std::mem::replace(&mut seen.last, stamp) == stamp;
        if !has_rested || stamp == seen.tried {
            return false;
        }
        let before = seen.digest;
        seen.tried = stamp;
        self.renew(&mut seen);
        seen.digest != before
    }

    fn renew(&self, seen: &mut Seen) {
        let name = self.name();
        match self.load(seen.digest.as_ref()) {
            Ok(None) => debug!(plugin = %name, "the file was touched, and is what it was"),
            Ok(Some((module, digest))) => {
                *self.module.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(module));
                if seen.digest.replace(digest).is_some() {
                    info!(plugin = %name, sha256 = %digest, "the plug-in was replaced");
                } else {
                    info!(plugin = %name, sha256 = %digest, "the plug-in was loaded");
                }
                self.readiness.send_replace(Readiness::Ready);
            }
            Err(why) if seen.digest.is_some() => {
                error!(plugin = %name, %why, "the new plug-in cannot be used: the one before stays");
            }
            Err(why) => {
                warn!(plugin = %name, %why, "the plug-in cannot be used");
                self.readiness.send_replace(Readiness::NotReady(why.to_string().into()));
            }
        }
    }

    /// What the file holds now, unless that is in use already.
    fn load(&self, in_use: Option<&Digest>) -> Result<Option<(Module, Digest)>, PluginError> {
        let options = &self.options;
        let bytes = file::read(&options.path).map_err(PluginError::Read)?;
        let digest = Digest::of(&bytes);
        if options.sha256.is_some_and(|pinned| pinned != digest) {
            return Err(PluginError::Digest(digest));
        }
        if in_use == Some(&digest) {
            return Ok(None);
        }
        let module = Options {
            entry: options.entry,
            config: options.config.clone(),
            bounds: options.bounds,
            log: sink(Arc::clone(&options.name)),
        };
        let module = Module::load(&bytes, module, Now::read().unix).map_err(PluginError::Load)?;
        Ok(Some((module, digest)))
    }
}

/// What a plug-in logs, as lines of our own log.
fn sink(plugin: Arc<str>) -> LogSink {
    Arc::new(move |level, line| match level {
        LogLevel::Error => error!(%plugin, "{line}"),
        LogLevel::Warn => warn!(%plugin, "{line}"),
        LogLevel::Info => info!(%plugin, "{line}"),
        LogLevel::Debug => debug!(%plugin, "{line}"),
    })
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(found) => write!(f, "its SHA-256 is {found}, which is not what is pinned"),
            Self::Load(error) => error.fmt(f),
            Self::Read(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl error::Error for PluginError {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::NotReady => f.write_str("the plug-in is not ready"),
        }
    }
}

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
