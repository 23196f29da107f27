//! The program: one binary for gateway, engineers, SREs and security.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only if there is a provider already, which is then ours too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    postern::cli::main()
}
