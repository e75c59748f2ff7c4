//! Routes of CoAP over DTLS.

#![cfg(feature = "dtls")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod device;
mod libraries;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod webrtc;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use support::{Files, Mgate};

fn files() -> Files {
    let key = hex(KEY.as_bytes());
    Files::new(&[("acl.toml", ACL), ("keys.psk", &format!("# devices\ndev-1:{key}\ndev-2:{key}\n"))])
}

/// The route `sensors` for devices with keys; `more` are further keys of it.
fn with_keys(upstream: u16, more: &str) -> String {
    format!(
        "[[route]]\nname = 'sensors'\nlisten = 'coaps://127.0.0.1:0'\nupstream = 'coap://127.0.0.1:{upstream}'\n\
         authn = ['keys']\npolicies = ['acl']\n{more}[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n\
         [authn.keys]\ntype = 'psk'\nfile = 'keys.psk'\n"
    )
}

fn url(mgate: &Mgate, path: &str) -> String {
    format!("coaps://{}{path}", mgate.address())
}

fn port_of(socket: &UdpSocket) -> u16 {
    let address = socket.local_addr().unwrap();
    assert_eq!(address, SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
    address.port()
}

/// A confirmable GET.
fn get(id: u16, path: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&[0x40, 1, high, low, 0xb0 | path.len() as u8], path.as_bytes()].concat()
}

/// The same that begins an observation, with the token 7.
fn observe(id: u16, path: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&[0x41, 1, high, low, 7, 0x60, 0x50 | path.len() as u8], path.as_bytes()].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails if a text has the key of the devices, in whatever form.
fn assert_no_key(text: &str) {
    let bytes = KEY.as_bytes();
    let [decimal, lower, upper] = [format!("{bytes:?}"), format!("{bytes:02x?}"), format!("{bytes:02X?}")];
    let lists = [decimal, lower, upper].map(|list| list.trim_matches(['[', ']']).to_owned());
    let base64 = BASE64_STANDARD_NO_PAD.encode(bytes);
    let texts = [KEY.to_owned(), base64, hex(bytes), hex(bytes).to_uppercase()];
    for form in lists.iter().chain(&texts) {
        assert!(!text.contains(form), "{form} is shown in\n{text}");
    }
}

const KEY: &str = "0123456789abcdef";

const ACL: &str = "\
version = 1
[[statements]]
sid = 'devices'
effect = 'allow'
principals = ['client:dev-1']
actions = ['request', 'observe']
resources = ['path:/time', 'path:/dynamic']
conditions = { methods = ['GET', 'PUT'] }
";
