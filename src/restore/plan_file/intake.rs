//! A plan that is read, of a file that anybody may have edited.

use std::io;

use serde::Deserialize;

use super::{EndLine, Head, HeadLine, Plan, Totals, draft::Out};
use crate::restore::plan::{PLAN_VERSION, PlanTarget, Step};

/// A plan that is read: checked line by line and copied, so that what was checked is what is used.
pub(in crate::restore) struct Intake {
    head: Option<Head>,
    out: Out,
    totals: Totals,
    ended: bool,
}

impl Intake {
    pub(in crate::restore) fn new() -> io::Result<Self> {
        Ok(Self { head: None, out: Out::new()?, totals: Totals::default(), ended: false })
    }

    pub(in crate::restore) fn line(&mut self, line: &str, place: Option<&PlanTarget>) -> Result<(), String> {
        const EDITED: &str = "was edited or damaged, its checksum does not match: make a new plan";
        let no_plan = |e: serde_json::Error| format!("is not a plan: {e}");
        if self.ended {
            return if line.trim().is_empty() { Ok(()) } else { Err(EDITED.into()) };
        }
        if self.head.is_none() {
            let head = head(line)?;
            if let Some(place) = place.filter(|place| **place != head.place) {
                let shown = |p: &PlanTarget| format!("{} {}/{} -> {}", p.account, p.database, p.changes, p.target);
                return Err(format!("was made for {}, not for {}", shown(&head.place), shown(place)));
            }
            self.head = Some(head);
        } else if let Ok(EndLine { end }) = serde_json::from_str::<EndLine>(line) {
            if end.steps != self.totals.steps || end.sha256 != self.out.sum() {
                return Err(EDITED.into());
            }
            self.ended = true;
            return Ok(());
        } else {
            let step: Step = serde_json::from_str(line).map_err(no_plan)?;
            step.item().map_err(|e| format!("is not a plan: {e}"))?;
            self.totals.add(&step);
        }
        self.out.line(line).map_err(|e| format!("cannot be copied: {e}"))
    }

    pub(in crate::restore) fn finish(self) -> Result<Plan, String> {
        let head = self.head.ok_or("is not a plan: it is empty")?;
        if !self.ended {
            return Err("is not whole, its last line is missing: make a new plan".into());
        }
        let (file, size) = self.out.end(self.totals.steps).map_err(|e| format!("cannot be copied: {e}"))?;
        Ok(Plan { head, totals: self.totals, file, size })
    }
}

/// The first line. The format's version is looked at before anything else.
fn head(line: &str) -> Result<Head, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    #[derive(Deserialize)]
    struct First {
        #[serde(rename = "_plan", alias = "plan")]
        plan: Version,
    }
    let no_plan = |e: serde_json::Error| format!("is not a plan: {e}");
    let First { plan } = serde_json::from_str(line).map_err(no_plan)?;
    if plan.v != PLAN_VERSION {
        return Err(format!("is of plan format {}, this program knows {PLAN_VERSION}: make a new plan", plan.v));
    }
    let head = serde_json::from_str::<HeadLine<Head>>(line).map(|line| line.plan).map_err(no_plan)?;
    // The journal's file and its items in the history are named after it: an id must not lead anywhere else.
    if [Some(&head.id), head.undoes.as_ref()].into_iter().flatten().all(|id| is_id(id)) {
        Ok(head)
    } else {
        Err("is not a plan: its id is not one".into())
    }
}

/// Whether a text can be the id of a restore: letters, digits and `-`.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
