//! `counterfoil-hub`: arguments in, exit code out; everything else is the library's.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match counterfoil_hub::main_with_args(std::env::args_os()) {
        Ok(text) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            counterfoil_hub::service::failed(&error.to_string());
            drop(writeln!(std::io::stderr(), "counterfoil-hub: {error}"));
            ExitCode::from(error.code())
        }
    }
}
