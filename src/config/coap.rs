//! `coap`: how a route speaks CoAP.

use mgate_proxy::coap::{Deliveries, Options, Profile};

use super::section::Section;

/// The keys of the table.
pub(super) const KEYS: &[&str] = &["profile", "hosts", "deliveries", "challenge"];

/// How a route speaks CoAP.
pub(super) fn read(mut section: Section<'_>) -> Options {
    let hosts = section.texts("hosts").unwrap_or_default();
    let options = Options {
        profile: section.one_of("profile", PROFILES).unwrap_or_default(),
        hosts: hosts.into_iter().map(|host| host.value).collect(),
        deliveries: section.one_of("deliveries", DELIVERIES).unwrap_or_default(),
        has_challenge: section.boolean("challenge").unwrap_or(false),
    };
    section.finish();
    options
}

const PROFILES: &[(&str, Profile)] = &[("proxy", Profile::Proxy), ("messages", Profile::Messages)];

const DELIVERIES: &[(&str, Deliveries)] = &[("ask", Deliveries::Ask), ("pass", Deliveries::Pass)];
