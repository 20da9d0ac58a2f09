//! Reads a zip archive by its central directory, as unpackers on Linux do.

use std::{io::Read as _, path::Path};

use flate2::read::DeflateDecoder;

/// One entry of an archive.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    /// Type and permissions, if the archive was made on Unix.
    pub unix_mode: Option<u32>,
    /// DOS date and time, as stored.
    pub time: u32,
    pub content: Vec<u8>,
}

fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// Every entry, in the archive's order.
pub fn read(path: &Path) -> Vec<Entry> {
    let bytes = std::fs::read(path).unwrap();
    // Without a comment, the end record is the last 22 bytes.
    let end = bytes.len() - 22;
    assert_eq!(&bytes[end..end + 4], b"PK\x05\x06");
    let (count, mut at) = (number(&bytes, end + 10, 2), number(&bytes, end + 16, 4));
    let mut entries = Vec::new();
    for _ in 0..count {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
        let field = |offset: usize, size: usize| number(&bytes, at + offset, size);
        let (packed, size, name, extra, comment) =
            (field(20, 4), field(24, 4), field(28, 2), field(30, 2), field(32, 2));
        let local = field(42, 4);
        let start = local + 30 + number(&bytes, local + 26, 2) + number(&bytes, local + 28, 2);
        assert_eq!(field(10, 2), 8, "deflated");
        let mut content = Vec::with_capacity(size);
        DeflateDecoder::new(&bytes[start..start + packed]).read_to_end(&mut content).unwrap();
        assert_eq!(content.len(), size);
        entries.push(Entry {
            name: String::from_utf8(bytes[at + 46..at + 46 + name].to_vec()).unwrap(),
            unix_mode: (field(5, 1) == 3).then(|| u32::try_from(field(38, 4) >> 16).unwrap()),
            time: u32::try_from(field(12, 4)).unwrap(),
            content,
        });
        at += 46 + name + extra + comment;
    }
    assert_eq!(at, end);
    entries
}

/// Writes the entries into a folder, with their modes.
pub fn unpack(entries: &[Entry], folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in entries {
        let path = folder.join(&entry.name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &entry.content).unwrap();
        let mode = entry.unix_mode.expect("an archive made on Unix") & 0o7777;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
