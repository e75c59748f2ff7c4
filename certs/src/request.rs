use std::net::IpAddr;

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use crate::error::CertError;
use crate::name::{San, Subject, check_common_name};

/// A signing request whose signature holds: whose it is, and its public key.
pub(crate) struct Request {
    pub(crate) subject: Subject,
    pub(crate) key: SubjectPublicKeyInfo,
}

impl Request {
    /// Reads a PKCS #10 request in PEM and checks that who made it has the key. RFC 2986 §4
    pub(crate) fn parse(pem: &str) -> Result<Self, CertError> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| CertError::BadRequest("not in PEM"))?;
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|_| CertError::BadRequest("not a PKCS #10 request"))?;
        if !rest.is_empty() {
            return Err(CertError::BadRequest("followed by more bytes"));
        }
        check_signature(&request)?;
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| CertError::BadRequest("its kind of key is not supported"))?;
        Ok(Self { subject: subject(&request)?, key })
    }
}

fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), CertError> {
    // SHA-1 would also let short RSA keys through.
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&request.signature_algorithm.algorithm) {
        return Err(CertError::BadRequest("signed with SHA-1"));
    }
    request.verify_signature().map_err(|_| CertError::BadRequest("its signature does not hold"))
}

fn subject(request: &X509CertificationRequest<'_>) -> Result<Subject, CertError> {
    let mut common_names = request.certification_request_info.subject.iter_common_name();
    let common_name = common_names.next().map(AttributeTypeAndValue::as_str).transpose();
    let common_name = common_name.map_err(|_| CertError::BadRequest("its common name is not a text"))?;
    if common_names.next().is_some() {
        return Err(CertError::BadRequest("more than one common name"));
    }
    common_name.map_or(Ok(()), check_common_name)?;
    Ok(Subject { common_name: common_name.map(str::to_owned), sans: sans(request)? })
}

fn sans(request: &X509CertificationRequest<'_>) -> Result<Vec<San>, CertError> {
    let mut sans = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    sans.push(san(name)?);
                }
            }
            ParsedExtension::ParseError { .. } => {
                return Err(CertError::BadRequest("an extension cannot be read"));
            }
            _ => {}
        }
    }
    Ok(sans)
}

fn san(name: &GeneralName<'_>) -> Result<San, CertError> {
    match name {
        GeneralName::DNSName(name) => San::dns(name),
        GeneralName::IPAddress(octets) => ip(octets).map(San::ip),
        GeneralName::URI(text) => San::uri(text),
        _ => Err(CertError::BadRequest("an alternative name is neither DNS name, IP address nor URI")),
    }
}

fn ip(octets: &[u8]) -> Result<IpAddr, CertError> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .map_err(|_| CertError::BadRequest("an IP address has the wrong length"))
}
