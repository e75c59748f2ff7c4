//! One file a scenario: each takes its options, runs, and returns a table.

pub(crate) mod coap;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod mirror;
pub(crate) mod relay;
mod requests;
mod side;
pub(crate) mod syscalls;
pub(crate) mod unread;

use std::io;

use crate::arguments::Arguments;
use crate::proxy::Kind;

/// The proxies to compare: `--a` (nginx) and `--b` (mgate).
fn contenders(arguments: &mut Arguments) -> io::Result<Vec<Kind>> {
    let a = Kind::take(arguments, "a", "nginx")?;
    let b = Kind::take(arguments, "b", "mgate")?;
    let both: Vec<_> = [a, b].into_iter().flatten().collect();
    if both.is_empty() { Err(io::Error::other("--a and --b are both none")) } else { Ok(both) }
}
