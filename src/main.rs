//! The program `mgate`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mgate::cli::main()
}
