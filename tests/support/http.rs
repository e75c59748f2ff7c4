//! A web server, and clients of HTTP: curl, and bytes by hand.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::broker::free_port;
use super::peer::tcp;
use super::process::Process;
use super::{Files, PATIENCE, wait_until};

/// nginx with a few files.
pub(crate) struct Nginx {
    _process: Process,
    files: Files,
    pub(crate) port: u16,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// One that listens with these options, and has more to go by.
    pub(crate) fn start_with(options: &str, more: &str) -> Self {
        // somebody else may take the free port first
        let started = (0..5).find_map(|_| Self::try_start(options, more));
        started.expect("nginx starts with its configuration")
    }

    fn try_start(options: &str, more: &str) -> Option<Self> {
        let (port, files) = (free_port(), Files::new(&[("secret.txt", "secret")]));
        let root = files.path("");
        let root = root.to_str().unwrap().trim_end_matches('/').to_owned();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; user root; events {{}}\n\
             http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;\n\
             uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;\n\
             server {{ listen 127.0.0.1:{port} {options}; root {root}; {more} }} }}\n"
        );
        let file = files.write("nginx.conf", &config);
        let mut process = Process::start(Command::new("nginx").arg("-p").arg(&root).arg("-c").arg(file));
        std::fs::create_dir(files.path("public")).unwrap();
        files.write("public/a.txt", "hello\n");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut is_up = false;
        wait_until("nginx listens", || {
            is_up = TcpStream::connect(address).is_ok();
            is_up || !process.is_running()
        });
        is_up.then_some(Self { _process: process, files, port })
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.files.path(name), bytes).unwrap();
    }
}

/// Status and body of what curl gets.
pub(crate) fn curl(arguments: &[&str]) -> (String, String) {
    let output = run_curl(&[&["-w", "\n%{http_code}"], arguments].concat());
    let (body, status) = output.rsplit_once('\n').unwrap();
    (status.into(), body.into())
}

pub(crate) fn run_curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-s", "--noproxy", "*", "--max-time", &PATIENCE.as_secs().to_string()]).args(arguments);
    String::from_utf8(command.output().expect("curl is not installed: run scripts/test").stdout).unwrap()
}

/// curl that shows what comes as it comes.
pub(crate) fn stream(arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("curl");
    command.args(["-s", "-N", "--noproxy", "*", "--max-time", "20"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("curl is not installed: run scripts/test");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

pub(crate) fn read_lines(reader: &mut impl BufRead, count: usize) -> String {
    let mut text = String::new();
    for _ in 0..count {
        assert!(reader.read_line(&mut text).unwrap() > 0, "it ended behind {text:?}");
    }
    text
}

/// Takes what comes and says how much it was, or gives as much.
pub(crate) fn serve_endless(mut tcp: TcpStream, bytes: u64) {
    let head = read_head(&mut tcp).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let zeros = std::io::repeat(0);
    if head.starts_with("get ") {
        write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").unwrap();
        std::io::copy(&mut zeros.take(bytes), &mut tcp).unwrap();
    } else {
        let took = std::io::copy(&mut (&mut tcp).take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
        let said = format!("took {took}");
        write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).unwrap();
    }
}

/// What is said to these bytes until the connection is closed.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let (mut client, mut said) = (tcp(address), Vec::new());
    client.write_all(bytes).unwrap();
    client.read_to_end(&mut said).expect("it is closed in time");
    String::from_utf8(said).unwrap()
}

/// Makes one request on a connection that stays, and returns the head of the answer, whose body is small.
pub(crate) fn ask(client: &mut TcpStream, path: &str) -> String {
    request(client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// Makes one request with this `Authorization`, and returns the status.
pub(crate) fn ask_as(client: &mut TcpStream, authorization: &str) -> u16 {
    let head =
        request(client, &format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n"));
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn request(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).unwrap();
    let head = read_head(client);
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    client.read_exact(&mut body).unwrap();
    head
}

pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn read_lines_until(reader: &mut impl BufRead, wanted: &str) {
    let (mut all, mut line) = (String::new(), String::new());
    while line.trim_end() != wanted {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "{wanted} did not come: {all}");
        line.make_ascii_lowercase();
        all.push_str(&line);
    }
}

/// Whether the connection ends here, rather than after a wait in vain.
pub(crate) fn is_closed(connection: &mut TcpStream) -> bool {
    match connection.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Waits for exactly this.
pub(crate) fn expect(client: &mut impl Read, text: &str) {
    let mut came = vec![0; text.len()];
    client.read_exact(&mut came).unwrap();
    assert_eq!(String::from_utf8_lossy(&came), text);
}
