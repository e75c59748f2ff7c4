//! Calls the admin listener of a gateway that runs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use mgate_proxy::transport::Authorities;
use serde_json::Value;

use crate::config::{AdminConfig, Config, Environment};
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
        let config = Config::load(&self.config, &Environment::of_process())?;
        let admin = config.admin.with_context(|| format!("{} has no [admin]", self.config.display()))?;
        let address = reachable(admin.listen);
        let request = request(address, path, body, &admin)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime
            .block_on(async { client()?.send(request).await.map_err(anyhow::Error::from) })
            .with_context(|| format!("no answer of the admin listener at {address}"))?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        if !answer.status().is_success() {
            bail!(refusal(&body).unwrap_or_else(|| answer.status().to_string()));
        }
        Ok(body)
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
fn refusal(body: &Value) -> Option<String> {
    let mut lines = vec![body["detail"].as_str()?.to_owned()];
    for problem in body["problems"].as_array().into_iter().flatten() {
        let text = |key: &str| problem[key].as_str().unwrap_or_default();
        lines.push(format!("{}: {}: {}", text("file"), text("key"), text("message")));
    }
    Some(lines.join("\n"))
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
