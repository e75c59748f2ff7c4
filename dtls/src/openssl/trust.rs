//! Which certificates of clients are good.

use std::cmp::Ordering;
use std::sync::Arc;

use ::openssl::error::ErrorStack;
use ::openssl::nid::Nid;
use ::openssl::pkey::{Id, PKeyRef, Public};
use ::openssl::x509::store::{X509Store, X509StoreBuilder};
use ::openssl::x509::verify::X509VerifyFlags;
use ::openssl::x509::{
    CrlStatus, X509, X509Crl, X509NameRef, X509Ref, X509StoreContextRef, X509VerifyResult,
};

use super::settings::Fault;

/// Authorities, and what they say about certificates that are not valid any more.
pub(super) struct Trust {
    authorities: Vec<X509>,
    lists: Arc<Vec<X509Crl>>,
}

impl Trust {
    pub(super) fn new(authorities: &[Vec<u8>], lists: &[Vec<u8>]) -> Result<Self, Fault> {
        let mut found = Vec::new();
        for pem in authorities {
            let bad = |errors: ErrorStack| Fault::BadAuthority(errors.to_string());
            let certificates = X509::stack_from_pem(pem).map_err(bad)?;
            if certificates.is_empty() {
                return Err(Fault::BadAuthority("there is none".to_owned()));
            }
            found.extend(certificates);
        }
        let lists = lists.iter().map(|file| revocation_lists(file, &found)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { authorities: found, lists: Arc::new(lists.into_iter().flatten().collect()) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }

    pub(super) fn store(&self) -> Result<X509Store, ErrorStack> {
        let mut builder = X509StoreBuilder::new()?;
        for authority in &self.authorities {
            builder.add_cert(authority.clone())?;
        }
        // an authority is trusted as such, whoever else signed it
        builder.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        Ok(builder.build())
    }

    pub(super) fn lists(&self) -> Arc<Vec<X509Crl>> {
        self.lists.clone()
    }
}

/// Whether a certificate of a chain that OpenSSL has found good is good enough: not weak, and not revoked.
pub(super) fn is_acceptable(context: &mut X509StoreContextRef, lists: &[X509Crl]) -> bool {
    let depth = context.error_depth() as usize;
    let is_anchor = context.chain().is_some_and(|chain| depth + 1 == chain.len());
    let is_good = context.current_cert().is_some_and(|certificate| {
        is_strong(certificate) && (is_anchor || is_signed_well(certificate) && is_valid(certificate, lists))
    });
    if !is_good {
        context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
    }
    is_good
}

fn is_strong(certificate: &X509Ref) -> bool {
    certificate.public_key().is_ok_and(|key| is_strong_key(&key))
}

fn is_strong_key(key: &PKeyRef<Public>) -> bool {
    match key.id() {
        Id::EC => key.bits() >= 256,
        Id::ED25519 | Id::ED448 => true,
        Id::RSA | Id::RSA_PSS => key.bits() >= 2048,
        _ => false,
    }
}

fn is_signed_well(certificate: &X509Ref) -> bool {
    let algorithm = certificate.signature_algorithm().object().nid();
    // those without a digest of their own are of RSA-PSS, whose digests OpenSSL restricts, and of Edwards curves
    algorithm
        .signature_algorithms()
        .is_none_or(|parts| ![Nid::MD5, Nid::SHA1, Nid::MD5_SHA1].contains(&parts.digest))
}

/// Whether lists, if there are any, name the certificate's issuer, and not the certificate.
fn is_valid(certificate: &X509Ref, lists: &[X509Crl]) -> bool {
    let mut relevant =
        lists.iter().filter(|list| is_same(list.issuer_name(), certificate.issuer_name())).peekable();
    let is_known = lists.is_empty() || relevant.peek().is_some();
    let is_revoked =
        |list: &X509Crl| matches!(list.get_by_serial(certificate.serial_number()), CrlStatus::Revoked(_));
    is_known && !relevant.any(is_revoked)
}

/// The lists in a file, each by one of the authorities.
fn revocation_lists(bytes: &[u8], authorities: &[X509]) -> Result<Vec<X509Crl>, Fault> {
    let bad = |why: &dyn std::fmt::Display| Fault::BadRevocationList(why.to_string());
    let lists = match bytes.first() {
        Some(&DER_SEQUENCE) => vec![X509Crl::from_der(bytes).map_err(|errors| bad(&errors))?],
        _ => pem_blocks(bytes)
            .map(X509Crl::from_pem)
            .collect::<Result<_, _>>()
            .map_err(|errors| bad(&errors))?,
    };
    if lists.is_empty() {
        return Err(bad(&"there is none"));
    }
    match lists.iter().all(|list| is_signed_by(list, authorities)) {
        true => Ok(lists),
        false => Err(bad(&"it comes from none of the authorities")),
    }
}

fn is_signed_by(list: &X509Crl, authorities: &[X509]) -> bool {
    authorities.iter().any(|authority| {
        is_same(list.issuer_name(), authority.subject_name())
            && authority.public_key().is_ok_and(|key| list.verify(&key).unwrap_or(false))
    })
}

fn is_same(one: &X509NameRef, other: &X509NameRef) -> bool {
    one.try_cmp(other).is_ok_and(Ordering::is_eq)
}

fn pem_blocks(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = pem;
    std::iter::from_fn(move || {
        let end = rest.windows(PEM_END.len()).position(|window| window == PEM_END)? + PEM_END.len();
        let (block, behind) = rest.split_at(end);
        rest = behind;
        Some(block)
    })
}

const PEM_END: &[u8] = b"-----END X509 CRL-----";

/// The first byte of a list in DER.
const DER_SEQUENCE: u8 = 0x30;
