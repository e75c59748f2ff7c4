use std::path::{Path, PathBuf};

/// The configuration file that a sub-command is about.
#[derive(clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration file [default: mgate.toml]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as an option
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    pub(super) fn path(&self) -> &Path {
        self.file.as_ref().or(self.config.as_ref()).map_or(Path::new("mgate.toml"), PathBuf::as_path)
    }
}
