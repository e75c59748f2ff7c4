use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// A program that the benchmark needs, and the Debian package that brings it.
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

impl Program {
    /// Finds the program, or says which package to install.
    pub(crate) fn find(&self) -> io::Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        // Where `PATH` of people who are not root does not lead.
        let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        existing(folders.map(|folder| folder.join(self.name)), self)
    }
}

/// Finds nginx's `stream` module, which is a file to load.
pub(crate) fn stream_module() -> io::Result<PathBuf> {
    let module = Program { name: "ngx_stream_module.so", package: "libnginx-mod-stream" };
    existing(["/usr/lib/nginx/modules/ngx_stream_module.so".into()].into_iter(), &module)
}

fn existing(mut places: impl Iterator<Item = PathBuf>, program: &Program) -> io::Result<PathBuf> {
    let Program { name, package } = program;
    let missing = || io::Error::other(format!("{name} is missing: install the Debian package {package}"));
    places.find(|path| Path::is_file(path)).ok_or_else(missing)
}

pub(crate) const HAPROXY: Program = Program { name: "haproxy", package: "haproxy" };
pub(crate) const MOSQUITTO: Program = Program { name: "mosquitto", package: "mosquitto" };
pub(crate) const NATS: Program = Program { name: "nats-server", package: "nats-server" };
pub(crate) const NGINX: Program = Program { name: "nginx", package: "nginx-light" };
pub(crate) const SETPRIV: Program = Program { name: "setpriv", package: "util-linux" };
pub(crate) const STRACE: Program = Program { name: "strace", package: "strace" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_names_its_package() {
        let error = Program { name: "no-such-program", package: "some-package" }.find().unwrap_err();
        let expected = "no-such-program is missing: install the Debian package some-package";
        assert_eq!(error.to_string(), expected);
    }
}
