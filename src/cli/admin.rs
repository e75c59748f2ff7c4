//! Calls the admin listener of a gateway that runs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use mgate_proxy::transport::Authorities;
use serde_json::Value;

use crate::config::{AdminConfig, Environment, Problem, Problems};
use crate::neighbour::http::{HttpClient, HttpOptions};

/// A gateway that runs with a configuration.
#[derive(clap::Args)]
pub(super) struct Running {
    /// The configuration file of the gateway that runs
    #[arg(short, long, value_name = "FILE", default_value = "mgate.toml")]
    config: PathBuf,
}

impl Running {
    /// Has it do something, and returns what it says.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        // whatever else is wrong with the file: the gateway may have to be told all the same
        let admin = AdminConfig::load(&self.config, &Environment::of_process())?;
        let admin = admin.with_context(|| format!("{} has no [admin]", self.config.display()))?;
        let address = reachable(admin.listen);
        let request = request(address, path, body, &admin)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime
            .block_on(async { client()?.send(request).await.map_err(anyhow::Error::from) })
            .with_context(|| format!("no answer of the admin listener at {address}"))?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        if answer.status().is_success() { Ok(body) } else { Err(refusal(&body, answer.status())) }
    }
}

fn request(
    address: SocketAddr,
    path: &str,
    body: &Value,
    admin: &AdminConfig,
) -> anyhow::Result<Request<Bytes>> {
    let mut request =
        Request::post(format!("http://{address}{path}")).header(CONTENT_TYPE, "application/json");
    if let Some(file) = &admin.token_file {
        let token = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    Ok(request.body(body.to_string().into())?)
}

fn client() -> anyhow::Result<HttpClient> {
    let options = HttpOptions {
        ca: Some(Authorities::none()),
        identity: None,
        timeout: Duration::from_secs(60),
        max_body_bytes: 16 * 1024 * 1024,
    };
    HttpClient::new(options).map_err(|error| anyhow!("{error}"))
}

/// What was wrong, as the listener says it.
fn refusal(body: &Value, status: StatusCode) -> anyhow::Error {
    let problems: Vec<_> =
        body["problems"].as_array().into_iter().flatten().filter_map(Problem::of_json).collect();
    match body["detail"].as_str() {
        _ if !problems.is_empty() => Problems(problems).into(),
        Some(detail) => anyhow!("{detail}"),
        None => anyhow!("{status}"),
    }
}

/// Where this machine reaches what listens at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
