//! The configuration: the file as written becomes a [`Config`] that cannot be wrong.
//!
//! All files that it names are read and built while it is loaded, and all that is wrong with any of them is
//! found at once, each with its file, line and key.

mod admin;
mod claims;
mod coap;
mod cors;
mod dates;
mod definitions;
mod document;
mod dtls;
mod environment;
mod files;
mod hook;
mod http;
mod introspection;
mod jwt;
mod limits;
mod listener;
mod mirror;
mod mirror_dialect;
mod payload;
mod pdp;
mod policy_test;
mod problem;
mod psk;
mod remote;
mod route;
mod section;
mod service;
mod static_policy;
mod tls;
mod transform;
mod values;
#[cfg(feature = "wasm")]
mod wasm;
mod yaml;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use mgate_policies::jwt_scopes::JwtScopes;
use mgate_policies::static_rules::StaticRules;
use mgate_policies::{Policy, Standing, Transform};
use mgate_proxy::gate::{Authenticator, Mirror};

use self::definitions::Definitions;
use self::files::Files;
use self::route::Context;
#[cfg(feature = "wasm")]
use self::wasm::Plugins;
use crate::authn::password_file::PasswordFile;
use crate::authn::{Anonymous, Identity, Password, X509};
use crate::extension::Extension;
use crate::health::Health;
use crate::log::{self, LogConfig};
use crate::mirror::nats::NatsMirror;
#[cfg(feature = "wasm")]
use crate::plugin::Plugin;
use crate::withdrawals::Withdrawals;

pub use self::admin::{AdminConfig, Token};
pub(crate) use self::document::{Node, Value};
pub use self::environment::Environment;
pub(crate) use self::files::parse_json;
pub use self::policy_test::PolicyTest;
pub(crate) use self::problem::Report;
pub use self::problem::{Place, Problem, Problems};
pub use self::route::{RouteConfig, Speech};
pub(crate) use self::section::{Given, Section};
pub use self::values::{Address, Scheme};

/// All that one gateway does.
pub struct Config {
    /// Threads that move packets.
    pub workers: NonZeroUsize,
    /// Time that open sessions have to end when the gateway stops.
    pub drain_timeout: Duration,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where operators and their programs ask and command; nowhere if it is `None`.
    pub admin: Option<AdminConfig>,
    /// The listeners and where each leads; only routes of HTTP share an address.
    pub routes: Vec<RouteConfig>,
    /// The plug-ins that policies and transforms are made of.
    #[cfg(feature = "wasm")]
    pub plugins: Vec<Arc<Plugin>>,
    /// What is not there yet, such as the file of a plug-in: until it is, all that hangs on it is denied.
    pub unready: Vec<Problem>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Problem>,
    /// What has to be there for it to be served.
    pub health: Health,
    /// Where rights are withdrawn by those whom policies ask.
    pub(crate) withdrawals: Withdrawals,
    /// The mirrors that are to be started, once a route has them.
    pub(crate) mirrors: Vec<Arc<NatsMirror>>,
    pub(crate) source: Source,
}

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    environment: Environment,
    extensions: Extensions,
}

/// What a program brings itself, for routes to name.
#[derive(Clone, Default)]
pub struct Extensions {
    /// Policies, each under its own name.
    pub policies: Vec<Arc<dyn Policy>>,
    /// Authenticators, each under its own name.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Mirrors by name.
    pub mirrors: Vec<(String, Arc<dyn Mirror>)>,
    /// Transforms, each under its own name.
    pub transforms: Vec<Arc<dyn Transform>>,
}

impl Config {
    /// Reads a file and all files that it names; `environment` overrides values of the first.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Problems> {
        Self::load_with(path, environment, Extensions::default())
    }

    /// The same with what the program brings itself: routes may name it as if the file defined it.
    pub fn load_with(
        path: &Path,
        environment: &Environment,
        extensions: Extensions,
    ) -> Result<Self, Problems> {
        let report = Report::default();
        let source = Source { path: path.into(), environment: environment.clone(), extensions };
        let config = files::root(path, &report).map(|(node, place)| {
            let file = Section::root(&node, &place, Some(environment), &report);
            read(file, &Files::beside(path, &report), source, &report)
        });
        let unready = config.as_ref().map_or(&[][..], |config| &config.unready);
        if report.problems() > 0 {
            unready.iter().for_each(|problem| report.problem(&problem.place, problem.message.as_str()));
        }
        let warnings = report.finish()?;
        let nothing = Problems(Vec::new());
        config.map(|config| Self { warnings, ..config }).ok_or(nothing)
    }
}

impl Source {
    /// Reads it as it is now.
    pub(crate) fn load(self) -> Result<Config, Problems> {
        Config::load_with(&self.path, &self.environment, self.extensions)
    }
}

/// The static policy that a text in TOML makes.
pub(crate) fn policy_of_text(name: &str, text: &str) -> Result<StaticRules, Problems> {
    let report = Report::default();
    let place = Place::file(Path::new(name));
    let read = document::parse_toml(text)
        .map(|node| static_policy::read(name, Section::root(&node, &place, None, &report), &report));
    if let Err(error) = &read {
        report.problem(&Place { line: error.line, ..place }, error.message.as_str());
    }
    report.finish()?;
    read.ok().flatten().ok_or(Problems(Vec::new()))
}

/// Runs the tests of a static policy's file, which no configuration needs to name.
pub fn test_policy(path: &Path) -> Result<Vec<PolicyTest>, Problems> {
    let report = Report::default();
    let read = files::alone(path, &report).and_then(|(node, place)| {
        static_policy::read_with_tests("", Section::root(&node, &place, None, &report), &report)
    });
    report.finish()?;
    Ok(read.map(|(_, tests)| tests).unwrap_or_default())
}

fn read(mut file: Section<'_>, files: &Files<'_>, source: Source, report: &Report) -> Config {
    let cores = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = file.integer("workers", 1..=1024).and_then(|workers| usize::try_from(workers).ok());
    let drain_timeout = file.duration("drain_timeout", Duration::ZERO..=HOUR);
    let log = read_log(file.section("log"));
    let admin = admin::read(file.section("admin"), files);
    let surroundings = Surroundings::default();
    let mut context = Context {
        authn: Definitions::read(&mut file, "authn", |name, section| authenticator(name, section, files)),
        policies: Definitions::read(&mut file, "policy", |name, mut section| {
            let is_enforced = section.boolean("enforce").unwrap_or(true);
            let policy = policy(name, section, files, &surroundings)?;
            Some(Standing { policy, is_enforced })
        }),
        mirrors: Definitions::read(&mut file, "mirror", |name, section| {
            mirror::read(name, section, files, &surroundings.mirrors)
        }),
        transforms: Definitions::read(&mut file, "transform", |name, section| {
            transform::read(name, section, files, &surroundings)
        }),
        files,
        report,
    };
    source.extensions.clone().add_to(&mut context);
    let routes = route::read_all(&mut file, &context);
    context.authn.warn_of_unused(report);
    context.policies.warn_of_unused(report);
    context.mirrors.warn_of_unused(report);
    context.transforms.warn_of_unused(report);
    file.finish();
    #[cfg(feature = "wasm")]
    let (plugins, unready) = surroundings.plugins.finish();
    #[cfg(not(feature = "wasm"))]
    let unready = Vec::new();
    Config {
        workers: workers.and_then(NonZeroUsize::new).unwrap_or(cores),
        drain_timeout: drain_timeout.unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        log,
        admin,
        routes,
        #[cfg(feature = "wasm")]
        plugins,
        unready,
        warnings: Vec::new(),
        health: Health::default(),
        withdrawals: surroundings.withdrawals,
        mirrors: surroundings.mirrors.into_inner().unwrap_or_else(PoisonError::into_inner),
        source,
    }
}

impl Extensions {
    fn add_to(self, context: &mut Context<'_>) {
        let report = context.report;
        for authenticator in self.authenticators {
            let name = authenticator.name().to_owned();
            let authn = route::Authn {
                authenticator: Some(Arc::new(Extension(authenticator))),
                needs_certificates: false,
                keys: route::Keys::Unknown,
            };
            context.authn.add(&name, authn, report);
        }
        for policy in self.policies {
            let name = policy.name().to_owned();
            context.policies.add(&name, Standing::enforced(Arc::new(Extension(policy))), report);
        }
        for (name, mirror) in self.mirrors {
            context.mirrors.add(&name, Arc::new(Extension(mirror)), report);
        }
        for transform in self.transforms {
            let name = transform.name().to_owned();
            context.transforms.add(&name, Arc::new(Extension(transform)), report);
        }
    }
}

fn read_log(mut section: Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    let config = LogConfig {
        format: section.one_of("format", LOG_FORMATS).unwrap_or(default.format),
        level: section.parse("level", log::Level::parse).map_or(default.level, |level| level.value),
    };
    section.finish();
    config
}

fn authenticator(name: &str, mut section: Section<'_>, files: &Files<'_>) -> Option<route::Authn> {
    section.require(&["type"]);
    let kind = section.one_of("type", AUTHN_TYPES)?;
    let authenticator = match kind {
        AuthnType::Anonymous => Some(Arc::new(Anonymous::new(name)) as Arc<_>),
        AuthnType::Introspection => introspection::read(name, &mut section, files).map(in_background),
        AuthnType::Jwt => jwt::read(name, &mut section, files).map(in_background),
        AuthnType::Password => {
            users(&mut section, files).map(|file| Arc::new(Password::new(name, file)) as Arc<_>)
        }
        AuthnType::Psk => psk::read(name, &mut section, files),
        AuthnType::Remote => remote::read(name, &mut section, files).map(in_background),
        AuthnType::X509 => {
            let identity = section.one_of("id", IDENTITIES).unwrap_or(Identity::CommonName);
            Some(Arc::new(X509::new(name, identity)) as Arc<_>)
        }
    };
    section.finish();
    let needs_certificates = kind == AuthnType::X509;
    let keys = if kind == AuthnType::Psk { route::Keys::Some } else { route::Keys::None };
    Some(route::Authn { authenticator, needs_certificates, keys })
}

/// An authenticator that needs what a worker's runtime does not have.
fn in_background(authenticator: impl Authenticator + 'static) -> Arc<dyn Authenticator> {
    let authenticator: Arc<dyn Authenticator> = Arc::new(authenticator);
    Arc::new(Extension(authenticator))
}

fn users(section: &mut Section<'_>, files: &Files<'_>) -> Option<PasswordFile> {
    section.require(&["file"]);
    let name = section.text("file")?;
    let text = files.text(&name)?;
    let path = files.path(&name);
    match PasswordFile::parse(&text, &path) {
        Ok(file) => Some(file),
        Err(errors) => {
            for error in errors {
                let place = Place { line: Some(error.line), key: error.key, ..Place::file(&error.path) };
                files.report().problem(&place, error.message);
            }
            None
        }
    }
}

fn policy(
    name: &str,
    mut section: Section<'_>,
    files: &Files<'_>,
    surroundings: &Surroundings,
) -> Option<Arc<dyn Policy>> {
    section.require(&["type"]);
    let kind = section.parse("type", policy_type)?.value;
    match kind {
        PolicyType::Pdp => {
            let pdp = pdp::read(name, &mut section, files, &surroundings.withdrawals);
            section.finish();
            let pdp: Arc<dyn Policy> = Arc::new(pdp?);
            Some(Arc::new(Extension(pdp)))
        }
        PolicyType::JwtScopes => jwt_scopes(name, section),
        PolicyType::Static => static_rules(name, section, files, files.report()),
        #[cfg(feature = "wasm")]
        PolicyType::Wasm => {
            let policy = wasm::policy(name, &mut section, files, &surroundings.plugins);
            section.finish();
            Some(Arc::new(policy?))
        }
        #[cfg(not(feature = "wasm"))]
        PolicyType::Wasm => None,
    }
}

fn policy_type(kind: &str) -> Result<PolicyType, String> {
    match supported(kind, POLICY_TYPES, &[])? {
        PolicyType::Wasm if cfg!(not(feature = "wasm")) => Err(WITHOUT_WASM.to_owned()),
        kind => Ok(kind),
    }
}

fn jwt_scopes(name: &str, mut section: Section<'_>) -> Option<Arc<dyn Policy>> {
    let claim = section.parse("scope_claim", claims::not_empty);
    let claim = claim.map_or_else(|| "scope".into(), |claim| claim.value);
    let prefix = section.text("scope_prefix").map_or_else(|| "mqtt:".into(), |prefix| prefix.value);
    section.finish();
    Some(Arc::new(JwtScopes::new(name, &format!("claims.{claim}"), &prefix)))
}

fn static_rules(
    name: &str,
    mut section: Section<'_>,
    files: &Files<'_>,
    report: &Report,
) -> Option<Arc<dyn Policy>> {
    section.require(&["file"]);
    let file = section.text("file");
    section.finish();
    let (node, place) = files.document(&file?)?;
    let rules = static_policy::read(name, Section::root(&node, &place, None, report), report)?;
    Some(Arc::new(rules))
}

/// Takes a kind that there is; says of those to come that they are not there yet.
fn supported<T: Copy>(kind: &str, known: &[(&str, T)], to_come: &[&str]) -> Result<T, String> {
    if let Some((_, meaning)) = known.iter().find(|(word, _)| *word == kind) {
        return Ok(*meaning);
    }
    let known = known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    match to_come.contains(&kind) {
        true => Err(format!("type \"{kind}\" is not supported by this version ({known})")),
        false => Err(format!("unknown type \"{kind}\" ({known})")),
    }
}

/// What policies and transforms have to do with beside their files.
#[derive(Default)]
struct Surroundings {
    #[cfg(feature = "wasm")]
    plugins: Plugins,
    withdrawals: Withdrawals,
    mirrors: mirror::Started,
}

#[derive(Clone, Copy)]
enum PolicyType {
    JwtScopes,
    Pdp,
    Static,
    Wasm,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthnType {
    Anonymous,
    Introspection,
    Jwt,
    Password,
    Psk,
    Remote,
    X509,
}

const AUTHN_TYPES: &[(&str, AuthnType)] = &[
    ("anonymous", AuthnType::Anonymous),
    ("introspection", AuthnType::Introspection),
    ("jwt", AuthnType::Jwt),
    ("password", AuthnType::Password),
    ("psk", AuthnType::Psk),
    ("remote", AuthnType::Remote),
    ("x509", AuthnType::X509),
];

const POLICY_TYPES: &[(&str, PolicyType)] = &[
    ("static", PolicyType::Static),
    ("jwt_scopes", PolicyType::JwtScopes),
    ("pdp", PolicyType::Pdp),
    ("wasm", PolicyType::Wasm),
];

const IDENTITIES: &[(&str, Identity)] = &[
    ("cn", Identity::CommonName),
    ("san_dns", Identity::SanDns),
    ("san_uri", Identity::SanUri),
    ("fingerprint", Identity::Fingerprint),
];

const WITHOUT_WASM: &str = "type \"wasm\" is not in this build, which lacks the feature `wasm`";

const LOG_FORMATS: &[(&str, log::Format)] = &[("text", log::Format::Text), ("json", log::Format::Json)];

const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
