//! The program: one binary for gateway, engineers, SREs and security.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What a burst took goes back to the system; how fast is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // Fails only if there is a provider already, which is then ours too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    postern::cli::main()
}
