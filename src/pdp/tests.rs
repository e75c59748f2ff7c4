use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, atomic::AtomicUsize, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use mgate_policies::{
    BoxFuture, Cause, Client, Grant, Principal, Protocol, Resource, TopicFilter, TopicName,
};
use mgate_proxy::transport::Authorities;
use serde_json::Value;
use tokio::task::yield_now;
use tokio::time;

use super::*;
use crate::grpc_service::{self, GrpcService, Reply};
use crate::neighbour::grpc::{Code, GrpcClient, GrpcOptions, parse_target};
use crate::neighbour::http::{HttpClient, HttpOptions};
use crate::service::{Heard, Service, answer, json};

#[tokio::test]
async fn answer_decides() {
    let service = Service::start(|heard, tcp| say_whether(tcp, heard.body.contains("\"open\"")));
    let pdp = pdp(&service);
    assert!(is_allowed(&decide(&pdp, &publish(&client(), "open")).await));
    let Decision::Deny(reason) = decide(&pdp, &publish(&client(), "closed")).await else {
        panic!("it says no")
    };
    assert_eq!(
        (reason.cause, reason.detail.as_deref()),
        (Cause::NotAuthorized, Some("auth: the service says no"))
    );
}

#[tokio::test]
async fn whatever_goes_wrong_is_a_denial_in_time() {
    let wrongs: [(&str, Say); 12] = [
        ("no JSON", |tcp| tcp.write_all(&json("<html>"))),
        ("no decision", |tcp| tcp.write_all(&json("{}"))),
        ("content type", |tcp| tcp.write_all(&answer("200 OK", "text/html", ALLOW))),
        ("redirect", |tcp| tcp.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")),
        ("our fault", |tcp| tcp.write_all(&answer("401 Unauthorized", "application/json", ALLOW))),
        ("its fault", |tcp| tcp.write_all(&answer("500 Oh no", "application/json", ALLOW))),
        ("empty", |tcp| tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")),
        ("too much", |tcp| tcp.write_all(&json(&format!("{ALLOW}{}", " ".repeat(5000))))),
        ("half", |tcp| tcp.write_all(&json(ALLOW)[..80]).and_then(|()| close())),
        ("nothing", |_| close()),
        ("silence", |_| Ok(())),
        ("drip", |tcp| {
            for byte in json(ALLOW).iter().cycle() {
                tcp.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(20));
            }
            close()
        }),
    ];
    for (what, say) in wrongs {
        let service = Service::start(move |_, tcp| say(tcp));
        let pdp = Pdp::new(PdpOptions { timeout: SHORT, ..options(&service.url("/")) });
        let decision = time::timeout(SHORT * 20, decide(&pdp, &publish(&client(), "a"))).await;
        let Ok(Decision::Deny(reason)) = decision else { panic!("{what}: {decision:?}") };
        assert_eq!(reason.cause, Cause::Unavailable, "{what}");
        assert!(!service.heard().is_empty(), "{what}");
        // the request has ended too, and makes room
        let ended = async {
            while pdp.counts().errors == 0 {
                yield_now().await;
            }
        };
        assert!(time::timeout(SHORT * 5, ended).await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_denial_at_once() {
    let address = unused_address();
    for url in [format!("http://{address}/"), format!("https://{address}/")] {
        let pdp = Pdp::new(options(&url));
        assert_eq!(cause(&decide(&pdp, &publish(&client(), "a")).await), Some(Cause::Unavailable));
    }
    let plain = Service::saying(json(ALLOW));
    let pdp = Pdp::new(options(&plain.url("/").replace("http:", "https:")));
    assert_eq!(cause(&decide(&pdp, &publish(&client(), "a")).await), Some(Cause::Unavailable));
    assert_eq!(plain.heard().len(), 0);
}

#[tokio::test]
async fn thousand_questions_alike_are_one_request() {
    let (service, gate) = gated(ALLOW);
    let pdp = pdp(&service);
    let pending: Vec<_> = (0..1000).map(|_| tokio::spawn(later(&pdp, &publish(&client(), "a")))).collect();
    while pdp.counts().misses < 1000 {
        yield_now().await;
    }
    gate.send(()).unwrap();
    for decision in pending {
        assert!(is_allowed(&decision.await.unwrap()));
    }
    assert_eq!(service.heard().len(), 1);
}

#[tokio::test]
async fn answer_that_came_meanwhile_is_not_asked_for() {
    let service = Service::saying(json(ALLOW));
    let (pdp, client) = (pdp(&service), client());
    let [first, second] = [(); 2].map(|()| later(&pdp, &publish(&client, "a")));
    assert!(is_allowed(&first.await) && is_allowed(&second.await));
    assert_eq!(service.heard().len(), 1);
}

#[tokio::test]
async fn client_that_leaves_takes_no_answer_along() {
    let (service, gate) = gated(ALLOW);
    let pdp = pdp(&service);
    let leaving = tokio::spawn(later(&pdp, &publish(&client(), "a")));
    while pdp.counts().misses < 1 {
        yield_now().await;
    }
    leaving.abort();
    assert!(leaving.await.is_err());
    gate.send(()).unwrap();
    assert!(is_allowed(&decide(&pdp, &publish(&client(), "a")).await));
    assert_eq!(service.heard().len(), 1);
}

#[tokio::test]
async fn one_more_than_may_wait_is_denied() {
    let (service, _gate) = gated(ALLOW);
    let concurrency = NonZeroU16::MIN;
    let pdp = Pdp::new(PdpOptions { concurrency, ..options(&service.url("/")) });
    let waiting: Vec<_> =
        (0..17).map(|number| tokio::spawn(later(&pdp, &publish(&client(), &number.to_string())))).collect();
    while pdp.counts().misses < 17 {
        yield_now().await;
    }
    let Decision::Deny(reason) = decide(&pdp, &publish(&client(), "one more")).await else {
        panic!("it waits")
    };
    assert_eq!(reason.cause, Cause::Unavailable);
    assert_eq!(reason.detail.as_deref(), Some("auth: too many questions wait for the service"));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
}

#[tokio::test]
async fn answer_is_remembered_for_its_time() {
    for (body, secs) in [(ALLOW, 10), (r#"{"decision":true,"context":{"ttl":3}}"#, 3), (DENY, 5)] {
        let service = Service::saying(json(body));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        let query = publish(&client, "a");
        let first = decide_at(&pdp, &query, now).await;
        let just = now.later(Duration::from_secs(secs) * 9 / 10 - Duration::from_millis(1));
        let Answer::Ready(remembered) = pdp.evaluate(&query, just) else { panic!("it is remembered") };
        assert_eq!(is_allowed(&remembered), is_allowed(&first));
        let ended = now.later(Duration::from_secs(secs));
        assert!(matches!(pdp.evaluate(&query, ended), Answer::Pending(_)));
    }
}

#[tokio::test]
async fn grant_says_how_long_it_is_still_good() {
    let service = Service::saying(json(r#"{"decision":true,"context":{"ttl":30}}"#));
    let (pdp, now) = (pdp(&service), Now::read());
    let principal = Principal { expires: Some(now.unix + Duration::from_secs(20)), ..Principal::default() };
    let (unlimited, ending) = (client(), Client { principal, client_id: "dev-2".into(), ..client() });
    for (client, ttl_secs) in [(&unlimited, 30), (&ending, 20)] {
        let query = publish(client, "a");
        let first = grant(decide_at(&pdp, &query, now).await).ttl.unwrap();
        let later = grant(decide_at(&pdp, &query, now.later(Duration::from_secs(10))).await).ttl.unwrap();
        let most = Duration::from_secs(ttl_secs);
        assert!(first <= most && first > most * 8 / 10, "{first:?}");
        assert!(
            later <= most - Duration::from_secs(10) && later > most * 8 / 10 - Duration::from_secs(10),
            "{later:?}"
        );
    }
}

#[tokio::test]
async fn what_differs_is_asked_anew() {
    let service = Service::saying(json(ALLOW));
    let (pdp, client) = (pdp(&service), client());
    let query = publish(&client, "a");
    let other = Client { client_id: "dev-2".into(), ..client.clone() };
    let from_elsewhere = Client { peer: SocketAddr::from(([10, 0, 0, 8], 1)), ..client.clone() };
    let other_port = Client { peer: SocketAddr::from(([10, 0, 0, 7], 9)), ..client.clone() };
    for (query, requests) in [
        (query, 1),
        (Query { payload: b"another", ..query }, 1),
        (Query { client: &other_port, ..query }, 1),
        (Query { qos: 1, ..query }, 2),
        (Query { retain: true, ..query }, 3),
        (Query { action: Action::Will, ..query }, 4),
        (Query { client: &other, ..query }, 5),
        (Query { client: &from_elsewhere, ..query }, 6),
        (publish(&client, "b"), 7),
        (query, 7),
    ] {
        decide(&pdp, &query).await;
        assert_eq!(service.heard().len(), requests);
    }
}

#[tokio::test]
async fn qos_and_retain_count_even_where_a_dialect_has_no_word_for_them() {
    let service = Service::saying(json(ALLOW));
    let pdp = Pdp::new(PdpOptions { dialect: Box::new(Mute(service.url("/"))), ..options("http://pdp/") });
    let client = client();
    for (qos, retain, requests) in [(0, false, 1), (1, false, 2), (1, true, 3), (0, false, 3)] {
        decide(&pdp, &Query { qos, retain, ..publish(&client, "a") }).await;
        assert_eq!(service.heard().len(), requests);
    }
}

#[tokio::test]
async fn errors_are_not_remembered() {
    let service = turns([answer("403 Forbidden", "application/json", "{}"), json(ALLOW)]);
    let pdp = pdp(&service);
    assert_eq!(cause(&decide(&pdp, &publish(&client(), "a")).await), Some(Cause::Unavailable));
    assert!(is_allowed(&decide(&pdp, &publish(&client(), "a")).await));
}

#[tokio::test]
async fn connection_that_broke_is_tried_once_more_and_no_more() {
    let count = AtomicUsize::new(0);
    let first_breaks = Service::start(move |_, tcp| match count.fetch_add(1, Ordering::SeqCst) {
        0 => close(),
        _ => tcp.write_all(&json(ALLOW)),
    });
    assert!(is_allowed(&decide(&pdp(&first_breaks), &publish(&client(), "a")).await));
    let breaks = Service::start(|_, _| close());
    assert_eq!(cause(&decide(&pdp(&breaks), &publish(&client(), "a")).await), Some(Cause::Unavailable));
    assert_eq!((first_breaks.heard().len(), breaks.heard().len()), (2, 2));
}

#[tokio::test]
async fn withdrawn_rights_are_asked_about_again() {
    let service = turns([json(ALLOW), json(DENY), json(ALLOW), json(DENY)]);
    let pdp = pdp(&service);
    let client = client();
    let query = publish(&client, "a");
    assert!(is_allowed(&decide(&pdp, &query).await));
    pdp.forget(&principal("somebody else"));
    assert!(is_allowed(&decide(&pdp, &query).await));
    pdp.forget(&principal("dev-1"));
    assert!(!is_allowed(&decide(&pdp, &query).await));
    pdp.forget(&Scope::Everyone);
    assert!(is_allowed(&decide(&pdp, &query).await));
    pdp.forget(&Scope::Everyone);
    assert!(!is_allowed(&decide(&pdp, &query).await));
}

#[tokio::test]
async fn answer_that_comes_after_rights_were_withdrawn_counts_for_nothing() {
    let (open, opened) = channel();
    let (opened, allows) = (Mutex::new(opened), AtomicUsize::new(0));
    let service = Service::start(move |_, tcp| {
        opened.lock().unwrap().recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        say_whether(tcp, allows.fetch_add(1, Ordering::SeqCst) == 0)
    });
    let pdp = pdp(&service);
    let pending = tokio::spawn(later(&pdp, &publish(&client(), "a")));
    while service.heard().is_empty() {
        yield_now().await;
    }
    pdp.forget(&Scope::Everyone);
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(cause(&pending.await.unwrap()), Some(Cause::NotAuthorized));
    assert_eq!((service.heard().len(), pdp.counts().outdated), (2, 1));
}

#[tokio::test]
async fn service_that_does_not_answer_is_left_alone_until_it_does() {
    let is_back = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let service = Service::start(move |_, tcp| match back.load(Ordering::SeqCst) {
        true => tcp.write_all(&json(ALLOW)),
        false => tcp.write_all(&answer("503 Busy", "text/plain", "")),
    });
    let (pdp, now, client) = (pdp(&service), Now::read(), client());
    let query = publish(&client, "a");
    for failures in 1..=5 {
        assert_eq!(cause(&decide_at(&pdp, &query, now).await), Some(Cause::Unavailable));
        assert_eq!(service.heard().len(), failures);
    }
    is_back.store(true, Ordering::SeqCst);
    let Decision::Deny(reason) = decide_at(&pdp, &query, now).await else { panic!("it is left alone") };
    assert_eq!(reason.detail.as_deref(), Some("auth: the service did not answer lately"));
    assert_eq!(service.heard().len(), 5);
    for topic in ["a", "b"] {
        let later = now.later(Duration::from_secs(3));
        assert!(is_allowed(&decide_at(&pdp, &publish(&client, topic), later).await));
    }
    assert_eq!(service.heard().len(), 7);
}

#[tokio::test]
async fn odd_questions_do_not_make_the_service_look_dead() {
    let service = Service::start(|heard, tcp| match asked_about(heard).as_str() {
        "publish odd" => tcp.write_all(&answer("400 Bad Request", "text/plain", "")),
        "publish unclear" => tcp.write_all(&json("{}")),
        _ => tcp.write_all(&json(ALLOW)),
    });
    let (pdp, client) = (pdp(&service), client());
    for topic in [["odd"; 8], ["unclear"; 8]].concat() {
        assert_eq!(cause(&decide(&pdp, &publish(&client, topic)).await), Some(Cause::Unavailable));
    }
    assert!(is_allowed(&decide(&pdp, &publish(&client, "a")).await));
}

#[tokio::test]
async fn remembered_allow_outlives_the_service_until_its_end() {
    for (grace_secs, good_secs) in [(0, 10), (30, 40)] {
        let service = Service::saying(json(ALLOW));
        let grace = Duration::from_secs(grace_secs);
        let cache = CacheOptions { grace, ..CacheOptions::default() };
        let pdp = Pdp::new(PdpOptions { cache, ..options(&service.url("/")) });
        let (now, client) = (Now::read(), client());
        let query = publish(&client, "a");
        assert!(is_allowed(&decide_at(&pdp, &query, now).await));
        stop(service);
        let just = now.later(Duration::from_secs(good_secs) - Duration::from_millis(1001));
        assert!(is_allowed(&decide_at(&pdp, &query, just).await));
        let ended = now.later(Duration::from_secs(good_secs));
        assert_eq!(cause(&decide_at(&pdp, &query, ended).await), Some(Cause::Unavailable));
        assert_eq!(pdp.counts().stale, u64::from(grace_secs > 0));
    }
}

#[tokio::test]
async fn grace_is_for_a_service_that_is_silent_too() {
    let service = silent_after(1);
    let cache = CacheOptions { grace: Duration::from_secs(30), ..CacheOptions::default() };
    let pdp = Pdp::new(PdpOptions { cache, timeout: SHORT, ..options(&service.url("/")) });
    let (now, client) = (Now::read(), client());
    let query = publish(&client, "a");
    assert!(is_allowed(&decide_at(&pdp, &query, now).await));
    let stale = decide_at(&pdp, &query, now.later(Duration::from_secs(11))).await;
    assert_eq!(grant(stale).by.as_deref(), Some("auth, while its service is away"));
}

#[tokio::test]
async fn others_decide_where_a_service_is_silent() {
    let service = silent_after(0);
    let abstaining = PdpOptions { on_error: OnError::Abstain, timeout: SHORT, ..options(&service.url("/")) };
    assert_eq!(decide(&Pdp::new(abstaining), &publish(&client(), "a")).await, Decision::Abstain);
}

#[tokio::test]
async fn second_try_has_no_time_of_its_own() {
    let service = silent_after(0);
    let pdp = Pdp::new(PdpOptions { timeout: LONGER, ..options(&service.url("/")) });
    let asked = time::Instant::now();
    let pending = tokio::spawn(later(&pdp, &publish(&client(), "a")));
    while service.heard().is_empty() {
        yield_now().await;
    }
    pdp.forget(&Scope::Everyone);
    assert_eq!(cause(&pending.await.unwrap()), Some(Cause::Unavailable));
    assert!(asked.elapsed() < LONGER * 2);
}

#[tokio::test]
async fn grace_ends_with_withdrawn_rights() {
    let service = Service::saying(json(ALLOW));
    let cache = CacheOptions { grace: Duration::from_secs(30), ..CacheOptions::default() };
    let pdp = Pdp::new(PdpOptions { cache, ..options(&service.url("/")) });
    assert!(is_allowed(&decide(&pdp, &publish(&client(), "a")).await));
    stop(service);
    pdp.forget(&principal("dev-1"));
    assert_eq!(cause(&decide(&pdp, &publish(&client(), "a")).await), Some(Cause::Unavailable));
}

#[tokio::test]
async fn allow_that_is_used_is_refreshed_before_its_end() {
    let service = turns([json(ALLOW), json(DENY)]);
    let (pdp, now, client) = (pdp(&service), Now::read(), client());
    let query = publish(&client, "a");
    decide_at(&pdp, &query, now).await;
    let Answer::Ready(early) = pdp.evaluate(&query, now.later(Duration::from_secs(7))) else {
        panic!("it is good")
    };
    assert!(is_allowed(&early));
    assert_eq!(service.heard().len(), 1);
    let late = now.later(Duration::from_millis(8_900));
    while matches!(pdp.evaluate(&query, late), Answer::Ready(Decision::Allow(_))) {
        yield_now().await;
    }
    let Answer::Ready(decision) = pdp.evaluate(&query, late) else { panic!("the new answer is remembered") };
    assert_eq!(cause(&decision), Some(Cause::NotAuthorized));
    assert_eq!(service.heard().len(), 2);
}

#[tokio::test]
async fn others_decide_while_the_service_is_away_where_that_is_wanted() {
    let address = unused_address();
    let away = format!("http://{address}/");
    for (on_error, abstains) in [(OnError::Deny, false), (OnError::Abstain, true)] {
        let pdp = Pdp::new(PdpOptions { on_error, ..options(&away) });
        let decision = decide(&pdp, &publish(&client(), "a")).await;
        assert_eq!(matches!(decision, Decision::Abstain), abstains, "{decision:?}");
        for odd in [json("{}"), answer("403 Forbidden", "application/json", ALLOW)] {
            let service = Service::saying(odd);
            let pdp = Pdp::new(PdpOptions { on_error, ..options(&service.url("/")) });
            assert_eq!(cause(&decide(&pdp, &publish(&client(), "a")).await), Some(Cause::Unavailable));
        }
    }
}

#[tokio::test]
async fn others_let_nobody_in_while_the_service_is_away() {
    let (silent, away) = (silent_after(0), format!("http://{}/", unused_address()));
    for url in [silent.url("/"), away] {
        for session_terms in [false, true] {
            let on_error = OnError::Abstain;
            let pdp = Pdp::new(PdpOptions { on_error, session_terms, timeout: SHORT, ..options(&url) });
            let client = client();
            let connect = query(&client, Action::Connect, Resource::Session);
            assert_eq!(cause(&decide(&pdp, &connect).await), Some(Cause::Unavailable));
            assert_eq!(decide(&pdp, &publish(&client, "a")).await, Decision::Abstain);
        }
    }
}

#[tokio::test]
async fn terms_for_a_session_that_is_left_to_others_are_no_answer() {
    let service = Service::saying(json(r#"{"decision":true,"context":{"mgate":{"topic_prefix":"acme/"}}}"#));
    let dialect = Box::new(Undecided(Authzen::new(service.url("/").parse().unwrap())));
    let (pdp, client) = (Pdp::new(PdpOptions { dialect, ..options(&service.url("/")) }), client());
    for _ in 0..2 {
        let connect = query(&client, Action::Connect, Resource::Session);
        assert_eq!(cause(&decide(&pdp, &connect).await), Some(Cause::Unavailable));
        assert_eq!(decide(&pdp, &publish(&client, "a")).await, Decision::Abstain);
    }
}

#[tokio::test]
async fn questions_over_grpc_are_one_request_and_remembered() {
    let (decide, decided) = channel::<()>();
    let decided = Mutex::new(decided);
    let service = GrpcService::start(move |_| {
        let _ = decided.lock().unwrap().recv();
        Reply::Message(b"\x08\x01".to_vec())
    });
    let pdp = over_grpc(&service.url(), Duration::from_secs(5));
    let pending: Vec<_> = (0..1000).map(|_| tokio::spawn(later(&pdp, &publish(&client(), "a")))).collect();
    while pdp.counts().misses < 1000 {
        yield_now().await;
    }
    decide.send(()).unwrap();
    for decision in pending {
        assert!(is_allowed(&decision.await.unwrap()));
    }
    assert!(matches!(pdp.evaluate(&publish(&client(), "a"), Now::read()), Answer::Ready(_)));
    assert_eq!(service.heard().len(), 1);
}

#[tokio::test]
async fn whatever_goes_wrong_over_grpc_is_a_denial_in_time() {
    let allow = grpc_service::framed(b"\x08\x01");
    for reply in [
        Reply::Raw(allow.clone(), None),
        Reply::Raw(allow[..6].to_vec(), Some(0)),
        Reply::Raw(allow, Some(14)),
        Reply::Message(b"\x08".to_vec()),
        Reply::Message(b"\x0a\x01\x01".to_vec()),
        Reply::Message([b"\x08\x01\x1a\x80\x40".as_slice(), &[b' '; 8192]].concat()),
        Reply::Status(0),
        Reply::Status(7),
        Reply::Http(200),
        Reply::Reset,
        Reply::Silence,
        Reply::Drip,
    ] {
        let said = reply.clone();
        let service = GrpcService::start(move |_| said.clone());
        let pdp = over_grpc(&service.url(), SHORT);
        let decision = time::timeout(SHORT * 20, decide(&pdp, &publish(&client(), "a"))).await;
        assert_eq!(cause(&decision.unwrap()), Some(Cause::Unavailable), "{reply:?}");
        assert!(!service.heard().is_empty(), "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_not_asked_about_is_left_to_others() {
    let service = Service::saying(json(ALLOW));
    let pdp = Pdp::new(PdpOptions { actions: vec![Action::Publish], ..options(&service.url("/")) });
    let client = client();
    let topic = Resource::Topic(TopicName::parse("a").unwrap());
    for (action, resource) in [
        (Action::Connect, Resource::Session),
        (Action::Will, topic),
        (Action::Deliver, topic),
        (Action::Subscribe, Resource::Filter(TopicFilter::parse("a").unwrap())),
    ] {
        assert_eq!(decide(&pdp, &query(&client, action, resource)).await, Decision::Abstain);
    }
    assert_eq!(service.heard().len(), 0);
    assert!(is_allowed(&decide(&pdp, &publish(&client, "a")).await));
}

#[tokio::test]
async fn delivery_is_judged_by_the_subscriptions_that_it_reaches() {
    let service = Service::start(|heard, tcp| say_whether(tcp, heard.body.contains(r##""id":"a/#""##)));
    let (pdp, client) = (pdp(&service), client());
    assert!(is_allowed(&decide(&pdp, &subscribe(&client, "a/#")).await));
    assert!(!is_allowed(&decide(&pdp, &subscribe(&client, "b/#")).await));
    for topic in ["a/1", "a/2", "a"] {
        let Answer::Ready(decision) = pdp.evaluate(&deliver(&client, topic), Now::read()) else {
            panic!("known")
        };
        assert!(is_allowed(&decision), "{topic}");
    }
    assert!(!is_allowed(&decide(&pdp, &deliver(&client, "b/1")).await));
    let asked: Vec<_> = service.heard().iter().map(asked_about).collect();
    assert_eq!(asked, ["subscribe a/#", "subscribe b/#", "subscribe b/1"]);
}

#[tokio::test]
async fn delivery_is_asked_about_again_when_the_subscription_ends() {
    let service = turns([json(ALLOW), json(DENY)]);
    let (pdp, client, now) = (pdp(&service), client(), Now::read());
    decide_at(&pdp, &subscribe(&client, "$share/g/a/#"), now).await;
    let later = now.later(Duration::from_secs(11));
    assert_eq!(cause(&decide_at(&pdp, &deliver(&client, "a/1"), later).await), Some(Cause::NotAuthorized));
    let asked: Vec<_> = service.heard().iter().map(asked_about).collect();
    assert_eq!(asked, ["subscribe a/#", "subscribe a/#"]);
}

#[tokio::test]
async fn one_subscription_that_is_allowed_is_enough_for_a_delivery() {
    let service = Service::start(|heard, tcp| say_whether(tcp, heard.body.contains(r##""id":"a/#""##)));
    let first_withdrawn = turns([json(ALLOW), json(ALLOW), json(DENY), json(ALLOW)]);
    let second_withdrawn = turns([json(ALLOW), json(ALLOW), json(ALLOW), json(DENY)]);
    for (service, asked) in [(service, 3), (first_withdrawn, 4), (second_withdrawn, 3)] {
        let (pdp, client, now) = (pdp(&service), client(), Now::read());
        for filter in ["a/#", "a/+"] {
            decide_at(&pdp, &subscribe(&client, filter), now).await;
        }
        let later = now.later(Duration::from_secs(11));
        assert!(is_allowed(&decide_at(&pdp, &deliver(&client, "a/1"), later).await));
        assert_eq!(service.heard().len(), asked);
    }
}

#[tokio::test]
async fn delivery_of_a_topic_that_looks_like_a_shared_filter_is_denied() {
    let service = Service::saying(json(ALLOW));
    let decision = decide(&pdp(&service), &deliver(&client(), "$share/g/a")).await;
    assert_eq!(cause(&decision), Some(Cause::NotAuthorized));
    assert_eq!(service.heard().len(), 0);
}

#[tokio::test]
async fn delivery_is_asked_about_itself_where_that_is_wanted() {
    let service = Service::saying(json(ALLOW));
    let pdp = Pdp::new(PdpOptions { actions: ALL_ACTIONS.to_vec(), ..options(&service.url("/")) });
    assert!(is_allowed(&decide(&pdp, &deliver(&client(), "a/1")).await));
    assert_eq!(asked_about(&service.heard()[0]), "deliver a/1");
}

#[tokio::test]
async fn headers_go_along() {
    let service = Service::saying(json(ALLOW));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
    let mut options = options(&service.url("/"));
    if let Transport::Http(_, given) = &mut options.transport {
        *given = headers;
    }
    let pdp = Pdp::new(options);
    assert!(is_allowed(&decide(&pdp, &publish(&client(), "a")).await));
    assert!(service.heard()[0].headers.contains("authorization: bearer hunter2\r\n"));
}

/// A service that says what it knows, and leaves it to others.
struct Undecided(Authzen);

impl Dialect for Undecided {
    fn actions(&self) -> &'static [Action] {
        ALL_ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        self.0.request(query)
    }

    fn read(&self, asked: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        Ok(Answered { verdict: Verdict::Abstain, ..self.0.read(asked, answer)? })
    }
}

/// A dialect whose questions are all the same.
struct Mute(String);

impl Dialect for Mute {
    fn actions(&self) -> &'static [Action] {
        ALL_ACTIONS
    }

    fn request(&self, _: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        Ok(Request::get(&self.0).body(Bytes::new()).unwrap())
    }

    fn read(&self, _: &Request<Bytes>, _: &Response<Bytes>) -> Result<Answered, AnswerError> {
        Ok(Verdict::Allow.into())
    }
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Abstain,
    /// With its lifetime in seconds.
    Allow(Option<u64>),
    Deny,
    Error,
}

/// What a dialect makes of an answer to the question whether `client` may publish to `a/b`.
pub(super) fn read(dialect: &dyn Dialect, status: u16, body: &str) -> Reading {
    read_of(dialect, &publish(&client(), "a/b"), "application/json", status, body)
}

pub(super) fn read_of(
    dialect: &dyn Dialect,
    query: &Query<'_>,
    content_type: &str,
    status: u16,
    body: &str,
) -> Reading {
    let asked = dialect.request(query).unwrap();
    let answer = Response::builder().status(status).header("content-type", content_type);
    meaning(&dialect.read(&asked, &answer.body(body.to_owned().into()).unwrap()))
}

/// What a dialect of gRPC makes of an answer, whatever was asked.
pub(super) fn reading(dialect: &dyn Dialect, answer: &Response<Bytes>) -> Reading {
    meaning(&dialect.read(&Request::default(), answer))
}

/// The answer of a method.
pub(super) fn said(message: &[u8]) -> Response<Bytes> {
    Response::new(Bytes::copy_from_slice(message))
}

/// The answer where a call ended with a status.
pub(super) fn refused(code: Code) -> Response<Bytes> {
    grpc::answer_of(code, "as the test wants".into())
}

pub(super) fn meaning(read: &Result<Answered, AnswerError>) -> Reading {
    match read {
        Ok(Answered { verdict: Verdict::Allow, ttl, .. }) => Reading::Allow(ttl.map(|ttl| ttl.as_secs())),
        Ok(Answered { verdict: Verdict::Deny, .. }) => Reading::Deny,
        Ok(Answered { verdict: Verdict::Abstain, .. }) => Reading::Abstain,
        Err(_) => Reading::Error,
    }
}

pub(super) fn body_of(request: &Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap()
}

pub(super) fn client() -> Client {
    Client {
        principal: Principal { id: "dev-1".into(), ..Principal::default() },
        client_id: "dev-1".into(),
        username: None,
        peer: SocketAddr::from(([10, 0, 0, 7], 50_000)),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

pub(super) fn query<'a>(client: &'a Client, action: Action, resource: Resource<'a>) -> Query<'a> {
    Query { client, action, resource, payload: b"payload", qos: 0, retain: false }
}

pub(super) fn publish<'a>(client: &'a Client, topic: &'a str) -> Query<'a> {
    query(client, Action::Publish, Resource::Topic(TopicName::parse(topic).unwrap()))
}

pub(super) fn subscribe<'a>(client: &'a Client, filter: &'a str) -> Query<'a> {
    query(client, Action::Subscribe, Resource::Filter(TopicFilter::parse(filter).unwrap()))
}

pub(super) fn deliver<'a>(client: &'a Client, topic: &'a str) -> Query<'a> {
    query(client, Action::Deliver, Resource::Topic(TopicName::parse(topic).unwrap()))
}

type Say = fn(&mut TcpStream) -> io::Result<()>;

fn say_whether(tcp: &mut TcpStream, is_allowed: bool) -> io::Result<()> {
    tcp.write_all(&json(if is_allowed { ALLOW } else { DENY }))
}

/// Says one after the other.
pub(super) fn turns<const N: usize>(answers: [Vec<u8>; N]) -> Service {
    let turn = AtomicUsize::new(0);
    Service::start(move |_, tcp| tcp.write_all(&answers[turn.fetch_add(1, Ordering::SeqCst)]))
}

/// Allows so often, and says nothing from then on.
fn silent_after(answers: usize) -> Service {
    let turn = AtomicUsize::new(0);
    Service::start(move |_, tcp| match turn.fetch_add(1, Ordering::SeqCst) < answers {
        true => tcp.write_all(&json(ALLOW)),
        false => Ok(()),
    })
}

/// Answers once for each time that the gate is opened.
fn gated(body: &'static str) -> (Service, Sender<()>) {
    let (open, opened) = channel();
    let opened = Mutex::new(opened);
    let service = Service::start(move |_, tcp| {
        opened.lock().unwrap().recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        tcp.write_all(&json(body))
    });
    (service, open)
}

fn close() -> io::Result<()> {
    Err(ErrorKind::ConnectionAborted.into())
}

/// Ends a service, so that nobody listens there any longer.
pub(super) fn stop(service: Service) {
    let address = service.address();
    drop(service);
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
}

pub(super) fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Action and resource in the words of the service.
pub(super) fn asked_about(heard: &Heard) -> String {
    let body: Value = serde_json::from_str(&heard.body).unwrap();
    let words = [&body["action"]["name"], &body["resource"]["id"]];
    words.map(|word| word.as_str().unwrap()).join(" ")
}

pub(super) async fn decide(pdp: &Pdp, query: &Query<'_>) -> Decision {
    decide_at(pdp, query, Now::read()).await
}

pub(super) async fn decide_at(pdp: &Pdp, query: &Query<'_>, now: Now) -> Decision {
    match pdp.evaluate(query, now) {
        Answer::Ready(decision) => decision,
        Answer::Pending(decision) => decision.await,
    }
}

/// A decision that takes time.
fn later(pdp: &Pdp, query: &Query<'_>) -> BoxFuture<'static, Decision> {
    match pdp.evaluate(query, Now::read()) {
        Answer::Ready(decision) => panic!("{decision:?} is ready"),
        Answer::Pending(decision) => decision,
    }
}

pub(super) fn is_allowed(decision: &Decision) -> bool {
    matches!(decision, Decision::Allow(_))
}

pub(super) fn grant(decision: Decision) -> Grant {
    match decision {
        Decision::Allow(grant) => grant,
        other => panic!("{other:?} is no allow"),
    }
}

pub(super) fn cause(decision: &Decision) -> Option<Cause> {
    match decision {
        Decision::Deny(reason) => Some(reason.cause),
        _ => None,
    }
}

fn principal(id: &str) -> Scope {
    Scope::Principal { tenant: Some("".into()), id: id.into() }
}

fn pdp(service: &Service) -> Pdp {
    Pdp::new(options(&service.url("/")))
}

/// Asks `broker.auth.v1`.
fn over_grpc(url: &str, timeout: Duration) -> Pdp {
    let client = GrpcClient::new(GrpcOptions {
        target: parse_target(url).unwrap(),
        ca: Some(Authorities::none()),
        identity: None,
        metadata: HeaderMap::new(),
        max_message_bytes: 4096,
    });
    let dialect = Box::new(BrokerAuthGrpc::CURRENT);
    let transport = Transport::Grpc(client.unwrap());
    Pdp::new(PdpOptions { dialect, transport, timeout, ..options("http://unused/") })
}

pub(super) fn options(url: &str) -> PdpOptions {
    let timeout = Duration::from_secs(5);
    let http = HttpOptions { ca: Some(Authorities::none()), identity: None, timeout, max_body_bytes: 4096 };
    PdpOptions {
        name: "auth".into(),
        dialect: Box::new(Authzen::new(url.parse().unwrap())),
        transport: Transport::Http(HttpClient::new(http).unwrap(), HeaderMap::new()),
        timeout,
        concurrency: NonZeroU16::new(64).unwrap(),
        actions: vec![Action::Connect, Action::Publish, Action::Subscribe, Action::Will],
        session_terms: false,
        on_error: OnError::default(),
        cache: CacheOptions::default(),
        withdrawals: Withdrawals::default(),
    }
}

/// Time for a decision that will not come.
pub(super) const SHORT: Duration = Duration::from_millis(200);
/// Long enough to see whether it was waited for twice.
const LONGER: Duration = Duration::from_secs(1);
pub(super) const ALLOW: &str = r#"{"decision":true}"#;
pub(super) const DENY: &str = r#"{"decision":false}"#;
