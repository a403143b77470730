//! The command line of mutation testing.

fn main() -> std::process::ExitCode {
    counterfoil_mutants::run()
}
