//! Plans in files that a person names: one plan, or those of several containers one after another. A plan that brings
//! in the changes of a fork is followed by the texts that exist nowhere else.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::plan_file::{BadPlan, Intake, Plan, each_line};
use crate::{
    archive::texts::{Keeping, KeptTexts},
    change::{key::ItemKey, record::hex},
    private_file,
};

/// A plan from a file.
pub struct SavedPlan {
    /// The plan.
    pub plan: Plan,
    /// The texts that came with it.
    pub texts: Option<KeptTexts>,
}

/// Why a saved plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanLoadError {
    /// The file cannot be opened.
    #[error("cannot open the plan")]
    Open(#[source] io::Error),
    /// It is not a plan, was changed, or was made for other containers; the source says which.
    #[error("the plan cannot be used")]
    Unusable(#[source] BadPlan),
}

/// The lines that may follow a plan in its file.
#[derive(Serialize, Deserialize)]
enum After {
    #[serde(rename = "_text")]
    Text(OneText),
    #[serde(rename = "_texts")]
    Texts(Count),
    #[serde(rename = "_plans")]
    Plans(Count),
}

/// The text of a document that a step takes values from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneText {
    id: String,
    pk: serde_json::Value,
    version: String,
    text: String,
}

/// The number of lines, or plans, and the checksum of all their bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    count: usize,
    sha256: String,
}

/// Reads a plan's file.
///
/// # Errors
/// When it cannot be used.
pub fn load_plans(file: &Path) -> Result<Vec<SavedPlan>, PlanLoadError> {
    read_plans(File::open(file).map_err(PlanLoadError::Open)?).map_err(PlanLoadError::Unusable)
}

/// Reads the whole text of a plan file before any of it is used: one plan, or one for each of several containers.
///
/// # Errors
/// When it is not a plan, has another format, was changed, or is incomplete; each error names the problem.
pub fn read_plans(text: impl Read) -> Result<Vec<SavedPlan>, BadPlan> {
    let mut reading = Reading { done: Vec::new(), part: Part::new()?, all: Sha256::new(), is_whole: false };
    each_line(text, |line| reading.line(line))?;
    reading.finish()
}

/// Writes plans to a new file that only its owner can read.
///
/// # Errors
/// When the file exists, or cannot be written.
pub fn save_plans(plans: &[(&Plan, Option<&KeptTexts>)], file: &Path) -> io::Result<()> {
    let opened = private_file::options().write(true).create_new(true).open(file)?;
    let written = write_plans(plans, &opened);
    if written.is_err() {
        // Half a plan is of no use, and would be in the way of the next one.
        let _ = std::fs::remove_file(file);
    }
    written
}

fn write_plans(plans: &[(&Plan, Option<&KeptTexts>)], file: &File) -> io::Result<()> {
    let mut out = Summed { out: BufWriter::new(file), lines: Sha256::new() };
    for (plan, texts) in plans {
        io::copy(&mut plan.text(), &mut out)?;
        if let Some(texts) = texts.filter(|_| plan.head.fork) {
            write_texts(plan, texts, &mut out)?;
        }
    }
    if plans.iter().any(|(plan, _)| !plan.head.together.is_empty()) {
        let end = After::Plans(Count { count: plans.len(), sha256: out.sum() });
        out.line(&serde_json::to_string(&end)?)?;
    }
    out.out.flush()?;
    file.sync_all()
}

fn write_texts(plan: &Plan, texts: &KeptTexts, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Summed { out, lines: Sha256::new() };
    let mut count = 0;
    for step in plan.writing_steps() {
        let step = step?;
        let item = step.item().map_err(io::Error::other)?;
        for version in step.own_versions() {
            let text = texts.get(&item, version).map_err(io::Error::other)?;
            let (id, pk) = (step.id.clone(), step.pk.clone());
            lines.line(&serde_json::to_string(&After::Text(OneText { id, pk, version: version.to_owned(), text }))?)?;
            count += 1;
        }
    }
    let end = After::Texts(Count { count, sha256: lines.sum() });
    lines.line(&serde_json::to_string(&end)?)
}

/// Writes, and updates the checksum.
struct Summed<W> {
    out: W,
    lines: Sha256,
}

impl<W: Write> Summed<W> {
    fn line(&mut self, text: &str) -> io::Result<()> {
        self.write_all(text.as_bytes())?;
        self.write_all(b"\n")
    }

    fn sum(&self) -> String {
        sum(&self.lines)
    }
}

/// The checksum so far.
fn sum(lines: &Sha256) -> String {
    hex(&lines.clone().finalize())
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.lines.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that is read.
struct Reading {
    done: Vec<SavedPlan>,
    part: Part,
    all: Sha256,
    /// Whether the line that ends several plans was read.
    is_whole: bool,
}

/// One plan of it.
struct Part {
    plan: Intake,
    texts: Keeping,
    lines: Sha256,
    count: usize,
    has_texts: bool,
}

impl Part {
    fn new() -> Result<Self, BadPlan> {
        let (plan, texts) = (Intake::new().map_err(BadPlan::Copy)?, Keeping::new().map_err(BadPlan::Copy)?);
        Ok(Self { plan, texts, lines: Sha256::new(), count: 0, has_texts: false })
    }

    fn text(&mut self, one: &OneText) -> Result<(), BadPlan> {
        let item = ItemKey::parse_json(&one.id, &one.pk).map_err(BadPlan::Key)?;
        self.count += 1;
        self.texts.add(&item, &one.version, &one.text).map_err(BadPlan::Copy)
    }

    fn finish(self) -> Result<SavedPlan, BadPlan> {
        let (plan, texts) = (self.plan.finish()?, self.texts.finish().map_err(BadPlan::Copy)?);
        if !plan.head.fork {
            return if self.count == 0 && !self.has_texts {
                Ok(SavedPlan { plan, texts: None })
            } else {
                Err(BadPlan::Edited)
            };
        }
        for step in plan.writing_steps() {
            let step = step.map_err(BadPlan::Copy)?;
            let item = step.item().map_err(BadPlan::Key)?;
            if !self.has_texts || !step.own_versions().iter().all(|version| texts.has(&item, version)) {
                return Err(BadPlan::NoTexts);
            }
        }
        Ok(SavedPlan { plan, texts: Some(texts) })
    }
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), BadPlan> {
        if self.is_whole || (self.part.plan.is_whole() && line.trim().is_empty()) {
            return if line.trim().is_empty() { Ok(()) } else { Err(BadPlan::Edited) };
        }
        let mut is_text = false;
        if !self.part.plan.is_whole() {
            self.part.plan.line(line, None)?;
        } else if line.starts_with("{\"_plan\":") {
            let part = std::mem::replace(&mut self.part, Part::new()?);
            self.done.push(part.finish()?);
            self.part.plan.line(line, None)?;
        } else {
            match serde_json::from_str(line).map_err(|_| BadPlan::Edited)? {
                After::Text(one) if !self.part.has_texts => {
                    self.part.text(&one)?;
                    is_text = true;
                }
                After::Texts(end) if !self.part.has_texts && end.count == self.part.count => {
                    if end.sha256 != sum(&self.part.lines) {
                        return Err(BadPlan::Edited);
                    }
                    self.part.has_texts = true;
                }
                After::Plans(end) if end.count == self.done.len() + 1 && end.sha256 == sum(&self.all) => {
                    self.is_whole = true;
                }
                After::Text(_) | After::Texts(_) | After::Plans(_) => return Err(BadPlan::Edited),
            }
        }
        for bytes in [line.as_bytes(), b"\n"] {
            self.all.update(bytes);
            if is_text {
                self.part.lines.update(bytes);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<SavedPlan>, BadPlan> {
        let Self { mut done, part, is_whole, .. } = self;
        done.push(part.finish()?);
        let together = &done[0].plan.head.together;
        if is_whole == together.is_empty() || (together.is_empty() && done.len() > 1) {
            return Err(BadPlan::CutOff);
        }
        let mut seen = BTreeSet::new();
        let is_one = done.iter().all(|saved| {
            let head = &saved.plan.head;
            let is_named = head.together.iter().any(|pair| {
                (pair.source.as_str(), pair.changes.as_str())
                    == (head.place.source.as_str(), head.place.changes.as_str())
            });
            head.together == *together && (is_named || together.is_empty()) && seen.insert(head.place.source.clone())
        });
        if is_one { Ok(done) } else { Err(BadPlan::Apart) }
    }
}
