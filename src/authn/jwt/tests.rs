use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mgate_policies::static_rules::{Effect, ResourcePattern, Statement, StaticRules, Who};
use mgate_policies::{
    Action, Answer, Client, Decision, Policy, Protocol, Query, Resource, TopicFilter, TopicName,
};
use serde_json::{Value, json};

use super::token::decode;
use super::*;
use crate::authn::tests::shown;
use crate::issuer::{SigningKey, base64url, jwks, unsigned};

#[test]
fn token_of_each_algorithm_is_accepted() {
    for (name, algorithm) in ALGORITHMS {
        let options = JwtOptions { algorithms: vec![*algorithm], ..options() };
        let token = key_for(name).token(&json!({"alg": name, "typ": "JWT"}), &claims());
        assert_eq!(accepted(&judge(options, keys_for(name), &token)), "dev-1", "{name}");
    }
}

#[test]
fn ed25519_goes_by_two_names() {
    let options = JwtOptions { algorithms: vec![Algorithm::EdDsa], ..options() };
    let token = key_for("EdDSA").token(&json!({"alg": "Ed25519"}), &claims());
    let keys = set(&[key_for("EdDSA").jwk(&json!({"alg": "Ed25519"}))]).unwrap();
    assert_eq!(accepted(&judge(options, keys, &token)), "dev-1");
}

#[test]
fn token_that_was_changed_is_rejected() {
    for (name, algorithm) in ALGORITHMS {
        let token = key_for(name).token(&json!({"alg": name}), &claims());
        let [header, payload, signature] = parts(&token);
        let root = json!({"iss": ISSUER, "aud": "mgate", "sub": "root", "exp": NOW + 60});
        let mut other_signature = decode(signature).unwrap();
        *other_signature.last_mut().unwrap() ^= 1;
        let other_header = base64url(json!({"alg": name, "typ": "jwt"}).to_string().as_bytes());
        for changed in [
            format!("{}.{signature}", unsigned(&json!({"alg": name}), &root)),
            format!("{header}.{payload}.{}", base64url(&other_signature)),
            format!("{header}.{payload}.{}", &signature[..signature.len() / 4 * 2]),
            format!("{header}.{payload}."),
            format!("{other_header}.{payload}.{signature}"),
        ] {
            let options = JwtOptions { algorithms: vec![*algorithm], ..options() };
            assert_eq!(judge(options, keys_for(name), &changed), rejected(&Fault::Signature), "{name}");
        }
    }
}

#[test]
fn examples_of_the_standards_are_accepted() {
    let claims =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = KeySet::from_secret(&decode(RFC_7515_SECRET).unwrap(), &[Algorithm::Hs256]).unwrap();
    for (header, signature, algorithm, keys) in [
        ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", RFC_7515_A1, Algorithm::Hs256, secret),
        ("eyJhbGciOiJSUzI1NiJ9", RFC_7515_A2, Algorithm::Rs256, KeySet::from_jwks(RFC_7515_RSA).unwrap()),
        ("eyJhbGciOiJFUzI1NiJ9", RFC_7515_A3, Algorithm::Es256, KeySet::from_jwks(RFC_7515_EC).unwrap()),
    ] {
        let options = JwtOptions {
            issuer: "joe".into(),
            algorithms: vec![algorithm],
            claims: ClaimRules { audience: None, id_claim: "iss".into(), ..options().claims },
            ..options()
        };
        let token = format!("{header}.{claims}.{signature}");
        let now = Duration::from_secs(1_300_819_379);
        assert_eq!(accepted(&judge_at(options, keys, &token, now)), "joe", "{algorithm}");
    }
    let example = Signed {
        algorithm: Algorithm::EdDsa,
        key_id: None,
        message: b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".as_slice().into(),
        signature: decode(RFC_8037_A4).unwrap(),
    };
    assert_eq!(KeySet::from_jwks(RFC_8037_KEY).unwrap().verify(&example), Ok(()));
}

#[test]
fn algorithm_that_is_not_pinned_is_rejected() {
    for (name, _) in ALGORITHMS {
        let token = key_for(name).token(&json!({"alg": name}), &claims());
        for (other, pinned) in ALGORITHMS.iter().filter(|(other, _)| other != name) {
            let options = JwtOptions { algorithms: vec![*pinned], ..options() };
            assert_eq!(judge(options, keys_for(name), &token), rejected(&Fault::Algorithm), "{name} {other}");
        }
    }
}

#[test]
fn token_without_an_algorithm_is_rejected() {
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "NONE"}),
        json!({"alg": ""}),
        json!({"alg": "es256"}),
        json!({"alg": 1}),
        json!({"alg": ["ES256"]}),
        json!({}),
    ] {
        let options = || JwtOptions { algorithms: all_algorithms(), ..options() };
        let message = unsigned(&header, &claims());
        for token in [format!("{message}."), format!("{message}.AAAA")] {
            assert_eq!(judge(options(), keys_for("ES256"), &token), rejected(&Fault::Algorithm), "{header}");
        }
    }
}

#[test]
fn public_key_is_never_a_secret() {
    let pem = rsa().public_pem();
    let jwk = rsa().jwk(&json!({}));
    let modulus = decode(jwk["n"].as_str().unwrap()).unwrap();
    let secrets =
        [pem.as_bytes(), pem.trim().as_bytes(), &modulus, b"", jwk.to_string().as_bytes()].map(Vec::from);
    for secret in secrets {
        for name in ["HS256", "HS384", "HS512"] {
            let forged = SigningKey::secret(&secret).token(&json!({"alg": name}), &claims());
            for keys in [|| KeySet::from_pem(rsa().public_pem().as_bytes()), || set(&[rsa().jwk(&json!({}))])]
            {
                let pinned = JwtOptions { algorithms: vec![Algorithm::Rs256], ..options() };
                assert_eq!(judge(pinned, keys().unwrap(), &forged), rejected(&Fault::Algorithm));
                let careless = JwtOptions { algorithms: all_algorithms(), ..options() };
                assert_eq!(judge(careless, keys().unwrap(), &forged), rejected(&Fault::UnknownKey));
            }
        }
    }
}

#[test]
fn claims_that_are_not_good_are_rejected() {
    for (claim, value, fault) in [
        ("exp", json!(NOW), Fault::Expired),
        ("exp", json!(NOW - 1), Fault::Expired),
        ("exp", json!(0), Fault::Expired),
        ("exp", json!(null), Fault::Date("exp")),
        ("exp", json!((NOW + 60).to_string()), Fault::Date("exp")),
        ("exp", json!(-1), Fault::Date("exp")),
        ("exp", json!(1e300), Fault::Date("exp")),
        ("nbf", json!(NOW + 31), Fault::NotYet("nbf")),
        ("nbf", json!(9e15), Fault::NotYet("nbf")),
        ("nbf", json!("99999999999"), Fault::Date("nbf")),
        ("iat", json!(NOW + 31), Fault::NotYet("iat")),
        ("iat", json!([NOW]), Fault::Date("iat")),
        ("aud", json!("other"), Fault::Audience),
        ("aud", json!(["other", "MGATE"]), Fault::Audience),
        ("aud", json!([]), Fault::Audience),
        ("aud", json!({"mgate": "mgate"}), Fault::Audience),
        ("aud", json!(null), Fault::Audience),
        ("sub", json!(null), Fault::Claim("id_claim")),
        ("sub", json!(true), Fault::Claim("id_claim")),
        ("sub", json!(["dev-1"]), Fault::Claim("id_claim")),
        ("sub", json!(1.5), Fault::Claim("id_claim")),
        ("sub", json!(""), Fault::IdentityCharset("id_claim")),
        ("sub", json!("a/b"), Fault::IdentityCharset("id_claim")),
        ("sub", json!("+"), Fault::IdentityCharset("id_claim")),
        ("sub", json!("#"), Fault::IdentityCharset("id_claim")),
        ("sub", json!("a\0"), Fault::IdentityCharset("id_claim")),
    ] {
        assert_eq!(judge_claim(claim, &value), rejected(&fault), "{claim} = {value}");
    }
    for (claim, fault) in
        [("exp", Fault::NoExpiry), ("aud", Fault::Audience), ("sub", Fault::Claim("id_claim"))]
    {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        assert_eq!(judge_claims(options(), &claims), rejected(&fault), "without {claim}");
    }
}

#[test]
fn claims_at_their_limits_are_good() {
    for (claim, value) in [
        ("exp", json!(NOW + 1)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", json!(NOW + 30)),
        ("iat", json!(NOW + 30)),
        ("iat", json!(0)),
        ("aud", json!(["other", "mgate"])),
        ("aud", json!("spare")),
        ("sub", json!(17)),
    ] {
        assert!(matches!(judge_claim(claim, &value), Verdict::Accepted(_)), "{claim} = {value}");
    }
}

#[test]
fn any_audience_must_be_said() {
    let mut claims = claims();
    claims["aud"] = json!("other");
    let none = with_rules(|rules| rules.audience = Some(Vec::new()));
    assert_eq!(judge_claims(none, &claims), rejected(&Fault::Audience));
    let any = || with_rules(|rules| rules.audience = None);
    assert_eq!(accepted(&judge_claims(any(), &claims)), "dev-1");
    claims.as_object_mut().unwrap().remove("aud");
    assert_eq!(accepted(&judge_claims(any(), &claims)), "dev-1");
}

#[test]
fn what_is_no_token_of_the_issuer_is_left_to_others() {
    let jwt = jwt(options(), keys_for("ES256"));
    let of_another = |claims: Value| p256().token(&json!({"alg": "ES256"}), &claims);
    let tokens = [
        of_another(json!({"iss": "https://issuer.example/", "sub": "dev-1", "exp": NOW + 60})),
        of_another(json!({"iss": [ISSUER], "sub": "dev-1", "exp": NOW + 60})),
        of_another(json!({"sub": "dev-1", "exp": NOW + 60})),
        of_another(json!([ISSUER])),
        format!("{}.{}", base64url(b"{\"alg\":\"ES256\"}"), base64url(b"{}")),
        "no.token.atall".into(),
        "secret".into(),
        String::new(),
    ];
    for token in &tokens {
        assert_eq!(ask(&jwt, &with_password(token.as_bytes())), Verdict::Abstain, "{token}");
    }
    assert_eq!(ask(&jwt, &shown()), Verdict::Abstain);
    assert_eq!(ask(&jwt, &with_password(b"\xff.\xff.\xff")), Verdict::Abstain);
    assert_eq!(ask(&jwt, &Credentials { username: Some(&token()), ..shown() }), Verdict::Abstain);
}

#[test]
fn token_may_stand_in_several_places() {
    let places = vec![TokenPlace::Username, TokenPlace::Password];
    let jwt = jwt(JwtOptions { token_in: places, ..options() }, keys_for("ES256"));
    let (good, bad) = (token(), format!("{}.AAAA", unsigned(&json!({"alg": "ES256"}), &claims())));
    for (username, password, is_good) in [
        (Some("dev-1"), Some(&good), true),
        (Some(&*good), None, true),
        (None, Some(&good), true),
        (Some(&*good), Some(&bad), true),
        (Some(&*bad), Some(&good), false),
    ] {
        let password = password.map(String::as_bytes);
        let verdict = ask(&jwt, &Credentials { username, password, ..shown() });
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), is_good, "{username:?}");
    }
}

#[test]
fn key_id_picks_the_key() {
    let (old, new) = (p256(), SigningKey::p256());
    let named = |key: &SigningKey, id: Value| key.token(&json!({"alg": "ES256", "kid": id}), &claims());
    let keys = || set(&[old.jwk(&json!({"kid": "old"})), new.jwk(&json!({"kid": "new"}))]).unwrap();
    for (token, expected) in [
        (named(old, json!("old")), Ok(())),
        (named(&new, json!("new")), Ok(())),
        (named(old, json!("new")), Err(Fault::Signature)),
        (named(old, json!("OLD")), Err(Fault::UnknownKey)),
        (named(old, json!("")), Err(Fault::UnknownKey)),
        (named(old, json!(7)), Err(Fault::KeyId)),
        (named(old, json!(null)), Err(Fault::KeyId)),
        (token(), Err(Fault::SeveralKeys)),
    ] {
        let verdict = judge(options(), keys(), &token);
        match expected {
            Ok(()) => assert_eq!(accepted(&verdict), "dev-1"),
            Err(fault) => assert_eq!(verdict, rejected(&fault), "{token}"),
        }
    }
}

#[test]
fn key_without_a_name_is_meant_where_it_stands_alone() {
    let token = p256().token(&json!({"alg": "ES256", "kid": "any"}), &claims());
    let alone = || set(&[p256().jwk(&json!({}))]).unwrap();
    assert_eq!(accepted(&judge(options(), alone(), &token)), "dev-1");
    let two = set(&[p256().jwk(&json!({})), rsa().jwk(&json!({"kid": "b"}))]).unwrap();
    assert_eq!(judge(options(), two, &token), rejected(&Fault::UnknownKey));
    let two_kinds = set(&[p256().jwk(&json!({"kid": "a"})), rsa().jwk(&json!({"kid": "b"}))]).unwrap();
    assert_eq!(accepted(&judge(options(), two_kinds, &self::token())), "dev-1");
}

#[test]
fn what_a_key_is_for_binds() {
    for more in [
        json!({"use": "enc"}),
        json!({"use": 1}),
        json!({"key_ops": ["sign"]}),
        json!({"key_ops": []}),
        json!({"key_ops": "verify"}),
        json!({"alg": "ECDH-ES"}),
        json!({"alg": 1}),
        json!({"kid": 1}),
        json!({"crv": "P-384"}),
        json!({"crv": "secp256k1"}),
        json!({"x": "AAAA"}),
        json!({"kty": "oct", "k": "AAAA"}),
        json!({"kty": null}),
    ] {
        assert_eq!(set(&[p256().jwk(&more)]).err(), Some(KeyError::NoUsableKey), "{more}");
        let beside = set(&[p256().jwk(&more), rsa().jwk(&json!({}))]).unwrap();
        assert_eq!(judge(options(), beside, &token()), rejected(&Fault::UnknownKey), "{more}");
    }
    for more in [json!({"use": "sig", "key_ops": ["verify"], "alg": "ES256"}), json!({"x5c": ["?"]})] {
        let keys = set(&[p256().jwk(&more)]).unwrap();
        assert_eq!(accepted(&judge(options(), keys, &token())), "dev-1", "{more}");
    }
    let for_pss = set(&[rsa().jwk(&json!({"alg": "PS256"}))]).unwrap();
    let pinned = JwtOptions { algorithms: vec![Algorithm::Ps256, Algorithm::Rs256], ..options() };
    let token = rsa().token(&json!({"alg": "RS256"}), &claims());
    assert_eq!(judge(pinned, for_pss, &token), rejected(&Fault::UnknownKey));
}

#[test]
fn what_is_no_set_of_keys_is_refused() {
    for text in ["", "{", "[]", "{}", "null", r#"{"keys": {}}"#, "<html>"] {
        assert_eq!(KeySet::from_jwks(text.as_bytes()).err(), Some(KeyError::NoKeySet), "{text}");
    }
    for text in [r#"{"keys": []}"#, r#"{"keys": [1, null, {}]}"#] {
        assert_eq!(KeySet::from_jwks(text.as_bytes()).err(), Some(KeyError::NoUsableKey), "{text}");
    }
    let secret = SigningKey::secret(&[7; 64]).jwk(&json!({"kid": "a"}));
    assert_eq!(set(&[secret]).err(), Some(KeyError::NoUsableKey));
    let weak = json!({"kty": "RSA", "n": base64url(&[0xff; 128]), "e": "AQAB"});
    assert_eq!(set(&[weak]).err(), Some(KeyError::NoUsableKey));
}

#[test]
fn what_is_no_public_key_is_refused() {
    let pem = p256().public_pem();
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let mislabelled = pem.replace("PUBLIC KEY", "CERTIFICATE");
    for text in ["", "none", private, broken, &mislabelled, &format!("{pem}{pem}"), &pem[..60]] {
        assert_eq!(KeySet::from_pem(text.as_bytes()).err(), Some(KeyError::NoPublicKey), "{text}");
    }
    let secret = |bytes: usize, algorithm| KeySet::from_secret(&vec![7; bytes], &[algorithm]).err();
    assert_eq!(secret(31, Algorithm::Hs256), Some(KeyError::ShortSecret(32)));
    assert_eq!(secret(63, Algorithm::Hs512), Some(KeyError::ShortSecret(64)));
    assert_eq!(secret(48, Algorithm::Hs384), None);
}

#[test]
fn critical_extensions_are_rejected() {
    for crit in [json!(["b64"]), json!([]), json!(null)] {
        let token = p256().token(&json!({"alg": "ES256", "crit": crit, "b64": false}), &claims());
        assert_eq!(judge(options(), keys_for("ES256"), &token), rejected(&Fault::Critical), "{crit}");
    }
}

#[test]
fn token_over_16_kib_is_rejected_however_good() {
    for (texts, is_good) in [(12, true), (13, false)] {
        let mut claims = claims();
        claims["list"] = json!(vec!["x".repeat(1000); texts]);
        let token = p256().token(&json!({"alg": "ES256"}), &claims);
        assert_eq!(token.len() <= 16 * 1024, is_good, "{}", token.len());
        match is_good {
            true => assert_eq!(accepted(&judge(options(), keys_for("ES256"), &token)), "dev-1"),
            false => assert_eq!(judge(options(), keys_for("ES256"), &token), rejected(&Fault::TooLong)),
        }
    }
}

#[test]
fn claims_become_attributes() {
    let mut claims = claims();
    claims["realm"] = json!({"roles": ["a", 7, true, null, {"x": 1}], "deep": {"er": "b"}, "none": null});
    claims["ratio"] = json!(1.5);
    let Verdict::Accepted(principal) = judge_claims(options(), &claims) else { panic!("it is good") };
    let values = |name| principal.attributes.values(name).collect::<Vec<_>>();
    assert_eq!(values("claims.realm.roles"), ["a", "7", "true"]);
    assert_eq!(values("claims.realm.deep.er"), ["b"]);
    assert_eq!(values("claims.ratio"), ["1.5"]);
    assert_eq!(values("claims.sub"), ["dev-1"]);
    assert_eq!(values("claims.exp"), [(NOW + 60).to_string()]);
    assert_eq!(principal.attributes.iter().count(), 9);
    assert_eq!(principal.expires, Some(Duration::from_secs(NOW + 60)));
    assert_eq!((&*principal.tenant, principal.groups.len()), ("", 0));
}

#[test]
fn access_list_of_a_claim_is_kept_rule_by_rule() {
    let options = || with_rules(|rules| rules.acl_claim = Some("mqtt.acl".into()));
    let mut claims = claims();
    claims["mqtt"] = json!({"acl": [
        {"permission": "allow", "action": "publish", "topic": "a/${clientid}", "qos": 0},
        {"permission": "deny", "action": "all", "topic": "#"},
    ]});
    let Verdict::Accepted(principal) = judge_claims(options(), &claims) else { panic!("it is good") };
    let rules = ["allow publish 0 any like a/${clientid}", "deny all 012 any like #"];
    assert_eq!(principal.attributes.values("acl").collect::<Vec<_>>(), rules);
    claims["mqtt"]["acl"][1]["permission"] = json!("forbid");
    assert_eq!(judge_claims(options(), &claims), rejected(&Fault::Claim("acl_claim")));
    claims["mqtt"]["acl"] = json!({"pub": vec!["a"; 300]});
    assert_eq!(judge_claims(options(), &claims), rejected(&Fault::ClaimsBound));
    claims["mqtt"] = json!({});
    let Verdict::Accepted(principal) = judge_claims(options(), &claims) else { panic!("it is good") };
    assert_eq!(principal.attributes.values("acl").count(), 0);
}

#[test]
fn identity_groups_and_tenant_come_from_their_claims() {
    let options = || {
        with_rules(|rules| {
            rules.id_claim = "device.id".into();
            rules.groups_claim = Some("https://example.com/claims.groups".into());
            rules.tenant_claim = Some("org".into());
        })
    };
    let mut claims = claims();
    claims["device"] = json!({"id": "dev-2"});
    claims["https://example.com/claims"] = json!({"groups": ["sensors", "/admins"]});
    claims["org"] = json!(42);
    let Verdict::Accepted(principal) = judge_claims(options(), &claims) else { panic!("it is good") };
    assert_eq!((&*principal.id, &*principal.tenant), ("dev-2", "42"));
    assert_eq!(principal.groups, ["sensors".into(), "/admins".into()]);
    for (claim, value, expected) in [
        ("https://example.com/claims", json!({"groups": "one"}), Ok(1)),
        ("https://example.com/claims", json!({}), Ok(0)),
        ("https://example.com/claims", json!({"groups": {"a": 1}}), Err(Fault::Claim("groups_claim"))),
        ("https://example.com/claims", json!({"groups": ["a", 1]}), Err(Fault::Claim("groups_claim"))),
        ("org", json!(null), Err(Fault::Claim("tenant_claim"))),
        ("org", json!("a/b"), Err(Fault::IdentityCharset("tenant_claim"))),
        ("device", json!("id"), Err(Fault::Claim("id_claim"))),
    ] {
        let mut claims = claims.clone();
        claims[claim] = value;
        match (judge_claims(options(), &claims), expected) {
            (Verdict::Accepted(principal), Ok(groups)) => assert_eq!(principal.groups.len(), groups),
            (verdict, Err(fault)) => assert_eq!(verdict, rejected(&fault), "{claim}"),
            (verdict, Ok(_)) => panic!("{claim}: {verdict:?}"),
        }
    }
}

#[test]
fn dots_lead_into_objects_unless_the_name_has_them() {
    let mut claims = claims();
    for (name, value, id) in [
        ("a", json!({"b": {"c": "deep"}}), "deep"),
        ("a.b", json!({"c": "dotted"}), "dotted"),
        ("a.b", json!({"d": "other"}), "deep"),
        ("a.b.c", json!("whole"), "whole"),
    ] {
        claims[name] = value;
        let options = with_rules(|rules| rules.id_claim = "a.b.c".into());
        assert_eq!(accepted(&judge_claims(options, &claims)), id);
    }
}

#[test]
fn required_claims_are_required() {
    let required = vec![("app.kind".into(), vec!["device".into(), "7".into()])];
    let options = || with_rules(|rules| rules.required_claims = required.clone());
    for (value, is_good) in [
        (json!({"kind": "device"}), true),
        (json!({"kind": ["other", "device"]}), true),
        (json!({"kind": 7}), true),
        (json!({"kind": "devices"}), false),
        (json!({"kind": ["other"]}), false),
        (json!({"kind": {"device": "device"}}), false),
        (json!({}), false),
        (json!("device"), false),
    ] {
        let mut claims = claims();
        claims["app"] = value;
        let verdict = judge_claims(options(), &claims);
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), is_good, "{claims}: {verdict:?}");
        assert!(is_good || verdict == rejected(&Fault::RequiredClaim("app.kind".into())));
    }
}

#[test]
fn more_claims_than_are_kept_reject_the_token() {
    for (value, is_good) in [
        (json!(vec![1; 252]), true),
        (json!(vec![1; 253]), false),
        (json!("x".repeat(1024)), true),
        (json!("x".repeat(1025)), false),
        (json!({"x".repeat(250): 1}), false),
        (json!({"x".repeat(200): 1}), true),
    ] {
        let verdict = judge_claim("more", &value);
        assert_eq!(matches!(verdict, Verdict::Accepted(_)), is_good, "{value:.60}");
        assert!(is_good || verdict == rejected(&Fault::ClaimsBound));
    }
}

#[test]
fn claim_that_looks_like_a_pattern_widens_no_right() {
    let own = statement(Effect::Allow, "own", "topic:own/${claims.channel}/data");
    let everybody = statement(Effect::Allow, "everybody", "topic:news/#");
    let but = statement(Effect::Deny, "but", "topic:news/${claims.channel}");
    let allowing = StaticRules::compile("acl", vec![own]).unwrap();
    let denying = StaticRules::compile("acl", vec![everybody, but]).unwrap();
    for (channel, may_own, may_news) in [
        (json!("42"), true, true),
        (json!(["7", "42"]), true, true),
        (json!("43"), false, true),
        (json!("+"), false, false),
        (json!("#"), false, false),
        (json!("42/data"), false, false),
        (json!("a\0"), false, false),
    ] {
        let Verdict::Accepted(principal) = judge_claim("channel", &channel) else { panic!("it is good") };
        let client = client(principal);
        assert_eq!(may_publish(&allowing, &client, "own/42/data"), may_own, "{channel}");
        assert!(!may_publish(&allowing, &client, "own/other/data"), "{channel}");
        assert!(!may_subscribe(&allowing, &client, "own/+/data"), "{channel}");
        assert!(!may_subscribe(&allowing, &client, "own/#"), "{channel}");
        assert_eq!(may_publish(&denying, &client, "news/today"), may_news, "{channel}");
    }
}

#[test]
fn operator_is_told_why_and_never_what_was_in_the_token() {
    let mut claims = claims();
    claims["sub"] = json!("hunter2/");
    let token = p256().token(&json!({"alg": "ES256", "kid": "hunter2"}), &claims);
    let bad_key = p256().token(&json!({"alg": "ES256", "kid": "hunter2"}), &self::claims());
    let two = || set(&[p256().jwk(&json!({"kid": "a"})), rsa().jwk(&json!({"kid": "b"}))]).unwrap();
    for token in [token, bad_key] {
        let Verdict::Rejected(reason) = judge(options(), two(), &token) else { panic!("it is bad") };
        assert_eq!(reason.cause, mgate_policies::Cause::BadCredentials);
        let detail = reason.detail.unwrap();
        assert!(
            !detail.contains("hunter2") && !token.split('.').any(|part| detail.contains(part)),
            "{detail}"
        );
    }
}

fn judge_claim(claim: &str, value: &Value) -> Verdict {
    let mut claims = claims();
    claims[claim] = value.clone();
    judge_claims(options(), &claims)
}

fn judge_claims(options: JwtOptions, claims: &Value) -> Verdict {
    judge(options, keys_for("ES256"), &p256().token(&json!({"alg": "ES256"}), claims))
}

fn judge(options: JwtOptions, keys: KeySet, token: &str) -> Verdict {
    judge_at(options, keys, token, Duration::from_secs(NOW))
}

fn judge_at(options: JwtOptions, keys: KeySet, token: &str, unix: Duration) -> Verdict {
    let credentials = with_password(token.as_bytes());
    match jwt(options, keys).authenticate(&credentials, Now { unix, ..Now::read() }) {
        Authentication::Ready(verdict) => verdict,
        Authentication::Pending(_) => panic!("keys that are known need no time"),
    }
}

fn ask(jwt: &Jwt, credentials: &Credentials<'_>) -> Verdict {
    match jwt.authenticate(credentials, Now { unix: Duration::from_secs(NOW), ..Now::read() }) {
        Authentication::Ready(verdict) => verdict,
        Authentication::Pending(_) => panic!("keys that are known need no time"),
    }
}

fn accepted(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Accepted(principal) => &principal.id,
        _ => panic!("{verdict:?}"),
    }
}

fn with_password(password: &[u8]) -> Credentials<'_> {
    Credentials { username: Some("dev-1"), password: Some(password), ..shown() }
}

fn jwt(options: JwtOptions, keys: KeySet) -> Jwt {
    Jwt::new("tokens", options, IssuerKeys::Fixed(keys))
}

fn options() -> JwtOptions {
    JwtOptions {
        issuer: ISSUER.into(),
        algorithms: vec![Algorithm::Es256],
        token_in: vec![TokenPlace::Password],
        claims: ClaimRules {
            audience: Some(vec!["mgate".into(), "spare".into()]),
            needs_expiry: true,
            leeway: Duration::from_secs(30),
            id_claim: "sub".into(),
            groups_claim: None,
            tenant_claim: None,
            acl_claim: None,
            required_claims: Vec::new(),
        },
    }
}

fn with_rules(change: impl FnOnce(&mut ClaimRules)) -> JwtOptions {
    let mut options = options();
    change(&mut options.claims);
    options
}

fn rejected(fault: &Fault) -> Verdict {
    fault.verdict()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "mgate", "sub": "dev-1", "exp": NOW + 60})
}

fn token() -> String {
    p256().token(&json!({"alg": "ES256"}), &claims())
}

fn set(keys: &[Value]) -> Result<KeySet, KeyError> {
    KeySet::from_jwks(jwks(keys).as_bytes())
}

fn all_algorithms() -> Vec<Algorithm> {
    ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).collect()
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// Keys that verify what [`key_for`] signs: half of them by PEM, the others as a set.
fn keys_for(algorithm: &str) -> KeySet {
    let key = key_for(algorithm);
    match algorithm {
        "HS256" | "HS384" | "HS512" => KeySet::from_secret(SECRET, &[Algorithm::Hs512]).unwrap(),
        "RS256" | "PS384" | "ES384" | "EdDSA" => KeySet::from_pem(key.public_pem().as_bytes()).unwrap(),
        _ => set(&[key.jwk(&json!({"kid": "a"}))]).unwrap(),
    }
}

fn key_for(algorithm: &str) -> &'static SigningKey {
    static KEYS: OnceLock<[SigningKey; 3]> = OnceLock::new();
    let [ed25519, p384, secret] =
        KEYS.get_or_init(|| [SigningKey::ed25519(), SigningKey::p384(), SigningKey::secret(SECRET)]);
    match algorithm {
        "EdDSA" => ed25519,
        "ES256" => p256(),
        "ES384" => p384,
        "HS256" | "HS384" | "HS512" => secret,
        _ => rsa(),
    }
}

fn p256() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(SigningKey::p256)
}

fn rsa() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::rsa(2048))
}

fn statement(effect: Effect, sid: &str, resource: &str) -> Statement {
    Statement {
        sid: sid.into(),
        effect,
        principals: vec![Who::Anyone],
        actions: vec![Action::Publish, Action::Subscribe],
        resources: vec![ResourcePattern::parse(resource).unwrap()],
        conditions: Vec::new(),
    }
}

fn client(principal: Principal) -> Client {
    Client {
        principal,
        client_id: "dev-1".into(),
        username: None,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        route: Arc::from("devices"),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

fn may_publish(policy: &StaticRules, client: &Client, topic: &str) -> bool {
    may(policy, client, Action::Publish, Resource::Topic(TopicName::parse(topic).unwrap()))
}

fn may_subscribe(policy: &StaticRules, client: &Client, filter: &str) -> bool {
    may(policy, client, Action::Subscribe, Resource::Filter(TopicFilter::parse(filter).unwrap()))
}

fn may(policy: &StaticRules, client: &Client, action: Action, resource: Resource<'_>) -> bool {
    let query = Query { client, action, resource, payload: b"", qos: 0, retain: false };
    matches!(policy.evaluate(&query, Now::read()), Answer::Ready(Decision::Allow(_)))
}

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const SECRET: &[u8] = &[0x5a; 64];

const RFC_7515_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC_7515_A1: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RFC_7515_RSA: &[u8] = br#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
const RFC_7515_A2: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RFC_7515_EC: &[u8] = br#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const RFC_7515_A3: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const RFC_8037_KEY: &[u8] =
    br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const RFC_8037_A4: &str =
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
