//! Removes every mention of one item from the local journals of restores.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::journals::{JournalMentions, JournalScan};
use crate::{change::key::ItemKey, follow::Locked, private_file, restore::plan_file::EndLine};

/// The local journals in a folder that name the item, by one of its keys; with `remove` they are rewritten without it.
///
/// # Errors
/// When a file cannot be read or written. A missing folder has none.
pub fn in_folder(folder: &Path, items: &[ItemKey], remove: bool) -> io::Result<JournalMentions> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(JournalMentions::default()),
        other => other?,
    };
    let mut all = JournalMentions::default();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            all.add(in_file(&path, items, remove)?);
        }
    }
    Ok(all)
}

fn in_file(path: &Path, items: &[ItemKey], remove: bool) -> io::Result<u64> {
    let scan = || {
        let mut scan = JournalScan::default();
        each_line(path, |line, _| {
            scan.line(line, items.into());
            Ok(())
        })?;
        Ok::<_, io::Error>(scan)
    };
    let found = scan()?;
    if found.removed == 0 || !remove {
        return Ok(found.removed);
    }
    // A restore may be adding to it, and another run may be erasing another item.
    let _locked = Locked::existing(path)?;
    let scan = scan()?;
    let (end, mut part) = (scan.new_end(), path.as_os_str().to_owned());
    part.push(".part");
    let part = PathBuf::from(part);
    let mut out = BufWriter::new(private_file::options().write(true).create(true).truncate(true).open(&part)?);
    let mut again = JournalScan::default();
    each_line(path, |line, bytes| {
        let is_end = again.end.is_none() && serde_json::from_str::<EndLine>(line).is_ok();
        if !again.line(line, items.into()) {
            return Ok(());
        }
        match end.as_deref().filter(|_| is_end) {
            Some(end) => writeln!(out, "{end}"),
            None => out.write_all(bytes),
        }
    })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&part, path)?;
    Ok(scan.removed)
}

/// Passes on each line: its text, and its bytes with the line end. The last one may be cut off within a character.
fn each_line(path: &Path, mut take: impl FnMut(&str, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    while file.read_until(b'\n', &mut bytes)? > 0 {
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        take(&String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)), &bytes)?;
        bytes.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::PartitionKey;

    #[test]
    fn a_line_that_was_cut_off_is_taken_out_when_it_names_the_item_and_stays_as_it_is_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        let item = |id: &str| [ItemKey { id: id.into(), partition_key: PartitionKey::parse("p").unwrap() }];
        let whole = "{\"id\":\"b\",\"pk\":[\"p\"],\"result\":\"done\"}\n";
        // Within a character.
        let cut = &"{\"id\":\"a\",\"pk\":[\"p\"],\"message\":\"é".as_bytes()[..33];
        assert!(std::str::from_utf8(cut).is_err());
        let text = [whole.as_bytes(), cut].concat();
        std::fs::write(&file, &text).unwrap();
        let found = |id: &str, remove| in_folder(folder.path(), &item(id), remove).unwrap().mentions;
        assert_eq!((found("c", true), std::fs::read(&file).unwrap() == text), (0, true));
        assert_eq!((found("b", true), std::fs::read(&file).unwrap()), (1, cut.to_vec()));
        assert_eq!((found("a", false), found("a", true), found("a", false)), (1, 1, 0));
        assert_eq!(std::fs::read(&file).unwrap(), b"");
    }
}
