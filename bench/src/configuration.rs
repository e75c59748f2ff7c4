//! What the programs are told at their start.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::{process, programs};

/// nginx that pipes bytes.
pub(crate) fn nginx_stream(
    folder: &Path,
    listen: SocketAddr,
    upstream: u16,
    is_tls: bool,
) -> io::Result<String> {
    let tls = if is_tls { " ssl; ssl_certificate server.pem; ssl_certificate_key server.key" } else { "" };
    nginx_passing(folder, &format!("listen {listen}{tls}; proxy_pass 127.0.0.1:{upstream};"))
}

/// nginx that passes datagrams on, and ends a session after as many responses to each, if that is said.
pub(crate) fn nginx_datagrams(
    folder: &Path,
    listen: SocketAddr,
    upstream: u16,
    responses: Option<u32>,
) -> io::Result<String> {
    let responses = responses.map(|count| format!("proxy_responses {count}; ")).unwrap_or_default();
    let server =
        format!("listen {listen} udp; proxy_pass 127.0.0.1:{upstream}; {responses}proxy_timeout 247s;");
    nginx_passing(folder, &server)
}

/// nginx with one server of its stream module.
fn nginx_passing(folder: &Path, server: &str) -> io::Result<String> {
    let module = programs::stream_module()?;
    let (module, folder) = (module.display(), folder.display());
    let files = process::open_files_limit()?;
    Ok(format!(
        "load_module {module};\n\
         daemon off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr error;\n\
         worker_processes 1;\n\
         events {{ worker_connections {files}; }}\n\
         stream {{\n\
         access_log off;\n\
         server {{ {server} }}\n\
         }}\n"
    ))
}

/// mgate with a route of MQTT.
pub(crate) fn mgate(listen: SocketAddr, upstream: u16, is_tls: bool) -> String {
    let (scheme, tls) = match is_tls {
        true => ("mqtts", "tls = { cert = \"server.pem\", key = \"server.key\" }\n"),
        false => ("mqtt", ""),
    };
    format!(
        "workers = 1\n\
         [[route]]\n\
         name = \"bench\"\n\
         listen = \"{scheme}://{listen}\"\n\
         upstream = \"mqtt://127.0.0.1:{upstream}\"\n\
         policies = [\"acl\"]\n\
         limits = {{ connections = 1000000, connections_per_address = 1000000 }}\n\
         {tls}\n\
         [policy.acl]\n\
         type = \"static\"\n\
         file = \"acl.toml\"\n"
    )
}

/// A mirror of this mode on a message bus at this port.
pub(crate) fn mirror(mode: &str, bus: u16) -> String {
    let extra = match mode {
        "acked" => "stream = { name = \"channels\", subjects = [\"channels.>\"], create = true }\n",
        "spool" => "spool = { dir = \"spool\" }\n",
        _ => "",
    };
    format!("[mirror.bus]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{bus}\"\nmode = \"{mode}\"\n{extra}")
}

/// nginx that reads requests, and tells the upstream where they came from.
pub(crate) fn nginx_http(folder: &Path, listen: SocketAddr, upstream: u16) -> io::Result<String> {
    let folder = folder.display();
    let files = process::open_files_limit()?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.map(|name| format!("{name}_temp_path {folder}/{name};\n")).concat();
    Ok(format!(
        "daemon off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr error;\n\
         worker_processes 1;\n\
         events {{ worker_connections {files}; }}\n\
         http {{\n\
         access_log off;\n\
         keepalive_requests 1000000000;\n\
         {temporary}\
         upstream behind {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{\n\
         listen {listen};\n\
         location / {{\n\
         proxy_pass http://behind;\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection '';\n\
         proxy_set_header Host $http_host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme;\n\
         }}\n\
         }}\n\
         }}\n"
    ))
}

/// HAProxy that does the same.
pub(crate) fn haproxy(listen: SocketAddr, upstream: u16) -> String {
    format!(
        "global\n    nbthread 1\n\
         defaults\n    mode http\n    option forwardfor\n    http-reuse always\n    \
         timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
         frontend bench\n    bind {listen}\n    default_backend behind\n\
         backend behind\n    http-request set-header X-Forwarded-Proto http\n    server one 127.0.0.1:{upstream}\n"
    )
}

/// mgate with a route of HTTP.
pub(crate) fn mgate_http(listen: SocketAddr, upstream: u16) -> String {
    format!(
        "workers = 1\n\
         [[route]]\n\
         name = \"bench\"\n\
         listen = \"http://{listen}\"\n\
         upstream = \"http://127.0.0.1:{upstream}\"\n\
         policies = [\"acl\"]\n\
         limits = {{ connections = 1000000, connections_per_address = 1000000 }}\n\
         [policy.acl]\n\
         type = \"static\"\n\
         file = \"acl.toml\"\n"
    )
}

/// mgate with a route of CoAP.
pub(crate) fn mgate_coap(listen: SocketAddr, upstream: u16) -> String {
    mgate_http(listen, upstream).replace("http://", "coap://")
}

/// Every device its own topics: what a fleet's rules are mostly made of.
pub(crate) const ACL_OF_MQTT: &str = r#"version = 1

[[statements]]
effect = "allow"
principals = ["*"]
actions = ["connect"]

[[statements]]
effect = "allow"
principals = ["*"]
actions = ["publish", "subscribe", "deliver"]
resources = ["topic:devices/${client_id}/#", "topic:channels/${client_id}/messages/#"]
"#;

/// The same of requests.
pub(crate) const ACL_OF_HTTP: &str = r#"version = 1

[[statements]]
effect = "allow"
principals = ["*"]
actions = ["request"]
resources = ["path:/devices/+/telemetry"]
conditions = { methods = ["POST"] }
"#;
