//! Reads a plan from a file that anybody may have edited.

use std::io;

use serde::Deserialize;

use super::{BadPlan, EndLine, HeadLine, Plan, PlanHead, Totals, draft::DraftFile};
use crate::restore::plan::{PLAN_VERSION, PlanTarget, Step};

/// A plan that is being read: checked line by line and copied, so that exactly what was checked is used.
pub(in crate::restore) struct Intake {
    head: Option<PlanHead>,
    out: DraftFile,
    totals: Totals,
    ended: bool,
}

impl Intake {
    pub(in crate::restore) fn new() -> io::Result<Self> {
        Ok(Self { head: None, out: DraftFile::new()?, totals: Totals::default(), ended: false })
    }

    pub(in crate::restore) fn line(&mut self, line: &str, place: Option<&PlanTarget>) -> Result<(), BadPlan> {
        if self.ended {
            return if line.trim().is_empty() { Ok(()) } else { Err(BadPlan::Edited) };
        }
        if self.head.is_none() {
            let head = head(line)?;
            place.map_or(Ok(()), |place| head.check_place(place))?;
            self.head = Some(head);
        } else if let Ok(EndLine { end }) = serde_json::from_str::<EndLine>(line) {
            if end.steps != self.totals.steps || end.sha256 != self.out.sum() {
                return Err(BadPlan::Edited);
            }
            self.ended = true;
            return Ok(());
        } else {
            let step: Step = serde_json::from_str(line).map_err(BadPlan::Line)?;
            step.item().map_err(BadPlan::Key)?;
            self.totals.add(&step);
        }
        self.out.line(line).map_err(BadPlan::Copy)
    }

    /// Whether the trailer was read.
    pub(in crate::restore) fn is_whole(&self) -> bool {
        self.ended
    }

    pub(in crate::restore) fn finish(self) -> Result<Plan, BadPlan> {
        let head = self.head.ok_or(BadPlan::Empty)?;
        if !self.ended {
            return Err(BadPlan::CutOff);
        }
        let (file, size) = self.out.end(self.totals.steps).map_err(BadPlan::Copy)?;
        Ok(Plan { head, totals: self.totals, file, size })
    }
}

/// The first line. The version of the format is checked before anything else.
fn head(line: &str) -> Result<PlanHead, BadPlan> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    #[derive(Deserialize)]
    struct First {
        #[serde(rename = "_plan", alias = "plan")]
        plan: Version,
    }
    let First { plan } = serde_json::from_str(line).map_err(BadPlan::Line)?;
    if plan.v != PLAN_VERSION {
        return Err(BadPlan::Format(plan.v));
    }
    let head = serde_json::from_str::<HeadLine<PlanHead>>(line).map(|line| line.plan).map_err(BadPlan::Line)?;
    // The journal's file and its items in the history are named after it: an id must not lead anywhere else.
    if [Some(&head.id), head.undoes.as_ref()].into_iter().flatten().all(|id| is_id(id)) {
        Ok(head)
    } else {
        Err(BadPlan::Id)
    }
}

/// Whether a text can be the id of a restore: letters, digits and `-`.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
