//! Who makes a request of HTTP: asked once a connection, and again when the answer may have changed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mgate::Gateway;
use mgate::control::Control;
use mgate_policies::{Cause, Now, Principal, Protocol, Reason, Scope};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use support::http::ask_as;
use support::peer::tcp;
use support::service::{Service, answer};
use support::{ACL, Files, wait_until};
use tokio::sync::oneshot;

#[test]
fn same_credentials_are_asked_about_once_a_connection() {
    let gateway = Embedded::start(None);
    let (mut one, mut other) = (tcp(gateway.address), tcp(gateway.address));
    for _ in 0..3 {
        assert_eq!(ask(&mut one, "a"), 200);
    }
    assert_eq!(gateway.knower.asked(), ["a"]);
    assert_eq!([ask(&mut one, "b"), ask(&mut one, "a"), ask(&mut other, "a")], [200; 3]);
    assert_eq!(gateway.knower.asked(), ["a", "b", "a"]);
    // who was not let in is asked again
    assert_eq!([ask(&mut one, "stranger"), ask(&mut one, "stranger")], [401; 2]);
    assert_eq!(gateway.knower.asked().len(), 5);
}

#[test]
fn few_are_remembered() {
    let gateway = Embedded::start(None);
    let mut client = tcp(gateway.address);
    let many: Vec<String> = (0..20).map(|number| format!("dev-{number}")).collect();
    assert!(many.iter().all(|id| ask(&mut client, id) == 200));
    assert_eq!(ask(&mut client, "dev-19"), 200);
    assert_eq!(gateway.knower.asked().len(), 20);
    assert_eq!(ask(&mut client, "dev-0"), 200);
    assert_eq!(gateway.knower.asked().len(), 21);
}

#[test]
fn withdrawn_rights_have_it_asked_again() {
    let gateway = Embedded::start(None);
    let mut client = tcp(gateway.address);
    assert_eq!([ask(&mut client, "a"), ask(&mut client, "b")], [200; 2]);
    gateway.control.invalidate(&Scope::Principal { tenant: None, id: "a".into() });
    assert_eq!([ask(&mut client, "a"), ask(&mut client, "b")], [200; 2]);
    assert_eq!(gateway.knower.asked(), ["a", "b", "a"]);
}

#[test]
fn credentials_are_good_until_they_expire() {
    let gateway = Embedded::start(Some(Duration::from_secs(2)));
    let mut client = tcp(gateway.address);
    assert_eq!(ask(&mut client, "a"), 200);
    wait_until("it is asked again", || ask(&mut client, "a") == 200 && gateway.knower.asked().len() > 1);
    let gateway = Embedded::start(Some(Duration::ZERO));
    assert_eq!(ask(&mut tcp(gateway.address), "a"), 401);
}

fn ask(client: &mut TcpStream, key: &str) -> u16 {
    ask_as(client, &format!("Thing {key}"))
}

/// Knows everybody but strangers by their keys, after a while, and counts.
struct Knower {
    asked: Mutex<Vec<String>>,
    lasting: Option<Duration>,
    turns: AtomicUsize,
}

impl Knower {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Authenticator for Knower {
    fn name(&self) -> &str {
        "knower"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        assert_eq!((credentials.protocol, credentials.username), (Protocol::Http, None));
        let key = String::from_utf8(credentials.password.unwrap().to_vec()).unwrap();
        self.asked.lock().unwrap().push(key.clone());
        let verdict = match key.as_str() {
            "stranger" => Verdict::Rejected(Reason::new(Cause::BadCredentials)),
            id => Verdict::Accepted(Principal {
                id: id.into(),
                expires: self.lasting.map(|lasting| now.unix + lasting),
                ..Principal::default()
            }),
        };
        match self.turns.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Authentication::Ready(verdict),
            _ => Authentication::Pending(Box::pin(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                verdict
            })),
        }
    }
}

/// A gateway that runs in this process, before a service that answers everything.
struct Embedded {
    address: SocketAddr,
    control: Arc<Control>,
    knower: Arc<Knower>,
    _service: Service,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    fn start(lasting: Option<Duration>) -> Self {
        let service = Service::saying(answer("200 OK", "text/plain", "ok"));
        let knower = Arc::new(Knower { asked: Mutex::default(), lasting, turns: AtomicUsize::new(0) });
        let text = format!(
            "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://{}'\nauthn = ['knower']\n\
             policies = ['acl']\n{ACL}",
            service.address()
        );
        let builder = Gateway::builder().authenticator(Arc::clone(&knower) as _);
        let (stop, stopped) = oneshot::channel();
        let (started, running) = channel();
        let thread = thread::spawn(move || {
            let files = Files::new(&[("mgate.toml", &text), ("acl.toml", EVERYTHING)]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gateway = builder.start(&files.path("mgate.toml")).unwrap();
                started.send((gateway.listening()[0].address, Arc::clone(gateway.control()))).unwrap();
                let _ = stopped.await;
                gateway.stop().await;
            });
        });
        let (address, control) = running.recv().unwrap();
        Self { address, control, knower, _service: service, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const EVERYTHING: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/#']
";
