//! How long certificates and revocation lists are good: a configuration with some that are over is served all the same.

use mgate_policies::Now;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

use super::files::Files;
use super::section::Given;

/// Warns of the certificate in a file, PEM, that ends first, if that is over or near.
pub(super) fn warn_of_certificates(name: &Given<String>, pem: &[u8], files: &Files<'_>) {
    let ends = blocks(pem).filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some((certificate.validity().not_after, of(certificate.subject())))
    });
    warn(name, "certificate", ends, files);
}

/// The same for revocation lists, PEM or DER.
pub(super) fn warn_of_lists(name: &Given<String>, bytes: &[u8], files: &Files<'_>) {
    let is_der = bytes.first() == Some(&DER_SEQUENCE);
    let alone = is_der.then(|| bytes.to_vec());
    let others = blocks(if is_der { b"" } else { bytes });
    let ends = alone.into_iter().chain(others).filter_map(|der| {
        let (_, list) = CertificateRevocationList::from_der(&der).ok()?;
        Some((list.next_update()?, of(list.issuer())))
    });
    warn(name, "revocation list", ends, files);
}

fn blocks(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    Pem::iter_from_buffer(pem).filter_map(|block| Some(block.ok()?.contents))
}

fn of(name: &X509Name<'_>) -> String {
    match name.to_string() {
        nobody if nobody.is_empty() => String::new(),
        somebody => format!(" of {}", somebody.escape_debug()),
    }
}

fn warn(name: &Given<String>, what: &str, ends: impl Iterator<Item = (ASN1Time, String)>, files: &Files<'_>) {
    let Some((end, of)) = ends.min_by_key(|(end, _)| *end) else { return };
    let date = end.to_datetime().date();
    let left = end.timestamp() - i64::try_from(Now::read().unix.as_secs()).unwrap_or(i64::MAX);
    let when = match left / DAY {
        _ if left < 0 => format!("expired on {date}"),
        0 => format!("expires in less than a day, on {date}"),
        1 => format!("expires in 1 day, on {date}"),
        days if days < DAYS_OF_WARNING => format!("expires in {days} days, on {date}"),
        _ => return,
    };
    files.report().warning(&name.place, format!("{}: the {what}{of} {when}", files.path(name).display()));
}

/// The first byte of every list in DER; PEM is text.
const DER_SEQUENCE: u8 = 0x30;
const DAY: i64 = 24 * 60 * 60;
const DAYS_OF_WARNING: i64 = 14;
