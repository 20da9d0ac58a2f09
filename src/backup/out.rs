//! The output of a backup: a file, plain or compressed.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use flate2::write::GzEncoder;

/// A file that lines are written to.
pub(super) enum LineFile {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl LineFile {
    pub(super) fn new(file: File, gzip: bool) -> Self {
        let buffer = BufWriter::with_capacity(1 << 16, file);
        if gzip {
            Self::Gzip(Box::new(GzEncoder::new(buffer, flate2::Compression::default())))
        } else {
            Self::Plain(buffer)
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    /// Makes everything durable. What is written afterwards forms a gzip member of its own.
    pub(super) fn close(self) -> io::Result<File> {
        let buffer = match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out.finish()?,
        };
        let file = buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file)
    }
}

/// The path with this after its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the name asks for compression.
pub(super) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"))
}

/// Whether a file has another name than the one by which it was opened.
#[cfg(unix)]
pub(super) fn has_other_name(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.nlink() > 1)
}

#[cfg(not(unix))]
pub(super) fn has_other_name(_: &File) -> io::Result<bool> {
    Ok(false)
}
