use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::value_parser;
use mgate_certs::{Authority, Existing, Kept, Record, San, Store, Timestamp, Usage, Validity};
use mgate_policies::Now;
use serde_json::{Value, json};

use super::{Global, print};

/// Make a certificate authority, and certificates for servers and devices.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The directory in which everything is kept
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Make the authority itself, with an empty revocation list
    Ca {
        /// What it calls itself
        #[arg(long, default_value = "mgate CA")]
        name: String,
        /// For how many days the certificate is valid
        #[arg(long, default_value_t = CA_DAYS, value_parser = value_parser!(u32).range(1..))]
        days: u32,
        #[command(flatten)]
        files: Files,
    },
    /// Issue a certificate to a server
    Server {
        /// DNS names and IP addresses; the first one names the files
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// For how many days the certificate is valid
        #[arg(long, default_value_t = SERVER_DAYS, value_parser = value_parser!(u32).range(1..))]
        days: u32,
        #[command(flatten)]
        files: Files,
    },
    /// Issue a certificate to each of these devices
    Device {
        /// What the devices are called: the common name, from which the gateway knows them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// A DNS name of the device (one device only; may be repeated)
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        /// A URI of the device (one device only; may be repeated)
        #[arg(long, value_name = "URI")]
        uri: Vec<String>,
        /// For how many days the certificate is valid
        #[arg(long, default_value_t = DEVICE_DAYS, value_parser = value_parser!(u32).range(1..))]
        days: u32,
        #[command(flatten)]
        files: Files,
    },
    /// Sign a request whose key never left the device
    Sign {
        /// The request, PKCS #10 in PEM; - for standard input
        #[arg(value_name = "CSR_FILE")]
        file: PathBuf,
        /// It is a server that asks, not a device
        #[arg(long)]
        server: bool,
        /// For how many days the certificate is valid
        #[arg(long, default_value_t = DEVICE_DAYS, value_parser = value_parser!(u32).range(1..))]
        days: u32,
        #[command(flatten)]
        files: Files,
    },
    /// Revoke certificates, and write the revocation list
    Revoke {
        /// A name, for all its certificates, or a serial number, for one
        #[arg(value_name = "ID|SERIAL")]
        who: String,
    },
    /// Write the revocation list anew, before it grows stale
    Crl {
        /// For how many days it is valid
        #[arg(long, default_value_t = LIST_DAYS, value_parser = value_parser!(u32).range(1..))]
        days: u32,
    },
    /// List all certificates ever issued
    List,
}

#[derive(clap::Args)]
struct Files {
    /// Overwrite files that are there already
    #[arg(long)]
    force: bool,
}

/// What was done, for people and for programs.
struct Report {
    text: String,
    json: Value,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let now = UNIX_EPOCH + Now::read().unix;
        let mut kept = Vec::new();
        let done = self.act(now, &mut kept);
        // Certificates that were issued before something failed are told of too.
        if let Some(report) = done.as_ref().ok().and_then(Option::as_ref) {
            report.print(global)?;
        } else if !kept.is_empty() {
            Report::kept(&kept).print(global)?;
        }
        done.map(drop)
    }

    /// Returns what to report where it is not certificates, which go to `kept`.
    fn act(&self, now: SystemTime, kept: &mut Vec<Kept>) -> anyhow::Result<Option<Report>> {
        let valid = |days: u32| Validity::days(now, days);
        match &self.action {
            Action::Ca { name, days, files } => {
                return self.create(name, valid(*days)?, valid(LIST_DAYS)?, files.existing()).map(Some);
            }
            Action::Server { names, days, files } => {
                kept.push(self.open()?.issue_server(names, valid(*days)?, files.existing())?);
            }
            Action::Device { ids, dns, uri, days, files } => {
                let (sans, mut store) = (sans(ids, dns, uri)?, self.open()?);
                for id in ids {
                    kept.push(store.issue_client(id, &sans, valid(*days)?, files.existing())?);
                }
            }
            Action::Sign { file, server, days, files } => {
                let usage = if *server { Usage::Server } else { Usage::Client };
                let (request, mut store) = (read_request(file)?, self.open()?);
                kept.push(store.sign_request(&request, usage, valid(*days)?, files.existing())?);
            }
            Action::Revoke { who } => return self.revoke(who, now).map(Some),
            Action::Crl { days } => return self.write_list(valid(*days)?).map(Some),
            Action::List => return Ok(Some(Report::list(self.open()?.records(), now.try_into()?))),
        }
        Ok(None)
    }

    fn create(
        &self,
        name: &str,
        valid: Validity,
        list_valid: Validity,
        existing: Existing,
    ) -> anyhow::Result<Report> {
        let store = Store::create(&self.dir, Authority::create(name, valid)?, list_valid, existing)?;
        let (certificate, key) = (self.dir.join("ca.pem"), self.dir.join("ca.key"));
        let until = store.authority().until().to_string();
        let text =
            text(name, &[("certificate", show(&certificate)), ("key", show(&key)), ("until", until.clone())]);
        let json =
            json!({ "name": name, "certificate": show(&certificate), "key": show(&key), "until": until });
        Ok(Report { text, json })
    }

    fn revoke(&self, who: &str, now: SystemTime) -> anyhow::Result<Report> {
        let mut store = self.open()?;
        let revoked = store.revoke(who, now)?;
        let list = show(&store.write_revocation_list(Validity::days(now, LIST_DAYS)?)?);
        let lines = revoked.iter().map(|record| format!("{}: {} revoked\n", record.name, record.serial));
        let text = lines.chain([format!("revocation list written to {list}")]).collect();
        let json = json!({ "revoked": revoked.iter().map(json_record).collect::<Vec<_>>(), "crl": list });
        Ok(Report { text, json })
    }

    fn write_list(&self, valid: Validity) -> anyhow::Result<Report> {
        let list = show(&self.open()?.write_revocation_list(valid)?);
        let until = valid.until().to_string();
        let text = text("revocation list", &[("file", list.clone()), ("until", until.clone())]);
        Ok(Report { text, json: json!({ "crl": list, "until": until }) })
    }

    fn open(&self) -> anyhow::Result<Store> {
        let is_missing = !self.dir.join("ca.pem").exists();
        ensure!(!is_missing, "{}: no authority here; make one with `mgate certs ca`", self.dir.display());
        Ok(Store::open(&self.dir)?)
    }
}

impl Files {
    fn existing(&self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Keep }
    }
}

impl Report {
    fn kept(kept: &[Kept]) -> Self {
        let text = kept.iter().map(text_kept).collect::<Vec<_>>().join("\n");
        Self { text, json: kept.iter().map(json_kept).collect() }
    }

    fn list(records: &[Record], now: Timestamp) -> Self {
        let head = row("SERIAL", "USAGE", "UNTIL", "STATUS", "NAME");
        let rows = records.iter().map(|record| {
            let (serial, usage) = (record.serial.to_string(), record.usage.to_string());
            row(&serial, &usage, &record.until.to_string(), status(record, now), &record.name)
        });
        let text = [head].into_iter().chain(rows).collect::<Vec<_>>().join("\n");
        Self { text, json: records.iter().map(json_record).collect() }
    }

    fn print(&self, global: &Global) -> anyhow::Result<()> {
        if global.json { print(&self.json) } else { print(&self.text) }
    }
}

fn sans(ids: &[String], dns: &[String], uri: &[String]) -> anyhow::Result<Vec<San>> {
    let is_shared = ids.len() > 1 && !(dns.is_empty() && uri.is_empty());
    ensure!(!is_shared, "--dns and --uri are for one device at a time");
    let sans = dns.iter().map(|name| San::dns(name)).chain(uri.iter().map(|text| San::uri(text)));
    Ok(sans.collect::<Result<_, _>>()?)
}

fn read_request(path: &Path) -> anyhow::Result<String> {
    let read = |input: &mut dyn Read| {
        let mut text = String::new();
        input.take(MAX_REQUEST_BYTES).read_to_string(&mut text).map(|_| text)
    };
    let text = if path == Path::new("-") {
        read(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    text.with_context(|| show(path))
}

fn text_kept(kept: &Kept) -> String {
    let record = &kept.record;
    let mut rows = vec![("certificate", show(&kept.certificate))];
    rows.extend(kept.key.iter().map(|key| ("key", show(key))));
    rows.extend([("serial", record.serial.to_string()), ("until", record.until.to_string())]);
    text(&record.name, &rows)
}

fn text(head: &str, rows: &[(&str, String)]) -> String {
    let lines = rows.iter().map(|(name, value)| format!("\n  {name:11}  {value}"));
    [head.to_owned()].into_iter().chain(lines).collect()
}

fn row(serial: &str, usage: &str, until: &str, status: &str, name: &str) -> String {
    format!("{serial:32}  {usage:6}  {until:20}  {status:7}  {name}")
}

fn status(record: &Record, now: Timestamp) -> &'static str {
    match record.revoked {
        Some(_) => "revoked",
        None if record.until < now => "ended",
        None => "valid",
    }
}

fn json_kept(kept: &Kept) -> Value {
    let mut json = json_record(&kept.record);
    json["certificate"] = show(&kept.certificate).into();
    json["key"] = kept.key.as_deref().map(show).into();
    json
}

fn json_record(record: &Record) -> Value {
    json!({
        "name": record.name,
        "serial": record.serial.to_string(),
        "usage": record.usage.to_string(),
        "until": record.until.to_string(),
        "revoked": record.revoked.map(|at| at.to_string()),
    })
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

const CA_DAYS: u32 = 3650;
const DEVICE_DAYS: u32 = 365;
const LIST_DAYS: u32 = 30;
const MAX_REQUEST_BYTES: u64 = 64 * 1024;
const SERVER_DAYS: u32 = 397;

const EXAMPLES: &str = "\
Examples:
  mgate certs ca
  mgate certs server gateway.example.org 192.0.2.7
  mgate certs device dev-1 dev-2 dev-3
  mgate certs sign dev-4.csr
  mgate certs revoke dev-2";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn each_kind_of_certificate_has_its_own_duration() {
        let bench = Bench::new();
        bench.done(&["server", "gate.example.org"]);
        bench.done(&["device", "dev-1"]);
        bench.done(&["device", "dev-2", "--days", "7"]);
        let list = bench.done(&["list"]).1.json;
        let until = |at: usize| list[at]["until"].as_str().unwrap().to_owned();
        assert_eq!(bench.created.1.json["until"], after(CA_DAYS));
        assert_eq!([until(0), until(1), until(2)], [SERVER_DAYS, DEVICE_DAYS, 7].map(after));
    }

    #[test]
    fn list_tells_what_is_valid_ended_and_revoked() {
        let bench = Bench::new();
        bench.done(&["device", "old", "--days", "1"]);
        bench.done(&["device", "lost", "good"]);
        let revoked = bench.done(&["revoke", "lost"]).1;
        assert_eq!(revoked.json["revoked"][0]["name"], "lost");
        let list = bench.run_at(2, &["list"]).1.unwrap().unwrap().text;
        let lines: Vec<&str> = list.lines().skip(1).collect();
        for (line, end) in lines.iter().zip(["  ended    old", "  revoked  lost", "  valid    good"]) {
            assert!(line.ends_with(end), "{line}");
        }
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_was_issued_before_a_failure_is_told() {
        let bench = Bench::new();
        let (kept, done) = bench.run_at(0, &["device", "dev-1", "dev-2", "dev-1"]);
        assert_eq!(kept.iter().map(|one| one.record.name.as_str()).collect::<Vec<_>>(), ["dev-1", "dev-2"]);
        assert!(done.err().unwrap().to_string().ends_with("dev-1.key exists already"));
    }

    #[test]
    fn request_is_signed_for_the_side_that_asks() {
        let bench = Bench::new();
        let request = bench.directory.path().join("request.csr");
        fs::write(&request, REQUEST).unwrap();
        let request = request.to_str().unwrap();
        let [client] = &bench.done(&["sign", request]).0[..] else { panic!("one certificate") };
        assert_eq!((client.record.usage, &client.key), (Usage::Client, &None));
        let [server] = &bench.done(&["sign", request, "--server", "--force"]).0[..] else {
            panic!("one certificate")
        };
        assert_eq!((server.record.usage, server.record.name.as_str()), (Usage::Server, "gate.example.org"));
    }

    #[test]
    fn names_are_for_one_device() {
        let bench = Bench::new();
        assert!(bench.run_at(0, &["device", "dev-1", "--dns", "a.example.org", "--uri", "urn:a"]).1.is_ok());
        let refused =
            bench.run_at(0, &["device", "dev-2", "dev-3", "--dns", "a.example.org"]).1.err().unwrap();
        assert_eq!(refused.to_string(), "--dns and --uri are for one device at a time");
    }

    #[test]
    fn missing_authority_says_how_to_make_one() {
        let directory = tempfile::tempdir().unwrap();
        let refused = run_at(&directory, 0, &["list"]).1.err().unwrap().to_string();
        assert!(refused.ends_with("no authority here; make one with `mgate certs ca`"), "{refused}");
    }

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A directory with an authority in it.
    struct Bench {
        directory: TempDir,
        created: (Vec<Kept>, Report),
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (kept, done) = run_at(&directory, 0, &["ca"]);
            Self { created: (kept, done.unwrap().unwrap()), directory }
        }

        fn done(&self, arguments: &[&str]) -> (Vec<Kept>, Report) {
            let (kept, done) = self.run_at(0, arguments);
            let report = done.unwrap().unwrap_or_else(|| Report::kept(&kept));
            (kept, report)
        }

        fn run_at(&self, day: u32, arguments: &[&str]) -> (Vec<Kept>, anyhow::Result<Option<Report>>) {
            run_at(&self.directory, day, arguments)
        }
    }

    fn run_at(
        directory: &TempDir,
        day: u32,
        arguments: &[&str],
    ) -> (Vec<Kept>, anyhow::Result<Option<Report>>) {
        let start = ["certs", "--dir", directory.path().to_str().unwrap()];
        let line = CommandLine::parse_from(start.iter().chain(arguments));
        let mut kept = Vec::new();
        let done = line.arguments.act(UNIX_EPOCH + NOW + DAY * day, &mut kept);
        (kept, done)
    }

    fn after(days: u32) -> String {
        Validity::days(UNIX_EPOCH + NOW, days).unwrap().until().to_string()
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// 2026-05-04 10:00:00 UTC.
    const NOW: Duration = Duration::from_secs(1_777_888_800);
    const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
        MIIBBDCBqwIBADAbMRkwFwYDVQQDDBBnYXRlLmV4YW1wbGUub3JnMFkwEwYHKoZI\n\
        zj0CAQYIKoZIzj0DAQcDQgAEGJsxidSnb93GjRwKtR1JxQgwcaRSI/13vacSxUvo\n\
        YVq2wGoMdufnM+C1UaU/URyjtGhKs02xoXgYcTWpPrxroaAuMCwGCSqGSIb3DQEJ\n\
        DjEfMB0wGwYDVR0RBBQwEoIQZ2F0ZS5leGFtcGxlLm9yZzAKBggqhkjOPQQDAgNI\n\
        ADBFAiBkY72WUR75R9Ze2H7WJ0PVDIel4wURNcqqyLJIvdluLAIhALobo/2cps17\n\
        rHSOvGu0efoPAcCpBvDpalvHjTxxaYVv\n\
        -----END CERTIFICATE REQUEST-----\n";
}
