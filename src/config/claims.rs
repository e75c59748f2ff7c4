//! What tokens have in common, whoever judges them: where they are shown, and what their claims mean.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::section::Section;
use crate::authn::{ClaimRules, TokenPlace};

/// Where clients show their tokens.
pub(super) fn token_in(section: &mut Section<'_>) -> Vec<TokenPlace> {
    section.forbid_empty("token_in");
    let places = section.parse_each("token_in", TokenPlace::parse);
    if places.is_empty() { vec![TokenPlace::Password] } else { places }
}

/// Which claims are good, and what becomes of them.
pub(super) fn rules(section: &mut Section<'_>, needs_expiry: bool) -> ClaimRules {
    section.forbid_empty("audience");
    let audience: Vec<String> = section.parse_each("audience", not_empty);
    let is_for_any = audience.is_empty() || audience.iter().any(|name| name == ANY);
    let mut claim = |key| section.parse(key, not_empty).map(|given| given.value);
    let [id_claim, groups_claim, tenant_claim, acl_claim] =
        ["id_claim", "groups_claim", "tenant_claim", "acl_claim"].map(&mut claim);
    let required = section.pairs("required_claims");
    ClaimRules {
        audience: (!is_for_any).then_some(audience),
        needs_expiry,
        leeway: section.duration("leeway", LEEWAY).unwrap_or(DEFAULT_LEEWAY),
        id_claim: id_claim.unwrap_or_else(|| "sub".into()),
        groups_claim,
        tenant_claim,
        acl_claim,
        required_claims: required.into_iter().map(|(name, values)| (name.value, values)).collect(),
    }
}

/// A text with something in it.
pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) }
}

/// The audience of tokens that may be for anybody.
const ANY: &str = "*";

const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(5 * 60);
const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
