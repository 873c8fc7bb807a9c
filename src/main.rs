//! The `pilotfish` binary: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    pilotfish::cli::main_with(std::env::args_os()).into()
}
