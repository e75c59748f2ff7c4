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

use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::SignatureAlgorithm;

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
    if algorithm == Nid::RSASSAPSS {
        return certificate.to_der().is_ok_and(|der| is_strong_pss(&der));
    }
    // those without a digest of their own are of Edwards curves
    algorithm
        .signature_algorithms()
        .is_none_or(|parts| ![Nid::MD5, Nid::SHA1, Nid::MD5_SHA1].contains(&parts.digest))
}

/// Whether a certificate's signature of RSA-PSS is of a good digest, which only its parameters name.
fn is_strong_pss(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    match SignatureAlgorithm::try_from(&certificate.signature_algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => {
            STRONG_DIGESTS.contains(parameters.hash_algorithm_oid())
        }
        _ => false,
    }
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
    for list in &lists {
        if !is_signed_by(list, authorities) {
            return Err(bad(&"it comes from none of the authorities"));
        }
        let der = list.to_der().map_err(|errors| bad(&errors))?;
        check_extensions(&der).map_err(|why| bad(&why))?;
    }
    Ok(lists)
}

/// Refuses a list that does not name all revoked certificates of its issuer, or says what is not understood
/// (RFC 5280 §5.2).
fn check_extensions(der: &[u8]) -> Result<(), String> {
    let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    let entries = list.iter_revoked_certificates().flat_map(|entry| entry.extensions());
    for extension in list.extensions().iter().chain(entries) {
        let known = [AUTHORITY_KEY, NUMBER, REASON];
        match &extension.oid {
            oid if *oid == PART_ALONE => {
                return Err("it is about a part of the certificates alone".to_owned());
            }
            oid if *oid == CHANGES_ALONE => {
                return Err("it has changes to another list alone".to_owned());
            }
            oid if extension.critical && !known.contains(oid) => {
                return Err(format!("its critical extension {oid} is not known"));
            }
            _ => {}
        }
    }
    Ok(())
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

const STRONG_DIGESTS: [Oid<'static>; 3] =
    [oid!(2.16.840.1.101.3.4.2.1), oid!(2.16.840.1.101.3.4.2.2), oid!(2.16.840.1.101.3.4.2.3)];

/// Extensions of lists and of what is in them (RFC 5280 §5.2, §5.3).
const AUTHORITY_KEY: Oid<'static> = oid!(2.5.29.35);
const CHANGES_ALONE: Oid<'static> = oid!(2.5.29.27);
const NUMBER: Oid<'static> = oid!(2.5.29.20);
const PART_ALONE: Oid<'static> = oid!(2.5.29.28);
const REASON: Oid<'static> = oid!(2.5.29.21);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_rsa_pss_needs_a_good_digest() {
        assert!(is_strong_pss(&certificate(Some([0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1].as_slice()))));
        // SHA-1, and nothing, which means SHA-1; MD5
        assert!(!is_strong_pss(&certificate(Some(&[0x2b, 0x0e, 3, 2, 0x1a]))));
        assert!(!is_strong_pss(&certificate(None)));
        assert!(!is_strong_pss(&certificate(Some(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5]))));
        assert!(!is_strong_pss(b"no certificate"));
    }

    /// A certificate that says it was signed with RSA-PSS and this digest.
    fn certificate(digest: Option<&[u8]>) -> Vec<u8> {
        let from = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let valid = mgate_certs::Validity::days(from, 1).unwrap();
        let authority = mgate_certs::Authority::create("test", valid).unwrap();
        let whole = X509::from_pem(authority.certificate_pem().as_bytes()).unwrap().to_der().unwrap();
        // behind the head of the whole, the contents with a head of their own
        let length = 4 + usize::from(u16::from_be_bytes([whole[6], whole[7]]));
        let digest = digest.map(|digest| tagged(0xa0, &tagged(0x30, &tagged(6, digest))));
        let pss = tagged(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]);
        let parameters = tagged(0x30, &digest.unwrap_or_default());
        let algorithm = tagged(0x30, &[pss, parameters].concat());
        tagged(0x30, &[&whole[4..][..length], &algorithm, &tagged(3, &[0, 1])].concat())
    }

    fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
        let [high, low] = (contents.len() as u16).to_be_bytes();
        let length: &[u8] = if contents.len() < 128 { &[low] } else { &[0x82, high, low] };
        [&[tag], length, contents].concat()
    }
}
