//! How OpenSSL is set up.

use ::openssl::error::ErrorStack;
use ::openssl::pkey::{PKey, Private};
use ::openssl::ssl::{
    ExtensionContext, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode,
    SslVerifyMode, SslVersion,
};
use ::openssl::x509::X509;

use super::handshake::{connection_id_of, write_key};
use super::settings::{ClientAuth, EngineSettings, Fault, Psk, Resumption};
use super::trust::{Trust, is_acceptable};
use crate::suite::Credential;

/// What contexts are made of, checked.
pub(super) struct Material {
    certificate: Option<Certified>,
    trust: Trust,
    client_auth: ClientAuth,
    psk: Psk,
    resumption: Resumption,
}

struct Certified {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
}

impl Material {
    pub(super) fn new(settings: &EngineSettings) -> Result<Self, Fault> {
        let certificate = settings.certificate.as_ref().map(certified).transpose()?;
        if certificate.is_none() && settings.psk == Psk::Off {
            return Err(Fault::NoCredential);
        }
        let trust = Trust::new(&settings.authorities, &settings.revocation_lists)?;
        if settings.client_auth != ClientAuth::Off && trust.is_empty() {
            return Err(Fault::NoAuthority);
        }
        let EngineSettings { client_auth, psk, resumption, .. } = *settings;
        Ok(Self { certificate, trust, client_auth, psk, resumption })
    }

    pub(super) fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// A new context, with new keys for tickets.
    pub(super) fn context(&self, resumption: Resumption) -> Result<SslContext, ErrorStack> {
        let mut builder = SslContextBuilder::new(SslMethod::dtls_server())?;
        set_protocol(&mut builder)?;
        builder.set_cipher_list(&self.ciphers())?;
        set_resumption(&mut builder, resumption)?;
        if self.client_auth != ClientAuth::Off {
            // one holds the client's certificate: the hello that brings it back would come in fragments
            builder.set_options(SslOptions::NO_TICKET);
        }
        if let Some(certificate) = &self.certificate {
            builder.set_certificate(&certificate.leaf)?;
            builder.set_private_key(&certificate.key)?;
            for intermediate in &certificate.intermediates {
                builder.add_extra_chain_cert(intermediate.clone())?;
            }
        }
        self.ask_for_certificates(&mut builder)?;
        if self.psk == Psk::On {
            builder.set_psk_server_callback(|ssl, _, room| Ok(write_key(ssl, room)));
        }
        Ok(builder.build())
    }

    /// All that have an AEAD; which of them, the client prefers.
    fn ciphers(&self) -> String {
        let certificate = self.certificate.as_ref().map(|_| Credential::Certificate);
        let key = (self.psk == Psk::On).then_some(Credential::Psk);
        certificate.into_iter().chain(key).flat_map(Credential::names).collect::<Vec<_>>().join(":")
    }

    fn ask_for_certificates(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        let mode = match self.client_auth {
            ClientAuth::Off => return Ok(()),
            ClientAuth::Optional => SslVerifyMode::PEER,
            ClientAuth::Required => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        };
        builder.set_verify_cert_store(self.trust.store()?)?;
        builder.set_verify_depth(MAX_CHAIN);
        let lists = self.trust.lists();
        builder.set_verify_callback(mode, move |is_good, context| is_good && is_acceptable(context, &lists));
        Ok(())
    }
}

fn certified(certificate: &super::Certificate) -> Result<Certified, Fault> {
    let bad = |errors: ErrorStack| Fault::BadCertificate(errors.to_string());
    let mut chain = X509::stack_from_pem(&certificate.chain).map_err(bad)?.into_iter();
    let leaf = chain.next().ok_or_else(|| Fault::BadCertificate("there is none".to_owned()))?;
    let key = PKey::private_key_from_pem_callback(&certificate.key, |_| Ok(0))
        .map_err(|errors| Fault::BadKey(errors.to_string()))?;
    if !leaf.public_key().map_err(bad)?.public_eq(&key) {
        return Err(Fault::KeyMismatch);
    }
    Ok(Certified { leaf, intermediates: chain.collect(), key })
}

fn set_protocol(builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    builder.set_options(
        SslOptions::COOKIE_EXCHANGE
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_QUERY_MTU
            | SslOptions::NO_RENEGOTIATION,
    );
    // the endpoint knows that they are good, and OpenSSL's own never leave
    builder.set_cookie_generate_cb(|_, cookie| {
        cookie[..COOKIE.len()].copy_from_slice(COOKIE);
        Ok(COOKIE.len())
    });
    builder.set_cookie_verify_cb(|_, _| true);
    // AES-CCM-8, which RFC 7252 §9.1.3 asks for, is of level 0; what else that would let in is kept out below
    builder.set_security_level(0);
    builder.set_sigalgs_list(SIGNATURES)?;
    builder.set_groups_list(GROUPS)?;
    builder.add_custom_ext(
        CONNECTION_ID,
        ExtensionContext::CLIENT_HELLO | ExtensionContext::TLS1_2_SERVER_HELLO,
        |ssl, _, _| Ok(connection_id_of(ssl)),
        // the endpoint has read it
        |_, _, _, _| Ok(()),
    )
}

fn set_resumption(builder: &mut SslContextBuilder, resumption: Resumption) -> Result<(), ErrorStack> {
    match resumption {
        Resumption::On { sessions: 1.. } => {
            builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
        }
        Resumption::On { sessions: 0 } => {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        }
        Resumption::Off => {
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_options(SslOptions::NO_TICKET);
        }
    }
    if let Resumption::On { sessions } = resumption {
        builder.set_session_cache_size(sessions.into());
    }
    builder.set_session_id_context(b"mgate")
}

const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:\
    rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512";

const GROUPS: &str = "X25519:P-256:P-384:P-521";

/// The extension that negotiates connection ids (RFC 9146 §3).
const CONNECTION_ID: u16 = 54;

/// Certificates between a client's and an authority's, at most.
const MAX_CHAIN: u32 = 8;

const COOKIE: &[u8] = b"good";
