//! What operators and their programs can ask of the admin listener, and who else cannot.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::broker::free_port;
use support::{ALLOW_ALL, Files, Mgate, config};

#[test]
fn it_says_how_the_gateway_is() {
    let (_files, mgate) = start("");
    let admin = mgate.admin();
    assert_eq!(admin.get("/livez"), (200, serde_json::json!({ "alive": true })));
    assert_eq!(admin.get("/readyz"), (200, serde_json::json!({ "ready": true })));
    let (status, health) = admin.get("/healthz");
    assert_eq!((status, health["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    assert_eq!(health["parts"][0]["name"], "gateway");
    let route = &health["routes"][0];
    assert_eq!((&route["name"], &route["connections"]), (&"devices".into(), &0.into()));
    assert_eq!(route["policies"][0]["name"], "acl");
    assert!(health["last_reload"].is_null());
}

#[test]
fn what_there_is_not_is_said_in_problems() {
    let (_files, mgate) = start("");
    let admin = mgate.admin();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/reload", 405),
        ("PUT", "/authz/invalidate", 405),
        ("POST", "/livez", 405),
        ("DELETE", "/readyz", 405),
    ] {
        let (came, problem) = admin.send(method, path, "Content-Type: application/json\r\n", "");
        assert_eq!((came, &problem["status"]), (status, &status.into()), "{method} {path}");
        assert!(problem["detail"].is_string() && problem["title"].is_string());
    }
    let answer = admin.exchange(b"GET /reload HTTP/1.1\r\nHost: localhost\r\n\r\n").to_lowercase();
    assert!(answer.contains("allow: post") && answer.contains("content-type: application/problem+json"));
}

#[test]
fn commands_are_read_strictly() {
    let (_files, mgate) = start("");
    let admin = mgate.admin();
    for (body, status) in [
        ("{\"principle\":\"a\"}", 400),
        ("[]", 400),
        ("{", 400),
        (&" ".repeat(64 * 1024 + 1), 413),
        ("{}", 200),
    ] {
        assert_eq!(admin.post("/authz/invalidate", body).0, status, "{body}");
    }
    assert_eq!(admin.post("/reload", "{\"force\":true}").0, 400);
}

#[test]
fn page_of_another_site_cannot_command() {
    let (_files, mgate) = start("");
    let admin = mgate.admin();
    let form = "Content-Type: text/plain\r\n";
    assert_eq!(admin.send("POST", "/authz/invalidate", form, "{}").0, 415);
    assert_eq!(admin.send("POST", "/authz/invalidate", "", "{}").0, 415);
    assert_eq!(admin.with("Origin: http://evil.example").post("/authz/invalidate", "{}").0, 403);
    assert_eq!(admin.called("evil.example").post("/authz/invalidate", "{}").0, 403);
    assert_eq!(admin.called("evil.example").get("/healthz").0, 403);
    let own = admin.with(&format!("Origin: http://{}", admin.address));
    assert_eq!(own.post("/authz/invalidate", "{}").0, 200);
    mgate.log.wait_for("rights changed");
    assert_eq!(mgate.log.count("rights changed"), 1);
}

#[test]
fn whoever_does_not_show_the_token_learns_no_more_than_whether_it_is_ready() {
    let (files, mgate) = start("token_file = 'token'");
    let admin = mgate.admin();
    let shown = |token: &str| admin.with(&format!("Authorization: Bearer {token}"));
    for somebody in [admin.clone(), shown("hunter2-hunter3"), shown("")] {
        assert_eq!(somebody.get("/healthz").0, 401);
        assert_eq!(somebody.post("/reload", "").0, 401);
        assert_eq!(somebody.post("/authz/invalidate", "{}").0, 401);
        assert_eq!((somebody.get("/livez").0, somebody.get("/readyz").0), (200, 200));
    }
    assert_eq!(shown(TOKEN).get("/healthz").0, 200);
    files.write("token", "another-long-secret");
    assert_eq!(shown(TOKEN).post("/reload", "").0, 200);
    assert_eq!(shown(TOKEN).get("/healthz").0, 401, "the token is another now");
    assert_eq!(shown("another-long-secret").get("/healthz").0, 200);
    assert!(!mgate.log.text().contains(TOKEN) && !mgate.log.text().contains("another-long"));
}

#[test]
fn reload_lets_nobody_in_where_the_listener_stays() {
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("token", TOKEN)]);
    let everywhere = "[admin]\nlisten = 'http://0.0.0.0:0'\ntoken_file = 'token'\n";
    let mgate = Mgate::start(&files, &config(free_port(), "", everywhere));
    let admin = mgate.admin().called("localhost");
    let shown = admin.with(&format!("Authorization: Bearer {TOKEN}"));
    for now in ["", ADMIN] {
        files.write("mgate.toml", &config(free_port(), "", now));
        let (status, reload) = shown.post("/reload", "");
        assert_eq!((status, &reload["needs_restart"][0]), (200, &"admin.listen".into()), "{now}");
        assert_eq!(admin.post("/reload", "").0, 401, "{now}");
    }
}

#[test]
fn whoever_is_slow_or_says_too_much_is_cut_off() {
    let (_files, mgate) = start("");
    let admin = mgate.admin();
    let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let answer = admin.exchange(long.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(admin.exchange(b"GET /livez HTTP/1.1\r\nHost"), "", "headers that do not end");
    assert_eq!(admin.get("/livez").0, 200);
}

#[test]
fn command_line_finds_the_listener_in_the_configuration() {
    let (port, files) = (free_port(), Files::new(&[("acl.toml", ALLOW_ALL), ("token", TOKEN)]));
    let admin = format!("[admin]\nlisten = 'http://0.0.0.0:{port}'\ntoken_file = 'token'\n");
    let text = config(free_port(), "", &admin);
    let mgate = Mgate::start(&files, &text);
    mgate.log.wait_for("listening for operators");
    let file = files.path("mgate.toml").to_str().unwrap().to_owned();
    assert_eq!(
        run(&["policy", "invalidate", "--principal", "alice", "-c", &file]),
        (true, "0 sessions told\n".into())
    );
    mgate.log.wait_for("principal alice");
    let (is_good, json) = run(&["policy", "invalidate", "--json", "-c", &file]);
    assert!(is_good && json.starts_with("{\"epoch\":2,"), "{json}");
    files.write("mgate.toml", &format!("workers = 99\n{text}"));
    let expected = "reloaded, 0 sessions told\nneeds a restart to change: workers\n";
    assert_eq!(run(&["reload", "-c", &file]), (true, expected.into()));
    files.write("mgate.toml", &format!("colour = 'red'\n{text}"));
    let told = run(&["policy", "invalidate", "-c", &file]);
    assert_eq!(told, (true, "0 sessions told\n".into()), "rights can be withdrawn whatever the file says");
    let (is_good, json) = run(&["reload", "--json", "-c", &file]);
    assert!(!is_good && json.contains("\"key\":\"colour\",\"line\":1,"), "{json}");
    mgate.log.wait_for("configuration not reloaded");
    files.write("mgate.toml", "nonsense");
    assert!(!run(&["reload", "-c", &file]).0);
    files.write("mgate.toml", &config(1, "", ""));
    assert!(!run(&["reload", "-c", &file]).0, "there is no [admin]");
}

/// Runs the program; says whether it ended well, and what it printed.
fn run(arguments: &[&str]) -> (bool, String) {
    let output = support::mgate(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// A gateway with an admin listener; `more` are further keys of `[admin]`.
fn start(more: &str) -> (Files, Mgate) {
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("token", &format!("{TOKEN}\n"))]);
    let mgate = Mgate::start(&files, &config(free_port(), "", &format!("{ADMIN}{more}\n")));
    (files, mgate)
}

const ADMIN: &str = "[admin]\nlisten = 'http://127.0.0.1:0'\n";
const TOKEN: &str = "hunter2-hunter2-hunter2";
