//! What a running process used, from `/proc`.

use std::fs;
use std::io;
use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

/// Memory of a process, or of several together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    /// The part of `resident_kib` that is no file's: heap and stacks.
    pub(crate) anonymous_kib: u64,
}

/// The process, its children, their children and so on.
pub(crate) fn family(ancestor: u32) -> Vec<u32> {
    let parents: Vec<_> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![ancestor];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
        next += 1;
    }
    family
}

/// The time on a processor, in nanoseconds, of all living threads of `pids`, in user space and kernel.
pub(crate) fn cpu_nanos(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            total += first_number(&schedstat).ok_or_else(|| io::Error::other("schedstat is not a number"))?;
        }
    }
    Ok(total)
}

/// The memory of all of `pids` together; what they share counts for each.
pub(crate) fn memory(pids: &[u32]) -> io::Result<Memory> {
    let mut total = Memory::default();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        total.resident_kib += field(&status, "VmRSS:")?;
        total.anonymous_kib += field(&status, "RssAnon:")?;
    }
    Ok(total)
}

/// Whether somebody here listens for datagrams at an IPv4 address.
pub(crate) fn takes_datagrams(address: SocketAddr) -> bool {
    // the address in the byte order of the network, read as a number of this machine
    let SocketAddr::V4(address) = address else { return false };
    let number = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{number:08X}:{:04X}", address.port());
    let sockets = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    sockets.lines().any(|line| line.split_ascii_whitespace().nth(1) == Some(&*local))
}

/// How many files a process may have open here, and so may its children.
pub(crate) fn open_files_limit() -> io::Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    field(&limits, "Max open files")
}

/// Asks a process to end, or ends it.
pub(crate) fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or_else(|| io::Error::other("process id out of range"))?, signal)?)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it stands in brackets and may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(first_number).ok_or_else(|| io::Error::other(format!("no {name} in /proc")))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;

    #[test]
    fn own_process_uses_something() {
        let me = [std::process::id()];
        assert!(cpu_nanos(&me).unwrap() > 0);
        let memory = memory(&me).unwrap();
        assert!(memory.resident_kib > memory.anonymous_kib && memory.anonymous_kib > 0);
        assert!(open_files_limit().unwrap() > 0);
    }

    #[test]
    fn socket_is_found_where_it_is_bound() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(takes_datagrams(address));
        drop(socket);
        assert!(!takes_datagrams(address));
    }

    #[test]
    fn children_are_family() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let family = family(std::process::id());
        signal(child.id(), Signal::TERM).unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()));
        assert!(!family.contains(&1));
    }
}
