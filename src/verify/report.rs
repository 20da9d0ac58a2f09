//! The report of `verify`: figures, and the findings of each check.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use serde_json::Value;

use super::check::{Check, Finding, Verdict};
use crate::{
    causes::chain,
    change::{key::ItemKey, version::BadRecord},
    history::removals::Hole,
};

/// The findings.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Live documents.
    pub documents: u64,
    /// Versions in the history.
    pub versions: u64,
    /// Of these: the Functions host may have altered them.
    pub normalized: u64,
    /// Documents so young that they may not be captured yet.
    pub pending: u64,
    /// Versions turned back into documents.
    pub sampled: u64,
    /// Live documents saved by this run.
    pub repaired: u64,
    /// Live documents deleted before they could be saved.
    pub gone: u64,
    /// Whether the work was told to stop; the report says nothing about what was not examined.
    pub interrupted: bool,
    /// The times in which changes may be missing, though nothing in the history looks missing.
    #[serde(skip)]
    pub holes: Vec<Hole>,
    /// The findings of each check, in the order of reports.
    pub checks: BTreeMap<Check, CheckReport>,
    /// Request units since the program began.
    pub ru: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// How many documents are named for each check.
    #[serde(skip)]
    most_named: usize,
    #[serde(skip)]
    started: Instant,
}

/// The findings of one check.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// The number of findings.
    pub count: u64,
    /// The first and the last second that they concern, epoch seconds.
    pub span: Option<(i64, i64)>,
    /// The first few of them.
    pub named: Vec<NamedFinding>,
}

/// A document that is named.
#[derive(Debug, Serialize)]
pub struct NamedFinding {
    /// Its id; the record's, when the document is unknown.
    pub id: String,
    /// Its partition key, as a JSON array of components.
    pub pk: Value,
    /// The finding, without any content of the document.
    pub detail: String,
}

impl Report {
    pub(super) fn new(most_named: usize) -> Self {
        Self {
            documents: 0,
            versions: 0,
            normalized: 0,
            pending: 0,
            sampled: 0,
            repaired: 0,
            gone: 0,
            interrupted: false,
            holes: Vec::new(),
            checks: Check::ALL.into_iter().map(|check| (check, CheckReport::default())).collect(),
            ru: 0.0,
            seconds: 0.0,
            most_named,
            started: Instant::now(),
        }
    }

    pub(super) fn add(&mut self, item: &ItemKey, finding: Finding) {
        let most = self.most_named;
        let found = self.checks.entry(finding.check).or_default();
        found.count += 1;
        if let Some((from, to)) = finding.span {
            found.span = Some(found.span.map_or((from, to), |(first, last)| (first.min(from), last.max(to))));
        }
        if found.named.len() < most {
            found.named.push(NamedFinding {
                id: item.id.clone(),
                pk: item.partition_key.to_json(),
                detail: finding.detail,
            });
        }
    }

    /// Counts a record that cannot be parsed, and names the first few.
    pub(super) fn set_aside(&mut self, bad: &BadRecord) {
        let most = self.most_named;
        let found = self.checks.entry(Check::Record).or_default();
        found.count += 1;
        if found.named.len() < most {
            found.named.push(NamedFinding { id: bad.record_id.clone(), pk: Value::Null, detail: chain(&bad.problem) });
        }
    }

    pub(super) fn count(&mut self, check: Check, more: u64) {
        self.checks.entry(check).or_default().count += more;
    }

    /// Ends the report with what the work cost, in request units.
    pub(super) fn close(&mut self, ru: f64) {
        self.ru = ru;
        self.seconds = self.started.elapsed().as_secs_f64();
    }

    /// The severity of a check's findings, without those that were repaired.
    pub fn verdict(&self, check: Check) -> Verdict {
        let count = self.checks.get(&check).map_or(0, |found| found.count);
        let mended = if check == Check::Missing { self.repaired + self.gone } else { 0 };
        if count > mended { check.severity() } else { Verdict::Ok }
    }

    /// The worst severity; after an incomplete run nobody can say that all is well.
    pub fn result(&self) -> Verdict {
        let least = if self.interrupted { Verdict::Warning } else { Verdict::Ok };
        Check::ALL.into_iter().map(|check| self.verdict(check)).fold(least, Verdict::max)
    }
}
