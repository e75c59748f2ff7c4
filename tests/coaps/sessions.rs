//! What sessions go through, with a client of our own that does what libraries would not.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mgate_dtls::ContentType;
use serde_json::json;

use crate::support::coap::{descriptors, receive_from, upstream};
use crate::support::dtls::{Begin, DtlsClient, Handshake, socket, socket_at, spoofed_hello};
use crate::support::service::{Service, answer};
use crate::support::{Mgate, wait_until};
use crate::{KEY, assert_no_key, files, get, hex, observe, port_of, with_keys};

#[test]
fn spoofed_hellos_leave_nothing_behind() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let prober = socket(mgate.address());
    let answered = |hello: &[u8]| {
        prober.send(hello).unwrap();
        receive_from(&prober).0.len()
    };
    let hello = spoofed_hello();
    assert!(answered(&hello) <= hello.len(), "nobody is made to send more than came");
    let flood = |count: u32| {
        for number in 0..count {
            // addresses of their own, as far as there are ports
            let spoofer = if number % 10 == 0 { Some(socket(mgate.address())) } else { None };
            let sender = spoofer.as_ref().unwrap_or(&prober);
            sender.send(if number % 2 == 0 { &hello } else { &hello[..hello.len() - 1] }).unwrap();
            if number % 2 == 0 {
                let _ = receive_from(sender);
            }
        }
    };
    flood(1000);
    let (memory, files_before) = (mgate.resident_kib(), descriptors(&mgate));
    flood(10_000);
    answered(&hello);
    assert_eq!(descriptors(&mgate), files_before);
    assert!(mgate.resident_kib() <= memory + 512, "{} KiB, {memory} KiB before", mgate.resident_kib());
}

#[test]
fn client_that_moved_is_found_by_its_connection_id_and_told_what_it_observes() {
    for own in [&b""[..], b"12345"] {
        let (files, upstream) = (files(), upstream());
        let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), "").replacen("", "workers = 3\n", 1));
        let mut device = DtlsClient::connect(mgate.address(), Begin { cid: Some(own), ..DEV_1 });
        assert_eq!(device.cid.len(), 8);
        device.send(&observe(1, "time"));
        let (request, way) = receive_from(&upstream);
        assert_eq!(request, observe(1, "time"));
        upstream.send_to(&[0x61, 0x45, 0, 1, 7, 0x61, 1, 0xff, b'a'], way).unwrap();
        assert_eq!(device.receive().last(), Some(&b'a'));
        for round in 0..3 {
            device.rebind();
            // the kernel may lead the new address to another worker
            device.send(&get(10 + round, "time"));
            let (_, again) = receive_from(&upstream);
            assert_eq!(again, way, "it is the same session");
            let ping = device.receive_ping();
            device.reject(ping);
            // what comes behind the rejection shows that it was heard before the upstream says more
            device.send(&get(20 + round, "time"));
            assert_eq!(receive_from(&upstream).0, get(20 + round, "time"));
            upstream.send_to(&[0x60, 0x45, 0, 10 + round as u8], way).unwrap();
            assert_eq!(device.receive(), [0x60, 0x45, 0, 10 + round as u8]);
            upstream.send_to(&[0x51, 0x45, 1, round as u8, 7, 0x61, 2, 0xff, b'b'], way).unwrap();
            assert_eq!(device.receive().last(), Some(&b'b'));
        }
    }
}

#[test]
fn client_that_moved_gets_three_times_its_bytes_until_it_shows_where_it_is() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let mut device = DtlsClient::connect(mgate.address(), Begin { cid: Some(b""), ..DEV_1 });
    let large = |id: u8| [&[0x60, 0x45, 0, id, 0xff][..], &[b'a'; 1000]].concat();
    let ask = |device: &mut DtlsClient, id: u8, answer: &[u8]| {
        device.send(&get(id.into(), "time"));
        upstream.send_to(answer, receive_from(&upstream).1).unwrap();
    };
    ask(&mut device, 1, &large(1));
    assert_eq!(device.receive(), large(1), "it is where it shook hands");
    device.rebind();
    ask(&mut device, 2, &large(2));
    let [high, low] = device.receive_ping();
    device.reject([high, low ^ 1]);
    device.receive_ping();
    ask(&mut device, 3, &[0x60, 0x45, 0, 3]);
    let ping = device.receive_ping();
    assert_eq!(device.receive(), [0x60, 0x45, 0, 3], "the large answer is lost, the small one is not");
    device.reject(ping);
    // its answer was kept, and needs no ping any more
    device.send(&get(2, "time"));
    assert_eq!(device.receive(), large(2));
    ask(&mut device, 4, &large(4));
    assert_eq!(device.receive(), large(4));
}

#[test]
fn forged_and_repeated_records_change_nothing_and_are_counted() {
    let (files, upstream) = (files(), upstream());
    let config = with_keys(port_of(&upstream), "");
    let mgate = Mgate::start(&files, &format!("{config}[admin]\nlisten = 'http://127.0.0.1:0'\n"));
    let mut device = DtlsClient::connect(mgate.address(), DEV_1);
    let record = device.seal(ContentType::ApplicationData, &get(1, "time"));
    for _ in 0..3 {
        device.socket.send(&record).unwrap();
    }
    assert_eq!(receive_from(&upstream).0, get(1, "time"));
    let mut forged = device.seal(ContentType::ApplicationData, &get(2, "time"));
    *forged.last_mut().unwrap() ^= 1;
    device.socket.send(&forged).unwrap();
    // plaintext alerts, and records without a body
    for forged in [&[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40][..], &forged[..13], &[23; 25]] {
        device.socket.send(forged).unwrap();
    }
    // the connection id of no session, and one that is no worker's
    let mut other = DtlsClient::connect(mgate.address(), Begin { cid: Some(&[]), ..DEV_1 });
    for byte in [7, 0] {
        other.cid[byte] ^= 0xff;
        other.send(&get(2, "time"));
        other.cid[byte] ^= 0xff;
    }
    other.send(&get(2, "time"));
    assert_eq!(receive_from(&upstream).0, get(2, "time"));
    device.send(&get(3, "time"));
    assert_eq!(receive_from(&upstream).0, get(3, "time"));
    mgate.log.wait_for("records of DTLS that are not authentic are dropped");
    let counted = || mgate.admin().get("/healthz").1["routes"][0]["dtls"].clone();
    let expected = json!({
        "cookies_sent": 2,
        "handshakes_done": 2,
        "handshakes_failed": 0,
        "handshakes_refused": 0,
        "records_forged": 1,
        "records_replayed": 2,
        "records_stray": 5,
    });
    assert_eq!(counted(), expected);
    assert_eq!(mgate.log.count("are lost"), 0);
    mgate.reload();
    assert_eq!(counted(), expected, "it counts on");
}

#[test]
fn client_that_begins_anew_at_its_address_takes_the_place_of_what_it_was() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let mut device = DtlsClient::connect(mgate.address(), DEV_1);
    // somebody who knows no key says hello from the same address: that ends nothing
    let mut begun = Handshake::begin(device.socket.try_clone().unwrap(), DEV_1);
    device.send(&get(1, "time"));
    let (_, way) = receive_from(&upstream);
    // who begins anew at once is taken for one who repeats what others said
    begun.hear_again();
    let mut again = DtlsClient::connect_by(device.socket.try_clone().unwrap(), DEV_1);
    mgate.log.wait_for("the client ended it");
    again.send(&get(2, "time"));
    let (request, other) = receive_from(&upstream);
    assert_eq!(request, get(2, "time"));
    assert_ne!(other, way);
}

#[test]
fn both_say_goodbye() {
    let (files, upstream) = (files(), upstream());
    let mut mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let [mut leaving, mut staying] = [(); 2].map(|()| DtlsClient::connect(mgate.address(), DEV_1));
    for device in [&mut leaving, &mut staying] {
        device.send(&get(1, "time"));
        receive_from(&upstream);
    }
    let goodbye = leaving.seal(ContentType::Alert, &[1, 0]);
    leaving.socket.send(&goodbye).unwrap();
    mgate.log.wait_for("the client ended it");
    mgate.terminate();
    assert_eq!(staying.receive_alert(), 0);
    assert!(mgate.wait().success());
}

#[test]
fn key_is_asked_of_a_service_and_a_slow_answer_delays_nobody_else() {
    let (files, upstream) = (files(), upstream());
    let (release, released) = channel::<()>();
    let keys = service_of_keys(released);
    let config = with_keys(port_of(&upstream), "")
        .replace("file = 'keys.psk'", &format!("url = '{}'", keys.url("/psk")));
    let mgate = Mgate::start(&files, &config);
    let slow = {
        let address = mgate.address();
        std::thread::spawn(move || {
            let begin = Begin { identity: "slow", ..DEV_1 };
            DtlsClient::connect(address, begin);
        })
    };
    wait_until("the key of the slow one is asked for", || {
        keys.heard().iter().any(|heard| heard.body.contains("slow"))
    });
    let mut device = DtlsClient::connect(mgate.address(), DEV_1);
    device.send(&get(1, "time"));
    assert_eq!(receive_from(&upstream).0, get(1, "time"));
    assert!(!slow.is_finished());
    release.send(()).unwrap();
    slow.join().unwrap();
    assert_no_key(&mgate.log.text());
}

#[test]
fn identity_that_is_withdrawn_may_do_nothing_more() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_keys(port_of(&upstream), ""));
    let mut device = DtlsClient::connect(mgate.address(), DEV_1);
    device.send(&get(1, "time"));
    receive_from(&upstream);
    files.write("keys.psk", &format!("dev-2:{}\n", hex(KEY.as_bytes())));
    mgate.reload();
    device.send(&get(2, "time"));
    assert_eq!(device.receive(), [0x60, 0x81, 0, 2]);
}

#[test]
fn idle_session_costs_little_and_the_stalest_makes_room() {
    let (files, upstream) = (files(), upstream());
    let limits = format!("limits = {{ connections = {IDLE} }}\n");
    // each has those of its own to make room
    let config = format!("workers = 1\n{}", with_keys(port_of(&upstream), &limits));
    let mgate = Mgate::start(&files, &config);
    let begin = Begin { cid: Some(b""), ..DEV_1 };
    let mut oldest = DtlsClient::connect(mgate.address(), begin);
    let warm_up: Vec<_> = (0..100).map(|_| DtlsClient::connect(mgate.address(), begin)).collect();
    let (memory, files_before) = (mgate.resident_kib(), descriptors(&mgate));
    // each from an address of its own, and gone: so many sockets would be too many for a test
    let addresses = (0..IDLE - 101).map(|number| Ipv4Addr::from(0x7f01_0000 + number as u32));
    let idle: Vec<_> =
        addresses.map(|own| DtlsClient::connect_by(socket_at(own, mgate.address()), begin).cid).collect();
    let each = (mgate.resident_kib() - memory) * 1024 / idle.len() as u64;
    assert_eq!(descriptors(&mgate), files_before);
    // a process has some unevenness of its own, which counts where there are so few
    assert!(each < 4096, "{each} bytes for each idle session");
    oldest.send(&get(1, "time"));
    assert_eq!(receive_from(&upstream).0, get(1, "time"));
    // one more: `oldest` has just said something, so the first of the others goes
    let _one_more = DtlsClient::connect(mgate.address(), begin);
    assert_eq!(warm_up[0].receive_alert(), 0);
}

/// Keys by identity; that of `slow` is told when the test says so.
fn service_of_keys(released: Receiver<()>) -> Service {
    let released = Arc::new(Mutex::new(released));
    Service::start(move |heard, tcp| {
        if heard.body.contains("slow") {
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
        // "0123456789abcdef" in base64
        tcp.write_all(
            answer("200 OK", "application/json", r#"{"psk":"MDEyMzQ1Njc4OWFiY2RlZg=="}"#).as_slice(),
        )
    })
}

const DEV_1: Begin<'static> = Begin { identity: "dev-1", key: KEY.as_bytes(), cid: None };
const IDLE: usize = 1100;
