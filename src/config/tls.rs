//! `tls` and `upstream_tls`: certificates, keys and whom to trust.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate_proxy::transport::{
    ALPN_HTTP, ALPN_HTTP2, ALPN_MQTT, Authorities, Certificate, CipherSuites, ClientAuth, ClientTls, Demand,
    MinVersion, RevocationLists, ServerTls, ServerTlsOptions, TlsError,
};

use super::dates;
use super::files::Files;
use super::section::Section;
use super::values::Scheme;

/// How a listener speaks TLS, if nothing is wrong with it.
pub(crate) fn server(mut section: Section<'_>, scheme: Scheme, files: &Files<'_>) -> Option<ServerTls> {
    let certificates = certificates(&mut section, files);
    let client_auth = client_auth(&mut section, files);
    let min_version = section.one_of("min_version", MIN_VERSIONS).unwrap_or_default();
    let cipher_suites = cipher_suites(&mut section);
    let alpn: &[&str] = match scheme {
        _ if scheme.is_http() => &[ALPN_HTTP2, ALPN_HTTP],
        _ if scheme.is_websocket() => &[ALPN_HTTP],
        _ => &[ALPN_MQTT],
    };
    section.finish();
    let options = ServerTlsOptions {
        certificates: certificates?,
        client_auth: client_auth?,
        min_version,
        cipher_suites: cipher_suites?,
        alpn: alpn.iter().map(ToString::to_string).collect(),
    };
    section.check(section.place(), ServerTls::new(options))
}

/// Whether clients are asked for certificates.
pub(crate) fn asks_for_certificates(section: &mut Section<'_>) -> bool {
    section.has("client_ca")
}

/// How an upstream is spoken to in TLS, if nothing is wrong with it.
pub(crate) fn client(section: &mut Section<'_>, files: &Files<'_>) -> Option<ClientTls> {
    let authorities = match section.text("ca") {
        Some(name) => files.load(&name, Authorities::from_pem),
        None if section.has("ca") => None,
        None => section.check(section.place(), Authorities::of_system()),
    };
    let has_certificate = section.has("cert") || section.has("key");
    let certificate = has_certificate.then(|| pair(section, files));
    let authorities = authorities?;
    let tls = match certificate {
        Some(certificate) => ClientTls::new(authorities, Some(&certificate?)),
        None => ClientTls::new(authorities, None),
    };
    section.check(section.place(), tls)
}

/// What a listener's TLS is made of, as its files have it, for those who read them themselves.
#[cfg_attr(not(feature = "dtls"), expect(dead_code, reason = "only DTLS reads them"))]
pub(crate) struct PemFiles {
    /// The chain of the certificate.
    pub(crate) chain: Vec<u8>,
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// Whether and how clients show certificates.
    pub(crate) clients: Option<PemClients>,
}

/// How clients show certificates.
#[cfg_attr(not(feature = "dtls"), expect(dead_code, reason = "only DTLS reads them"))]
pub(crate) struct PemClients {
    /// Where their certificates must come from.
    pub(crate) authorities: Vec<u8>,
    /// Whether they must show one.
    pub(crate) demand: Demand,
    /// Certificates that are no longer valid.
    pub(crate) lists: Vec<Vec<u8>>,
}

/// The files of a listener that has one certificate, if nothing is wrong with them.
pub(crate) fn pem_files(section: &mut Section<'_>, files: &Files<'_>) -> Option<PemFiles> {
    let (certificate, client_auth) = (pair(section, files), client_auth(section, files));
    let mut bytes = |key| section.text(key).and_then(|name| files.bytes(&name));
    let (chain, key, authorities) = (bytes("cert"), bytes("key"), bytes("client_ca"));
    let lists = section.texts("client_crl").unwrap_or_default();
    let lists = lists.iter().map(|name| files.bytes(name).map(as_pem)).collect::<Option<_>>();
    certificate?;
    let clients = match client_auth? {
        Some(ClientAuth { demand, .. }) => {
            Some(PemClients { authorities: authorities?, demand, lists: lists? })
        }
        None => None,
    };
    Some(PemFiles { chain: chain?, key: key?, clients })
}

fn certificates(section: &mut Section<'_>, files: &Files<'_>) -> Option<Vec<Certificate>> {
    let has_pair = section.has("cert") || section.has("key");
    match (has_pair, section.has("certificates")) {
        (true, false) => Some(vec![pair(section, files)?]),
        (true, true) => {
            section.problem("certificates", "cannot stand beside `cert` and `key`");
            None
        }
        (false, true) => {
            let mut sections = section.list("certificates", "cert");
            // All are read before one that is bad ends it.
            let all: Vec<_> = sections.iter_mut().map(|section| only_pair(section, files)).collect();
            all.into_iter().collect()
        }
        (false, false) => {
            section.problem("cert", "is missing");
            None
        }
    }
}

fn only_pair(section: &mut Section<'_>, files: &Files<'_>) -> Option<Certificate> {
    let certificate = pair(section, files);
    section.finish();
    certificate
}

/// The certificate in `cert` with the key in `key`.
pub(crate) fn pair(section: &mut Section<'_>, files: &Files<'_>) -> Option<Certificate> {
    section.require(&["cert", "key"]);
    let (cert_name, key_name) = (section.text("cert"), section.text("key"));
    let chain = cert_name.as_ref().and_then(|name| files.bytes(name));
    let key = key_name.as_ref().and_then(|name| files.bytes(name));
    let (cert_name, key_name, chain, key) = (cert_name?, key_name?, chain?, key?);
    match Certificate::from_pem(&chain, &key) {
        Ok(certificate) => {
            dates::warn_of_certificates(&cert_name, &chain, files);
            Some(certificate)
        }
        Err(TlsError::NoKey) if contains(&key, b"ENCRYPTED") => {
            files.problem(&key_name, "is encrypted: keys with a passphrase are not supported");
            None
        }
        Err(error @ (TlsError::BadKey(_) | TlsError::KeyMismatch | TlsError::NoKey)) => {
            files.problem(&key_name, error);
            None
        }
        Err(error) => {
            files.problem(&cert_name, error);
            None
        }
    }
}

/// What clients show; inside, `None` where they are asked for nothing.
fn client_auth(section: &mut Section<'_>, files: &Files<'_>) -> Option<Option<ClientAuth>> {
    let (ca, has_crl) = (section.text("client_ca"), section.has("client_crl"));
    let demand = section.one_of("client_auth", DEMANDS);
    let Some(ca) = ca else {
        match demand {
            Some(Some(_)) => section.problem("client_auth", "needs `client_ca`: whose certificates are good"),
            _ if has_crl => section.problem("client_crl", "needs `client_ca` beside it"),
            _ => return (!section.has("client_ca")).then_some(None),
        }
        return None;
    };
    let authorities = files.load(&ca, |pem| {
        dates::warn_of_certificates(&ca, pem, files);
        Authorities::from_pem(pem)
    });
    let lists = section.texts("client_crl").unwrap_or_default();
    let list = |name| {
        files.load(name, |bytes| {
            dates::warn_of_lists(name, bytes, files);
            RevocationLists::from_pem_or_der(bytes)
        })
    };
    let lists: Vec<_> = lists.iter().map(list).collect();
    let revoked = lists.into_iter().try_fold(RevocationLists::default(), |all, list| Some(all.and(list?)));
    match demand.unwrap_or(Some(Demand::Required)) {
        Some(demand) => Some(Some(ClientAuth { authorities: authorities?, demand, revoked: revoked? })),
        None => {
            section.problem("client_auth", "is \"none\", but `client_ca` says whose certificates are good");
            None
        }
    }
}

fn cipher_suites(section: &mut Section<'_>) -> Option<CipherSuites> {
    match section.texts("ciphers") {
        Some(names) => {
            let names: Vec<String> = names.into_iter().map(|name| name.value).collect();
            section.check(&section.place_at("ciphers"), CipherSuites::from_names(&names))
        }
        None => Some(CipherSuites::default()),
    }
}

/// A revocation list, which is there in DER or in PEM.
fn as_pem(list: Vec<u8>) -> Vec<u8> {
    if list.starts_with(b"-") || contains(&list, b"-----BEGIN") {
        return list;
    }
    let text = STANDARD.encode(list);
    let lines: Vec<_> = text.as_bytes().chunks(64).collect();
    [b"-----BEGIN X509 CRL-----\n", &lines.join(&b'\n')[..], b"\n-----END X509 CRL-----\n"].concat()
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// The keys of `tls`.
pub(crate) const SERVER_KEYS: &[&str] =
    &["cert", "key", "certificates", "client_ca", "client_auth", "client_crl", "min_version", "ciphers"];
/// The keys of `upstream_tls`.
pub(crate) const CLIENT_KEYS: &[&str] = &["ca", "cert", "key", "server_name"];

const MIN_VERSIONS: &[(&str, MinVersion)] = &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];

const DEMANDS: &[(&str, Option<Demand>)] =
    &[("none", None), ("optional", Some(Demand::Optional)), ("required", Some(Demand::Required))];
