//! `tls` and `dtls` of a route of CoAP over DTLS.

use std::sync::Arc;

use mgate_dtls::HandshakeEngine;
use mgate_proxy::coap::Dtls;
use mgate_proxy::gate::Limits;

use super::files::Files;
use super::section::Section;
use super::tls;

/// The keys of `dtls`.
pub(super) const KEYS: &[&str] = &["connection_ids", "handshakes", "handshakes_per_address"];

/// How a listener speaks DTLS, if nothing is wrong with it.
pub(super) fn server(
    route: &mut Section<'_>,
    has_keys: bool,
    limits: &Limits,
    files: &Files<'_>,
) -> Option<Dtls> {
    let mut section = route.section("dtls");
    let has_connection_ids = section.boolean("connection_ids").unwrap_or(true);
    let handshakes = count(&mut section, "handshakes", DEFAULT_HANDSHAKES);
    let handshakes_per_address =
        count(&mut section, "handshakes_per_address", DEFAULT_HANDSHAKES_PER_ADDRESS).min(handshakes);
    section.finish();
    let mut tls = route.section("tls");
    let is_given = tls.is_given(tls::SERVER_KEYS);
    if !is_given && !has_keys {
        let message = "is missing: coaps needs a certificate, or keys of an authenticator of type \"psk\"";
        route.problem("tls", message);
        return None;
    }
    for key in ["certificates", "min_version", "ciphers"] {
        if tls.has(key) {
            tls.problem(key, "has no use with coaps");
        }
    }
    let pems = is_given.then(|| tls::pem_files(&mut tls, files));
    tls.finish();
    let pems = match pems {
        Some(pems) => Some(pems?),
        None => None,
    };
    let engine = tls.check(tls.place(), engine(pems, has_keys))?;
    let handshake_timeout = limits.handshake_timeout;
    Some(Dtls { engine, has_connection_ids, handshakes, handshakes_per_address, handshake_timeout })
}

fn count(section: &mut Section<'_>, key: &'static str, default: usize) -> usize {
    let count = section.integer(key, 1..=100_000);
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
}

#[cfg(feature = "dtls")]
fn engine(
    pems: Option<tls::PemFiles>,
    has_keys: bool,
) -> Result<Arc<dyn HandshakeEngine>, mgate_dtls::openssl::Fault> {
    use mgate_dtls::openssl::{Certificate, ClientAuth, Engine, EngineSettings, Psk};
    use mgate_proxy::transport::Demand;

    let psk = if has_keys { Psk::On } else { Psk::Off };
    let mut settings = EngineSettings { psk, ..EngineSettings::default() };
    if let Some(tls::PemFiles { chain, key, clients }) = pems {
        settings.certificate = Some(Certificate { chain, key: key.into() });
        if let Some(clients) = clients {
            settings.authorities = vec![clients.authorities];
            settings.revocation_lists = clients.lists;
            settings.client_auth = match clients.demand {
                Demand::Optional => ClientAuth::Optional,
                Demand::Required => ClientAuth::Required,
            };
        }
    }
    Ok(Arc::new(Engine::new(&settings)?))
}

/// Such a build does not know the scheme.
#[cfg(not(feature = "dtls"))]
fn engine(_: Option<tls::PemFiles>, _: bool) -> Result<Arc<dyn HandshakeEngine>, &'static str> {
    Err(super::values::WITHOUT_DTLS)
}

/// Each costs some 50 KiB while it goes on.
const DEFAULT_HANDSHAKES: usize = 1000;
const DEFAULT_HANDSHAKES_PER_ADDRESS: usize = 100;
