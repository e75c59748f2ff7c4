//! The side-by-side benchmark: what a proxy costs, mgate next to nginx.
//!
//! One process is the load's two ends, clients and upstream; it starts the proxies, puts the same load through
//! each, reads what they used from `/proc`, and stops them. It measures no latency and no peak throughput.

mod arguments;
mod client;
mod clock;
mod configuration;
mod counts;
mod devices;
mod ends;
mod link;
mod load;
mod packet;
mod process;
mod programs;
mod proxy;
mod scenario;
mod sink;
mod table;
mod tls;
mod web;
mod world;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::table::Table;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mgate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut arguments = Arguments::parse(words)?;
    let is_json = arguments.flag("json");
    let table = match command.as_str() {
        "coap" => scenario::coap::run(arguments)?,
        "http" => scenario::http::run(arguments)?,
        "idle" => scenario::idle::run(arguments)?,
        "mirror" => scenario::mirror::run(arguments)?,
        "relay" => scenario::relay::run(arguments)?,
        "syscalls" => scenario::syscalls::run(arguments)?,
        "unread" => scenario::unread::run(arguments)?,
        _ => return Err(io::Error::other(USAGE)),
    };
    print(&table, is_json)
}

fn print(table: &Table, is_json: bool) -> io::Result<()> {
    let text = if is_json { table.to_json() } else { table.to_text() };
    io::stdout().write_all(text.as_bytes())
}

const USAGE: &str = "usage: mgate-bench relay|http|coap|idle|mirror|syscalls|unread [--OPTION VALUE]...; bench/README.md lists them";
