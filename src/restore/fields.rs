//! The fields that a plan concerns, with their values, for people who examine the plan. They appear in no plan file and
//! in no journal, only in an unnamed temporary file.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write as _},
};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq as _};
use serde_json::value::RawValue;

use crate::change::{key::ItemKey, merge::Merged};

/// The fate of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is set back.
    Back,
    /// It gets the fork's value.
    Fork,
    /// It is left alone: a kept write changed it after one that is taken back.
    Conflict,
}

/// A field of a document. Values are JSON text; `None` when the field does not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The document's id.
    pub id: String,
    /// Its partition key, as a JSON array.
    pub pk: serde_json::Value,
    /// The field's path.
    pub path: String,
    /// Its fate.
    pub fate: Fate,
    /// Its value before the first write that is taken back; with a fork, when the fork began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<RawValue>>,
    /// The value that a write that is taken back gave it; with a fork, the fork's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Box<RawValue>>,
    /// Its value today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Box<RawValue>>,
}

/// The fields of a merge; for a document that is kept, the conflicting ones.
pub(crate) fn of(item: &ItemKey, merged: &Merged, is_kept: bool) -> Vec<Field> {
    let raw = |text: &Option<String>| text.clone().and_then(|text| RawValue::from_string(text).ok());
    let field = |path: String, fate, base, theirs, ours| Field {
        id: item.id.clone(),
        pk: item.partition_key.to_json(),
        path,
        fate,
        base: raw(base),
        theirs: raw(theirs),
        ours: raw(ours),
    };
    let taken = merged.taken.iter().filter(|_| !is_kept);
    let back = taken.map(|t| field(t.place.to_string(), Fate::Back, &t.to, &t.from, &t.from));
    let conflicts =
        merged.conflicts.iter().map(|c| field(c.place.to_string(), Fate::Conflict, &c.base, &c.theirs, &c.ours));
    back.chain(conflicts).collect()
}

/// Up to this many fields are sorted by document; more are in the order in which they were found.
const SORTED: usize = 10_000;

/// All fields of a plan.
#[derive(Debug)]
pub struct Fields {
    file: File,
    count: u64,
}

impl Fields {
    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The fields one by one.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn iter(&self) -> io::Result<impl Iterator<Item = io::Result<Field>> + '_> {
        let mut file = &self.file;
        file.rewind()?;
        Ok(BufReader::new(file).lines().map(|line| serde_json::from_str(&line?).map_err(io::Error::from)))
    }
}

/// The list, for programs.
impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for field in self.iter().map_err(serde::ser::Error::custom)? {
            list.serialize_element(&field.map_err(serde::ser::Error::custom)?)?;
        }
        list.end()
    }
}

/// Collects fields.
pub(crate) struct FieldCollector {
    file: BufWriter<File>,
    count: u64,
    /// Held back to be sorted, as long as they are few.
    held: Option<Vec<Field>>,
}

impl FieldCollector {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile()?), count: 0, held: Some(Vec::new()) })
    }

    pub(crate) fn add(&mut self, fields: Vec<Field>) -> io::Result<()> {
        self.count += fields.len() as u64;
        match &mut self.held {
            Some(held) => {
                held.extend(fields);
                if held.len() > SORTED { self.release() } else { Ok(()) }
            }
            None => fields.iter().try_for_each(|field| self.line(field)),
        }
    }

    fn line(&mut self, field: &Field) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, field)?;
        self.file.write_all(b"\n")
    }

    fn release(&mut self) -> io::Result<()> {
        let mut held = self.held.take().unwrap_or_default();
        held.sort_by_cached_key(|field| (field.id.clone(), field.pk.to_string()));
        held.iter().try_for_each(|field| self.line(field))
    }

    pub(crate) fn finish(mut self) -> io::Result<Fields> {
        self.release()?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Fields { file, count: self.count })
    }
}
