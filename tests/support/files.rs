//! Lists the files below a folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Returns all files below a folder; the paths begin with the folder.
pub fn files_below(folder: impl AsRef<Path>) -> BTreeSet<PathBuf> {
    let folder = folder.as_ref();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

/// Returns the files below a folder that have this extension.
pub fn files_of_kind(folder: impl AsRef<Path>, extension: &str) -> impl Iterator<Item = PathBuf> {
    files_below(folder).into_iter().filter(move |path| path.extension().is_some_and(|own| own == extension))
}
