//! Files that flags name: which of them are written, and which are the same.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// Parses the name of a file that is written. A `-`, which elsewhere means standard input or output, would make a file
/// of that name.
pub(super) fn to_write() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(named)
}

/// A file to write, unless it is called `-`.
pub(super) fn named(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.as_os_str() == "-" {
        return Err("it is not written to standard output; name a file (./- is one, too)");
    }
    Ok(path)
}

/// Whether two paths lead to one file, which need not exist yet.
pub(super) fn are_one(one: &Path, other: &Path) -> bool {
    let (this, that) = (identity(one), identity(other));
    followed(one) == followed(other) || (this.is_some() && this == that)
}

/// A path with its links and dots followed, as far as it exists.
fn followed(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        Some(folder?.canonicalize().ok()?.join(path.file_name()?))
    };
    let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(absolute)
}

/// The identity of a file, whatever its names.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_under_all_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("in")).unwrap();
        assert!(are_one(&at("x"), &at("./x")) && are_one(&at("x"), &at("in/../x")), "it does not exist yet");
        assert!(!are_one(&at("x"), &at("y")) && !are_one(&at("x"), &at("in/x")));
        assert!(are_one(Path::new("no/such/x"), Path::new("no/such/x")));
        std::fs::write(at("x"), "").unwrap();
        std::fs::hard_link(at("x"), at("hard")).unwrap();
        assert!(are_one(&at("x"), &at("hard")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("x"), at("soft")).unwrap();
            std::os::unix::fs::symlink(at("in"), at("link")).unwrap();
            assert!(are_one(&at("x"), &at("soft")) && are_one(&at("in/new"), &at("link/new")));
        }
    }
}
