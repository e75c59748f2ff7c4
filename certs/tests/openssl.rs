//! What the authority signs, as OpenSSL and webpki (the verifier of rustls) see it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::disallowed_methods, reason = "openssl verifies at the present time")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use mgate_certs::{Authority, CertError, Issued, Revoked, San, Usage, Validity};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use tempfile::TempDir;
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    anchor_from_trusted_cert, ring,
};

#[test]
fn server_certificate_verifies_for_its_names() {
    let bench = Bench::new();
    let issued = bench.authority.issue_server(&["localhost", "*.example.org", "127.0.0.1"], valid()).unwrap();
    bench.write("leaf.pem", &issued.certificate.pem);
    bench.verifies("leaf.pem", &["-purpose", "sslserver", "-verify_hostname", "localhost"]);
    bench.verifies("leaf.pem", &["-purpose", "sslserver", "-verify_hostname", "a.example.org"]);
    bench.verifies("leaf.pem", &["-purpose", "sslserver", "-verify_ip", "127.0.0.1"]);
    bench.fails("leaf.pem", &["-verify_hostname", "example.com"], "hostname mismatch");
    bench.fails("leaf.pem", &["-purpose", "sslclient"], "unsuitable certificate purpose");
}

#[test]
fn client_certificate_verifies_as_a_client_only() {
    let bench = Bench::new();
    let sans = [San::dns("dev-1.example.org").unwrap(), San::uri("urn:dev:1").unwrap()];
    let issued = bench.authority.issue_client("dev-1", &sans, valid()).unwrap();
    bench.write("leaf.pem", &issued.certificate.pem);
    bench.verifies("leaf.pem", &["-purpose", "sslclient"]);
    bench.fails("leaf.pem", &["-purpose", "sslserver"], "unsuitable certificate purpose");
    let text = bench.text("leaf.pem");
    for part in ["CN = dev-1", "DNS:dev-1.example.org, URI:urn:dev:1", "CA:FALSE"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn serial_is_printed_as_openssl_prints_it() {
    let bench = Bench::new();
    let issued = bench.authority.issue_client("dev-1", &[], valid()).unwrap();
    bench.write("leaf.pem", &issued.certificate.pem);
    let printed = bench.openssl(&["x509", "-in", "leaf.pem", "-noout", "-serial"]);
    let serial = issued.certificate.serial.to_string().to_uppercase();
    assert_eq!(String::from_utf8_lossy(&printed.stdout).trim(), format!("serial={serial}"));
}

#[test]
fn key_belongs_to_its_certificate() {
    let bench = Bench::new();
    let Issued { certificate, key } = bench.authority.issue_client("dev-1", &[], valid()).unwrap();
    bench.write("leaf.pem", &certificate.pem);
    bench.write("leaf.key", key.pem());
    let of_certificate = bench.openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
    let of_key = bench.openssl(&["pkey", "-in", "leaf.key", "-pubout"]);
    assert_eq!(of_certificate.stdout, of_key.stdout);
    assert_eq!(format!("{key:?}"), "PrivateKey(..)");
}

#[test]
fn reloaded_authority_issues_what_verifies() {
    let bench = Bench::new();
    let authority = Authority::load(bench.authority.certificate_pem(), bench.authority.key().pem()).unwrap();
    let issued = authority.issue_client("dev-1", &[], valid()).unwrap();
    bench.write("leaf.pem", &issued.certificate.pem);
    bench.verifies("leaf.pem", &["-purpose", "sslclient"]);
}

#[test]
fn authority_made_by_openssl_issues_what_verifies() {
    for algorithm in [["rsa:2048", "rsa"], ["ed25519", "ed25519"]] {
        let bench = Bench::new();
        let subject = "/C=NL/O=Example \u{fc}ber/CN=Foreign CA";
        let extension = "keyUsage=critical,keyCertSign,cRLSign";
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            algorithm[0],
            "-nodes",
            "-utf8",
            "-subj",
            subject,
            "-addext",
            extension,
        ];
        bench.openssl(&[&arguments[..], &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
        let authority = Authority::load(&bench.read("ca.pem"), &bench.read("ca.key")).unwrap();
        let issued = authority.issue_client("dev-1", &[], valid()).unwrap();
        bench.write("leaf.pem", &issued.certificate.pem);
        bench.verifies("leaf.pem", &["-purpose", "sslclient"]);
    }
}

#[test]
fn what_is_no_authority_is_refused() {
    let bench = Bench::new();
    let Issued { certificate, key } = bench.authority.issue_client("dev-1", &[], valid()).unwrap();
    let refusal = |certificate: &str, key: &str| Authority::load(certificate, key).err().unwrap().to_string();
    let ca = bench.authority.certificate_pem();
    assert_eq!(refusal(&certificate.pem, key.pem()), "authority: the certificate is not a CA's");
    assert_eq!(refusal(ca, key.pem()), "authority: the key does not belong to the certificate");
    assert_eq!(refusal(ca, "nonsense"), "authority: the key is not a PKCS #8 key in PEM");
    assert_eq!(refusal("nonsense", key.pem()), "authority: the certificate is not in PEM");
}

#[test]
fn subject_that_would_not_chain_is_refused() {
    let bench = Bench::new();
    let arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/DC=org/DC=example/CN=CA"];
    bench.openssl(&[&arguments[..], &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
    let refused = Authority::load(&bench.read("ca.pem"), &bench.read("ca.key")).err().unwrap();
    assert_eq!(refused.to_string(), "authority: the certificate's subject is too intricate");
}

#[test]
fn request_made_by_openssl_is_signed() {
    for algorithm in [
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["rsa:2048"],
        &["ed25519"],
    ] {
        let bench = Bench::new();
        let request = bench
            .request(algorithm, &["-subj", "/O=Example/CN=dev-1", "-addext", "subjectAltName=URI:urn:dev:1"]);
        let signed = bench.authority.sign_request(&request, Usage::Client, valid()).unwrap();
        assert_eq!(signed.name, "dev-1");
        bench.write("leaf.pem", &signed.pem);
        bench.verifies("leaf.pem", &["-purpose", "sslclient"]);
        let of_certificate = bench.openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
        let of_key = bench.openssl(&["pkey", "-in", "request.key", "-pubout"]);
        assert_eq!(of_certificate.stdout, of_key.stdout, "{algorithm:?}");
        assert!(bench.text("leaf.pem").contains("URI:urn:dev:1"));
    }
}

#[test]
fn request_gets_names_and_nothing_else() {
    let bench = Bench::new();
    let greedy = [
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=keyCertSign",
        "extendedKeyUsage=serverAuth",
        "nsComment=hello",
    ];
    let mut arguments = vec!["-subj", "/CN=dev-1"];
    arguments.extend(greedy.iter().flat_map(|extension| ["-addext", *extension]));
    let request = bench.request(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], &arguments);
    let signed = bench.authority.sign_request(&request, Usage::Client, valid()).unwrap();
    bench.write("leaf.pem", &signed.pem);
    let text = bench.text("leaf.pem");
    for part in ["CA:TRUE", "Certificate Sign", "TLS Web Server", "hello"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    bench.fails("leaf.pem", &["-purpose", "sslserver"], "unsuitable certificate purpose");
}

#[test]
fn request_with_a_foreign_signature_is_refused() {
    let bench = Bench::new();
    let request = bench.request(&["ed25519"], &["-subj", "/CN=dev-1", "-outform", "DER"]);
    assert!(request.is_empty());
    let mut der = fs::read(bench.path("request.csr")).unwrap();
    *der.last_mut().unwrap() ^= 1;
    fs::write(bench.path("request.csr"), der).unwrap();
    bench.openssl(&["req", "-inform", "DER", "-in", "request.csr", "-out", "forged.csr"]);
    let forged = bench.read("forged.csr");
    let refused = bench.authority.sign_request(&forged, Usage::Client, valid()).unwrap_err();
    assert_eq!(refused.to_string(), "signing request: its signature does not hold");
}

#[test]
fn requests_that_name_nobody_or_too_much_are_refused() {
    let cases: [(&[&str], Usage, &str); 6] = [
        (&["-subj", "/O=Example"], Usage::Client, "signing request: it names nobody"),
        (&["-subj", "/CN=a/CN=b"], Usage::Client, "signing request: more than one common name"),
        (
            &["-subj", "/CN=gate"],
            Usage::Server,
            "signing request: a server needs a DNS name or an IP address",
        ),
        (&["-subj", "/CN=a", "-sha1"], Usage::Client, "signing request: signed with SHA-1"),
        (
            &["-subj", "/CN=a", "-addext", "subjectAltName=DNS:a b"],
            Usage::Client,
            "name \"a b\": not a DNS name",
        ),
        (
            &["-subj", "/CN=a", "-addext", "subjectAltName=email:a@b.org"],
            Usage::Client,
            "signing request: an alternative name is neither DNS name, IP address nor URI",
        ),
    ];
    let bench = Bench::new();
    for (arguments, usage, message) in cases {
        let request = bench.request(&["rsa:2048"], arguments);
        let refused = bench.authority.sign_request(&request, usage, valid()).unwrap_err();
        assert_eq!(refused.to_string(), message);
    }
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = Authority::create("mgate CA", Validity::days(SystemTime::now(), 10).unwrap()).unwrap();
    let issued =
        authority.issue_client("dev-1", &[], Validity::days(SystemTime::now(), 90).unwrap()).unwrap();
    assert_eq!(issued.certificate.until, authority.until());
}

#[test]
fn ended_authority_signs_nothing() {
    let past = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let authority = Authority::create("mgate CA", Validity::days(past, 10).unwrap()).unwrap();
    assert_eq!(authority.issue_client("dev-1", &[], valid()).unwrap_err(), CertError::Ended);
}

#[test]
fn revoked_certificate_fails_and_its_neighbour_verifies() {
    let bench = Bench::new();
    let [lost, kept] = ["lost", "kept"].map(|id| bench.authority.issue_client(id, &[], valid()).unwrap());
    let at = valid().from();
    let list =
        bench.authority.revocation_list(&[Revoked { serial: lost.certificate.serial, at }], 1, valid());
    bench.write("crl.pem", &list.unwrap());
    bench.write("lost.pem", &lost.certificate.pem);
    bench.write("kept.pem", &kept.certificate.pem);
    bench.fails("lost.pem", &["-crl_check", "-CRLfile", "crl.pem"], "certificate revoked");
    bench.verifies("kept.pem", &["-crl_check", "-CRLfile", "crl.pem"]);
}

#[test]
fn webpki_accepts_certificates_and_revocations() {
    let authority = Authority::create("mgate CA", valid()).unwrap();
    let server = authority.issue_server(&["localhost", "127.0.0.1"], valid()).unwrap();
    let [lost, kept] = ["lost", "kept"].map(|id| authority.issue_client(id, &[], valid()).unwrap());
    let revoked = [Revoked { serial: lost.certificate.serial, at: valid().from() }];
    let list = authority.revocation_list(&revoked, 1, valid()).unwrap();
    let verify = |issued: &Issued, usage| webpki_verify(&authority, &list, issued, usage);
    assert_eq!(verify(&server, KeyUsage::server_auth()), Ok(()));
    assert_eq!(verify(&kept, KeyUsage::client_auth()), Ok(()));
    assert_eq!(verify(&lost, KeyUsage::client_auth()), Err(webpki::Error::CertRevoked));
    assert!(verify(&server, KeyUsage::client_auth()).is_err());
    let der = CertificateDer::from_pem_slice(server.certificate.pem.as_bytes()).unwrap();
    let end = EndEntityCert::try_from(&der).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        end.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap()).unwrap();
    }
}

fn webpki_verify(
    authority: &Authority,
    list: &str,
    issued: &Issued,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let ca = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap();
    let anchor = anchor_from_trusted_cert(&ca).unwrap();
    let list = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    let list = CertRevocationList::from(OwnedCertRevocationList::from_der(&list).unwrap());
    let lists = [&list];
    let revocation = RevocationOptionsBuilder::new(&lists).unwrap().build();
    let der = CertificateDer::from_pem_slice(issued.certificate.pem.as_bytes()).unwrap();
    let end = EndEntityCert::try_from(&der).unwrap();
    let algorithms = [ring::ECDSA_P256_SHA256];
    end.verify_for_usage(&algorithms, &[anchor], &[], UnixTime::now(), usage, Some(revocation), None)
        .map(drop)
}

/// An authority, and a directory in which `openssl` works on what it signed.
struct Bench {
    authority: Authority,
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::create("mgate CA", valid()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { authority, directory };
        bench.write("ca.pem", bench.authority.certificate_pem());
        bench
    }

    fn request(&self, key: &[&str], arguments: &[&str]) -> String {
        let fixed = ["req", "-new", "-nodes", "-keyout", "request.key", "-out", "request.csr", "-newkey"];
        self.openssl(&[&fixed[..], key, arguments].concat());
        fs::read_to_string(self.path("request.csr")).unwrap_or_default()
    }

    fn verifies(&self, leaf: &str, arguments: &[&str]) {
        let output = self.verify(leaf, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn fails(&self, leaf: &str, arguments: &[&str], why: &str) {
        let output = self.verify(leaf, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
    }

    fn verify(&self, leaf: &str, arguments: &[&str]) -> Output {
        let fixed = ["verify", "-x509_strict", "-CAfile", "ca.pem"];
        self.run(&[&fixed[..], arguments, &[leaf]].concat())
    }

    fn text(&self, certificate: &str) -> String {
        let output = self.openssl(&["x509", "-in", certificate, "-noout", "-text"]);
        String::from_utf8(output.stdout).unwrap()
    }

    fn openssl(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let command = Command::new("openssl").args(arguments).current_dir(&self.directory).output();
        command.unwrap_or_else(|error| panic!("cannot run openssl ({error}): install the package openssl"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> impl AsRef<Path> + use<> {
        self.directory.path().join(name)
    }
}

fn valid() -> Validity {
    Validity::days(SystemTime::now(), 30).unwrap()
}
