//! Walks the history and deletes: for `Plan::apply` all at once, for the timer function part by part.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::policy::{KeepReason, ROUNDS, RetentionPlan};
use crate::{
    change::{
        key::{ItemKey, KeyPaths},
        record::layout::key_of_other,
        version::BadRecord,
    },
    cosmos::{Concurrency, Failure, HashRange, Observer, RuLimiter, WriteAction, WriteJob, WriteTally, Writers},
    history::{
        Account, Containers,
        reading::Journals,
        removals,
        scan::{Scan, ScannedItem, Scope},
    },
    restore::{journal, price::history_item_ru},
};

/// The approximate size of a record, for the forecast.
const RECORD: usize = 1024;

/// Counts of the versions that were found, kept and removed.
#[derive(Debug, Default, Serialize)]
pub struct Sums {
    /// Documents that were examined.
    #[serde(rename = "documents")]
    pub items: u64,
    /// Their versions.
    pub versions: u64,
    /// How many versions stay, by reason.
    pub reasons: BTreeMap<KeepReason, u64>,
    /// Versions removed, or to be removed.
    pub removed: u64,
    /// Documents of which nothing remains.
    pub forgotten: u64,
    /// Journals of restores that are removed.
    pub journals: u64,
    /// The items in them.
    #[serde(skip)]
    pub journal_items: u64,
    /// Records that could not be deleted.
    pub failed: u64,
}

impl Sums {
    /// Adds the sums of another part.
    pub fn add(&mut self, other: Self) {
        self.items += other.items;
        self.versions += other.versions;
        other.reasons.into_iter().for_each(|(reason, n)| *self.reasons.entry(reason).or_default() += n);
        self.removed += other.removed;
        self.forgotten += other.forgotten;
        self.journals += other.journals;
        self.journal_items += other.journal_items;
        self.failed += other.failed;
    }

    /// The estimated request units of the removal.
    pub fn forecast(&self) -> f64 {
        (self.removed + self.journal_items) as f64 * history_item_ru(RECORD, 0)
    }
}

/// The place of a record does not follow from its document's key, so that it cannot be deleted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{history} is keyed {changes}, and where a record lies does not follow from its document's key ({source_key})")]
pub struct UnknownPlace {
    /// The history.
    history: String,
    /// Its key.
    changes: KeyPaths,
    /// The source's.
    source_key: KeyPaths,
}

/// Checks whether a history can be pruned: the place of a record has to follow from its document's key.
///
/// # Errors
/// With the keys of both containers.
pub(super) fn check(containers: &Containers) -> Result<(), UnknownPlace> {
    let layout = containers.changes.layout();
    if layout.addresses_records() {
        return Ok(());
    }
    Err(UnknownPlace {
        history: containers.changes.name().to_owned(),
        changes: layout.changes().clone(),
        source_key: layout.source().clone(),
    })
}

/// One run of a prune.
pub(super) struct Pruning<'a> {
    /// The account.
    pub(super) account: &'a dyn Account,
    /// The containers.
    pub(super) containers: &'a Containers,
    /// Request units a second.
    pub(super) pace: &'a RuLimiter,
    /// The instants to keep.
    pub(super) kept: &'a RetentionPlan,
    /// Deletes in flight.
    pub(super) concurrency: usize,
    /// Is told of each record that is deleted, or could not be.
    pub(super) observer: &'a Observer,
    /// Once it is cancelled, no further piece is begun. A piece in progress is finished all the same: otherwise one
    /// that takes longer than a tick would never be done.
    pub(super) stop: &'a CancellationToken,
    /// Once it is cancelled, even the piece in progress is given up.
    pub(super) give_up: &'a CancellationToken,
}

/// The result of a pass.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Sums.
    pub(super) sums: Sums,
    /// The failure that every further delete would have met, too, or that of a read after some deletes.
    pub(super) fatal: Option<Failure>,
    /// The ranges that remain.
    pub(super) left: Vec<HashRange>,
    /// Records that cannot be parsed: they stay.
    pub(super) bad: Vec<BadRecord>,
}

impl Pruning<'_> {
    /// Walks ranges of the history; deletes, or only counts. `each` is told how many versions were examined.
    ///
    /// # Errors
    /// When the history cannot be counted.
    pub(super) async fn pass(
        &self,
        hash_ranges: &[HashRange],
        delete: bool,
        mut each: impl FnMut(u64),
    ) -> Result<Passed, Failure> {
        let mut passed = Passed::default();
        let mut left: Vec<Option<HashRange>> = hash_ranges.iter().copied().map(Some).collect();
        let scan = Scan::facts(self.containers, &Scope::All, hash_ranges, self.pace);
        let (mut noted, mut noted_drop) = (false, false);
        let mut pieces = std::pin::pin!(scan.pieces());
        while !self.stop.is_cancelled()
            && let Some(Some(piece)) = self.give_up.run_until_cancelled(pieces.next()).await
        {
            let mut piece = match piece {
                Ok(piece) => piece,
                // What was removed before is told all the same.
                Err(failure) if delete => {
                    passed.fatal = Some(failure);
                    break;
                }
                Err(failure) => return Err(failure),
            };
            passed.bad.append(&mut piece.bad);
            let mut rounds: [Vec<WriteJob>; ROUNDS] = Default::default();
            let forgotten = passed.sums.forgotten;
            for found in &piece.found {
                each(found.versions.len() as u64);
                self.choose(found, &mut passed.sums, &mut rounds);
            }
            if delete && rounds.iter().any(|round| !round.is_empty()) {
                // Removed versions can no longer testify, and readers have to know that.
                let drops = passed.sums.forgotten > forgotten;
                if !noted || (drops && !noted_drop) {
                    let before = drops.then(|| self.kept.earliest());
                    if let Err(failure) = self.note(before).await {
                        passed.fatal = Some(failure);
                        break;
                    }
                    (noted, noted_drop) = (true, noted_drop || drops);
                }
            }
            if delete {
                for round in rounds {
                    let (tally, fatal) = self.delete(round, self.give_up).await;
                    passed.sums.removed += tally.deleted;
                    passed.sums.failed += tally.failed;
                    passed.fatal = fatal;
                    // A round only begins when all earlier ones are complete.
                    if passed.fatal.is_some() || tally.left > 0 || self.give_up.is_cancelled() {
                        passed.left = left.into_iter().flatten().collect();
                        return Ok(passed);
                    }
                    if tally.failed > 0 {
                        break;
                    }
                }
            } else {
                passed.sums.removed += rounds.iter().map(Vec::len).sum::<usize>() as u64;
            }
            if let Some((number, rest)) = piece.walked {
                left[number] = Some(rest).filter(|rest| !rest.is_empty());
            }
        }
        passed.left = left.into_iter().flatten().collect();
        Ok(passed)
    }

    /// Notes in the history that versions of before the window are gone; `before` is the time up to which documents are
    /// forgotten.
    async fn note(&self, before: Option<i64>) -> Result<(), Failure> {
        let now = self.account.time().await?;
        removals::note(&*self.containers.changes, self.kept.window, before, now).await
    }

    /// Adds the records of an item to the rounds in which they are removed.
    fn choose(&self, found: &ScannedItem, sums: &mut Sums, rounds: &mut [Vec<WriteJob>; ROUNDS]) {
        sums.items += 1;
        sums.versions += found.versions.len() as u64;
        let decided = self.kept.decide(&found.versions);
        sums.forgotten += u64::from(decided.iter().all(Option::is_none));
        decided.iter().flatten().for_each(|reason| *sums.reasons.entry(*reason).or_default() += 1);
        for (version, round) in found.versions.iter().zip(RetentionPlan::rounds(&found.versions, &decided)) {
            let Some(round) = round else { continue };
            let Some(key) = self.containers.record_key(&found.item, &version.record_id) else { continue };
            let item = ItemKey { id: version.record_id.clone(), partition_key: key };
            rounds[round].push(WriteJob { item, action: WriteAction::Delete });
        }
    }

    async fn delete(&self, jobs: Vec<WriteJob>, stop: &CancellationToken) -> (WriteTally, Option<Failure>) {
        if jobs.is_empty() {
            return (WriteTally::default(), None);
        }
        let (changes, pace) = (self.containers.changes.clone(), self.pace.clone());
        let writers = Writers::start(changes, Concurrency::AtMost(self.concurrency), pace, self.observer.clone(), stop);
        for job in jobs {
            if !writers.send(job).await {
                break;
            }
        }
        writers.finish().await
    }

    /// The journals of restores that ended before the window.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) async fn journals(&self, delete: bool, sums: &mut Sums) -> Result<Option<Failure>, Failure> {
        let changes = &self.containers.changes;
        let mut by_restore: BTreeMap<String, (i64, Vec<String>)> = BTreeMap::new();
        let mut pages = changes.journal_items(Journals::Index);
        loop {
            self.pace.wait().await;
            let Some(page) = pages.next().await else { break };
            for item in page? {
                if removals::is_mark(&item.group) {
                    continue;
                }
                let entry = by_restore.entry(item.group).or_insert((i64::MIN, Vec::new()));
                entry.0 = entry.0.max(item.ts);
                entry.1.push(item.id);
            }
        }
        let old = by_restore.into_iter().filter(|(_, (ts, _))| *ts < self.kept.window);
        let (mut heads, mut rest) = (Vec::new(), Vec::new());
        let (mut journals, mut items) = (0, 0);
        for (group, (_, ids)) in old {
            journals += 1;
            items += ids.len() as u64;
            for id in ids {
                let is_head = journal::is_head(&id);
                let partition_key = key_of_other(changes.key_paths(), &group, &id);
                let job = WriteJob { item: ItemKey { id, partition_key }, action: WriteAction::Delete };
                (if is_head { &mut heads } else { &mut rest }).push(job);
            }
        }
        // Without its head a journal does not count; half a journal would be a restore that cannot be undone. So the rest
        // waits for the next run when a head stays.
        for wave in [heads, rest].into_iter().filter(|_| delete) {
            let (tally, fatal) = self.delete(wave, &CancellationToken::new()).await;
            sums.failed += tally.failed;
            if fatal.is_some() || tally.failed > 0 {
                return Ok(fatal);
            }
        }
        sums.journals += journals;
        sums.journal_items += items;
        Ok(None)
    }
}
