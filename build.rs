//! Puts the console's built pages into the program, if they were built.
//!
//! `make console` builds them. Without them everything else works, and the
//! console says that it was not built.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

const PAGES: &str = "gateway/console/web/dist";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={PAGES}");
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name| std::env::var_os(name).ok_or_else(|| io::Error::other(name));
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(PAGES).join("app");
    let mut files = Vec::new();
    find(&folder, "", &mut files)?;
    files.sort();
    let mut table = String::from("&[");
    for (name, path) in files {
        let _ = write!(table, "({name:?}, include_bytes!({path:?}) as &[u8]),");
    }
    table.push(']');
    std::fs::write(PathBuf::from(variable("OUT_DIR")?).join("console_pages.rs"), table)
}

fn find(folder: &Path, below: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            find(&path, &format!("{below}{name}/"), files)?;
        } else {
            files.push((format!("{below}{name}"), path));
        }
    }
    Ok(())
}
