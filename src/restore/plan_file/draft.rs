//! A plan that is being written: its steps go to a temporary file, and a few of them are sorted first.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use sha2::{Digest, Sha256};

use super::{EndLine, HeadLine, Plan, PlanHead, PlanTrailer, Totals};
use crate::{change::record, restore::plan::Step};

/// Plans of at most this many steps are sorted by id and key; longer ones keep the order in which steps were found.
pub(super) const SORTED: usize = 10_000;

/// A plan in progress.
pub struct Draft {
    head: PlanHead,
    out: DraftFile,
    totals: Totals,
    /// Held back to be sorted, as long as they are few.
    held: Option<Vec<Step>>,
}

impl Draft {
    /// Begins a plan.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new(head: PlanHead) -> io::Result<Self> {
        let mut out = DraftFile::new()?;
        out.line(&serde_json::to_string(&HeadLine { plan: &head })?)?;
        Ok(Self { head, out, totals: Totals::default(), held: Some(Vec::new()) })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn push(&mut self, step: Step) -> io::Result<()> {
        self.totals.add(&step);
        match &mut self.held {
            Some(held) => {
                held.push(step);
                if held.len() > SORTED { self.release() } else { Ok(()) }
            }
            None => self.out.line(&serde_json::to_string(&step)?),
        }
    }

    fn release(&mut self) -> io::Result<()> {
        let mut held = self.held.take().unwrap_or_default();
        held.sort_by_cached_key(|s| (s.id.clone(), s.pk.to_string()));
        held.iter().try_for_each(|step| self.out.line(&serde_json::to_string(step)?))
    }

    /// Finishes the plan.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn seal(mut self) -> io::Result<Plan> {
        self.release()?;
        let (file, size) = self.out.end(self.totals.steps)?;
        Ok(Plan { head: self.head, totals: self.totals, file, size })
    }
}

/// An unnamed temporary file, and the checksum of its content.
pub(super) struct DraftFile {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl DraftFile {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile()?), hash: Sha256::new(), size: 0 })
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        for bytes in [text.as_bytes(), b"\n"] {
            self.hash.update(bytes);
            self.file.write_all(bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn sum(&self) -> String {
        record::hex(&self.hash.clone().finalize())
    }

    pub(super) fn end(mut self, steps: usize) -> io::Result<(File, u64)> {
        let end = EndLine { end: PlanTrailer { steps, sha256: self.sum() } };
        self.line(&serde_json::to_string(&end)?)?;
        Ok((self.file.into_inner().map_err(io::IntoInnerError::into_error)?, self.size))
    }
}
