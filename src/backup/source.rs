//! The input of a load: a file, which can be read twice, or a stream.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek as _},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// Where the lines come from.
pub enum LineSource {
    /// A file, which can be read twice.
    Seekable(File),
    /// Standard input or a pipe.
    Stream(Box<dyn BufRead + Send>),
}

impl LineSource {
    /// Opens a file; a pipe is a stream.
    ///
    /// # Errors
    /// When it cannot be opened, or is a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        Ok(if kind.is_file() { Self::Seekable(file) } else { Self::Stream(Box::new(BufReader::new(file))) })
    }

    /// Opens it at the beginning, decompressed when it is gzip.
    pub(super) fn reader(&mut self) -> io::Result<Box<dyn BufRead + '_>> {
        let mut plain: Box<dyn BufRead + '_> = match self {
            Self::Seekable(file) => {
                file.rewind()?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
            Self::Stream(input) => Box::new(input),
        };
        let gzip = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        Ok(if gzip { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(plain))) } else { plain })
    }
}
