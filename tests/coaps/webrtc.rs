//! Clients of `webrtc-dtls`, with messages of `coap-lite`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use webrtc_dtls::Error;
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::Config;
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};

use crate::support::coap::{CoapServer, receive_from, upstream};
use crate::support::dtls::socket;
use crate::support::{Files, Mgate, PATIENCE};
use crate::{KEY, assert_no_key, files, get, port_of, with_keys};

#[test]
fn who_has_the_key_may_do_what_its_identity_may_with_each_suite() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    for suite in PSK_SUITES {
        let client = Client::connect(mgate.address(), with_key("dev-1", KEY, suite)).unwrap();
        let text = suite.to_string();
        assert_eq!(client.ask(&put(1, "dynamic", &text)).header.code, changed_or_created(suite));
        assert_eq!(client.ask(&request(2, RequestType::Get, "dynamic")).payload, text.as_bytes());
        let denied = client.ask(&request(3, RequestType::Get, "secret"));
        assert_eq!(denied.header.code, MessageClass::Response(ResponseType::Forbidden), "{suite}");
    }
    assert_no_key(&mgate.log.text());
}

#[test]
fn wrong_key_and_unknown_identity_open_no_session() {
    let (files, upstream) = (files(), upstream());
    let mgate =
        Mgate::start(&files, &with_keys(port_of(&upstream), "limits = { handshake_timeout = '2s' }\n"));
    for (identity, key) in [("dev-1", "fedcba9876543210"), ("dev-3", KEY)] {
        let refused = Client::connect(mgate.address(), with_key(identity, key, PSK_SUITES[0]));
        assert_eq!(refused.err(), Some(Error::ErrAlertFatalOrClose), "{identity}");
    }
    assert_eq!(mgate.log.count("session opened"), 0);
    let client = Client::connect(mgate.address(), with_key("dev-1", KEY, PSK_SUITES[0])).unwrap();
    client.say(&request(1, RequestType::Get, "time"));
    mgate.log.wait_for("session opened");
}

#[test]
fn both_show_certificates_and_believe_no_others() {
    let (files, server) = (files().with_certificates(), CoapServer::start());
    let stranger = Files::new(&[]).with_certificates();
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }\n";
    let config = with_keys(server.port, tls).replace("['keys']", "['keys', 'certs']");
    let mgate = Mgate::start(&files, &format!("{config}[authn.certs]\ntype = 'x509'\n"));
    let good = |suite| with_certificate(&files, &files, suite);
    for suite in ECDSA_SUITES {
        let client = Client::connect(mgate.address(), good(suite)).unwrap();
        let text = suite.to_string();
        assert_eq!(client.ask(&put(1, "dynamic", &text)).header.code, changed_or_created(suite));
        assert_eq!(client.ask(&request(2, RequestType::Get, "dynamic")).payload, text.as_bytes());
    }
    let suite = ECDSA_SUITES[0];
    for (what, config) in [
        ("a certificate of another authority", with_certificate(&files, &stranger, suite)),
        ("no certificate", Config { certificates: Vec::new(), ..good(suite) }),
    ] {
        let refused = Client::connect(mgate.address(), config).err();
        assert_eq!(refused, Some(Error::ErrAlertFatalOrClose), "{what}");
    }
    for (what, config) in [
        ("another authority", with_certificate(&stranger, &files, suite)),
        ("another name", Config { server_name: "gateway.example".to_owned(), ..good(suite) }),
    ] {
        let fault = Client::connect(mgate.address(), config).err().unwrap().to_string();
        assert!(fault.contains("invalid peer certificate"), "{what}: {fault}");
    }
}

#[test]
fn observer_is_told_of_changes() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    let client = Client::connect(mgate.address(), with_key("dev-1", KEY, PSK_SUITES[0])).unwrap();
    let mut observe = request(1, RequestType::Get, "time");
    observe.set_token(vec![7]);
    observe.set_observe_value(0);
    let mut told = client.ask(&observe);
    for _ in 0..2 {
        let before = told.get_observe_value().unwrap().unwrap();
        told = client.hear().unwrap();
        assert_eq!(told.get_token(), [7]);
        assert!(told.get_observe_value().unwrap().unwrap() > before);
        if told.header.get_type() == MessageType::Confirmable {
            client.acknowledge(&told);
        }
    }
}

#[test]
fn bodies_in_blocks_pass_both_ways() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    let client = Client::connect(mgate.address(), with_key("dev-1", KEY, PSK_SUITES[0])).unwrap();
    let body: Vec<u8> = (0..5 * BLOCK + 7).map(|number| number as u8).collect();
    let blocks: Vec<_> = body.chunks(BLOCK).collect();
    for (number, block) in blocks.iter().enumerate() {
        let mut put = request(100 + number as u16, RequestType::Put, "dynamic");
        put.add_option(CoapOption::Block1, block_option(number, number + 1 < blocks.len()));
        put.payload = block.to_vec();
        let code = client.ask(&put).header.code;
        let is_good = matches!(code, MessageClass::Response(code) if !code.is_error());
        assert!(is_good, "block {number}: {code:?}");
    }
    let mut heard = Vec::new();
    for number in 0..blocks.len() {
        let mut get = request(200 + number as u16, RequestType::Get, "dynamic");
        get.add_option(CoapOption::Block2, block_option(number, false));
        heard.extend(client.ask(&get).payload);
    }
    assert_eq!(heard, body);
}

#[test]
fn both_hear_goodbyes() {
    let (files, upstream) = (files(), upstream());
    let mut mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let [leaving, staying] = [(); 2].map(|()| {
        let client = Client::connect(mgate.address(), with_key("dev-1", KEY, PSK_SUITES[0])).unwrap();
        client.say(&request(1, RequestType::Get, "time"));
        receive_from(&upstream);
        client
    });
    leaving.close();
    mgate.log.wait_for("the client ended it");
    assert_eq!(mgate.log.count("the client ended it"), 1);
    mgate.terminate();
    let request_is_over = staying.hear().unwrap();
    assert_eq!(request_is_over.header.code, MessageClass::Response(ResponseType::ServiceUnavailable));
    assert_eq!(staying.hear().err(), Some(Error::ErrAlertFatalOrClose));
    assert!(mgate.wait().success());
}

#[test]
fn client_that_lost_its_session_begins_anew_at_its_port() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let mut ways = Vec::new();
    let mut port = 0;
    for number in 0..3 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.connect(mgate.address()).unwrap();
        port = port_of(&socket);
        let client = Client::connect_by(socket, with_key("dev-1", KEY, PSK_SUITES[0])).unwrap();
        client.say(&request(number, RequestType::Get, "time"));
        let (request, way) = receive_from(&upstream);
        assert_eq!(request, get(number, "time"));
        ways.push(way);
        // the second goes without a word
        if number == 0 {
            client.close();
        }
    }
    ways.dedup();
    assert_eq!(ways.len(), 3, "a new session is another client to the upstream");
    mgate.log.wait_for_times("the client ended it", 2);
}

/// A session of `webrtc-dtls`, which goes on while it is asked something.
struct Client {
    session: DTLSConn,
    runtime: Runtime,
}

impl Client {
    fn connect(to: SocketAddr, config: Config) -> Result<Self, Error> {
        Self::connect_by(socket(to), config)
    }

    fn connect_by(socket: UdpSocket, config: Config) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        socket.set_nonblocking(true).unwrap();
        let session = runtime.block_on(async {
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).unwrap());
            timeout(PATIENCE, DTLSConn::new(socket, config, true, None)).await.unwrap()
        })?;
        Ok(Self { session, runtime })
    }

    /// Sends a request; the answer that comes with its acknowledgement.
    fn ask(&self, request: &Packet) -> Packet {
        self.say(request);
        let answer = self.hear().unwrap();
        assert_eq!(answer.header.message_id, request.header.message_id);
        answer
    }

    fn say(&self, message: &Packet) {
        self.runtime.block_on(self.session.write(&message.to_bytes().unwrap(), Some(PATIENCE))).unwrap();
    }

    fn hear(&self) -> Result<Packet, Error> {
        let mut buffer = [0; 2000];
        let length = self.runtime.block_on(self.session.read(&mut buffer, Some(PATIENCE)))?;
        Ok(Packet::from_bytes(&buffer[..length]).unwrap())
    }

    fn acknowledge(&self, message: &Packet) {
        let mut acknowledgement = Packet::new();
        acknowledgement.header.set_type(MessageType::Acknowledgement);
        acknowledgement.header.code = MessageClass::Empty;
        acknowledgement.header.message_id = message.header.message_id;
        self.say(&acknowledgement);
    }

    fn close(self) {
        self.runtime.block_on(self.session.close()).unwrap();
    }
}

fn with_key(identity: &str, key: &str, suite: CipherSuiteId) -> Config {
    let key = key.as_bytes().to_vec();
    Config {
        psk: Some(Arc::new(move |_| Ok(key.clone()))),
        // a client's own identity goes where a server has its hint
        psk_identity_hint: Some(identity.as_bytes().to_vec()),
        cipher_suites: vec![suite],
        ..Config::default()
    }
}

/// Trusts the authority of `theirs`, and shows the certificate of `dev-1` among `own`.
fn with_certificate(theirs: &Files, own: &Files, suite: CipherSuiteId) -> Config {
    let read = |files: &Files, name: &str| CertificateDer::from_pem_file(files.path(name)).unwrap();
    let key = PrivateKeyDer::from_pem_file(own.path("dev-1.key")).unwrap().secret_der().to_vec();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key, &SystemRandom::new());
    let private_key =
        CryptoPrivateKey { kind: CryptoPrivateKeyKind::Ecdsa256(pair.unwrap()), serialized_der: key };
    let mut roots_cas = RootCertStore::empty();
    roots_cas.add(read(theirs, "ca.pem")).unwrap();
    Config {
        certificates: vec![Certificate { certificate: vec![read(own, "dev-1.pem")], private_key }],
        roots_cas,
        server_name: "localhost".to_owned(),
        cipher_suites: vec![suite],
        ..Config::default()
    }
}

fn request(id: u16, method: RequestType, path: &str) -> Packet {
    let mut request = Packet::new();
    request.header.message_id = id;
    request.header.code = MessageClass::Request(method);
    request.add_option(CoapOption::UriPath, path.as_bytes().to_vec());
    request
}

fn put(id: u16, path: &str, payload: &str) -> Packet {
    let mut put = request(id, RequestType::Put, path);
    put.payload = payload.as_bytes().to_vec();
    put
}

/// What a PUT is answered with that comes first, or later.
fn changed_or_created(suite: CipherSuiteId) -> MessageClass {
    let is_first = suite == PSK_SUITES[0] || suite == ECDSA_SUITES[0];
    MessageClass::Response(if is_first { ResponseType::Created } else { ResponseType::Changed })
}

/// RFC 7959 §2.2; blocks of 256 bytes.
fn block_option(number: usize, has_more: bool) -> Vec<u8> {
    vec![(number << 4) as u8 | if has_more { 8 } else { 0 } | 4]
}

const PSK_SUITES: [CipherSuiteId; 3] = [
    CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8,
    CipherSuiteId::Tls_Psk_With_Aes_128_Ccm,
    CipherSuiteId::Tls_Psk_With_Aes_128_Gcm_Sha256,
];

const ECDSA_SUITES: [CipherSuiteId; 3] = [
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm_8,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
];

/// The bytes of a block.
const BLOCK: usize = 256;
