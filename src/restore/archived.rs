//! Plans with versions from an archive of `follow` instead of the history. Everything else is as usual: the live
//! documents are read, saved in the history before they are overwritten, and the journal allows an undo.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    apply::Applier,
    plan::{Action, Step, StepRules},
    plan_file::Draft,
    survey::{SurveyError, decided, noted, planned},
};
use crate::{
    archive::{
        WantedEvent,
        texts::KeptTexts,
        versions::{ArchiveFacts, ArchivedVersions},
    },
    change::{key::ItemKey, record::id_of_version, version::Version},
    cosmos::RuLimiter,
    history::{
        Containers,
        frontier::Reach,
        gone::DeleteSearch,
        live::{Live, live_index, look_at},
        removals::BlindSpots,
        scan::ScannedItem,
    },
};

/// Which documents.
#[derive(Debug)]
pub enum ArchiveScope {
    /// A list.
    Items(HashSet<ItemKey>),
    /// Those whose version at the moment passes the filter.
    Filtered,
    /// All of the archive and of the target.
    All,
}

/// Facts that are known in advance.
pub struct TargetFacts {
    /// The live documents, when all are in scope.
    live: HashMap<ItemKey, Live>,
    /// Versions whose texts will be needed.
    pub wanted: Vec<WantedEvent>,
}

/// Finds the versions that were in force and differ from the live documents, so that their texts can be read in one
/// pass.
///
/// # Errors
/// When the target cannot be read, or a temporary file.
pub async fn known(
    containers: &Containers,
    pace: &RuLimiter,
    facts: &ArchiveFacts,
    wish: &ArchiveScope,
    rules: StepRules,
) -> Result<TargetFacts, SurveyError> {
    let live = match wish {
        ArchiveScope::All => live_index(&*containers.target, pace).await?,
        ArchiveScope::Items(_) | ArchiveScope::Filtered => HashMap::new(),
    };
    let mut wanted = Vec::new();
    for part in facts.parts() {
        for of_item in part? {
            // A part of a document is not put back, and can match all the same.
            let is_usable = |version: &&Version| match wish {
                ArchiveScope::Filtered => !version.is_absent(),
                _ => !version.is_partial(),
            };
            let Some(version) = of_item.document_at(rules.at).filter(is_usable) else { continue };
            let is_live = live.get(&of_item.item).is_some_and(|live| is_of(version, &live.etag));
            if !is_live {
                wanted.extend(of_item.place_of(&version.record_id).cloned());
            }
        }
    }
    Ok(TargetFacts { live, wanted })
}

/// Whether a version has this etag, in a member or in its id.
fn is_of(version: &Version, etag: &str) -> bool {
    match &version.etag {
        Some(own) => own == etag,
        None => version.record_id == id_of_version(&version.id, etag),
    }
}

/// The versions together with the live document. The version that is live is recognised by its id.
fn found(of_item: &ArchivedVersions, live: Option<Live>) -> ScannedItem {
    let mut versions = of_item.versions.clone();
    if let Some(live) = &live {
        versions.iter_mut().filter(|v| is_of(v, &live.etag)).for_each(|v| v.etag = Some(live.etag.clone()));
    }
    ScannedItem { versions, live, ..ScannedItem::new(of_item.item.clone()) }
}

/// An archive that has been read.
pub struct Archived<'a> {
    /// Its versions.
    pub facts: &'a ArchiveFacts,
    /// The texts that are needed.
    pub texts: &'a KeptTexts,
    /// Which documents.
    pub wish: &'a ArchiveScope,
    /// Facts about the target.
    pub known: TargetFacts,
    /// Looks for documents that are gone without a delete.
    pub gone: DeleteSearch<'a>,
}

/// Adds one step for each item in scope, and reports progress to `each`.
///
/// # Errors
/// When the target cannot be read, or the plan cannot be written.
pub async fn survey(
    archived: Archived<'_>,
    applier: &Applier<'_>,
    rules: StepRules,
    concurrency: usize,
    draft: &mut Draft,
    mut each: impl FnMut(u64),
) -> Result<(), SurveyError> {
    let Archived { facts, texts, wish, known, gone } = archived;
    let mut live = known.live;
    let mut missing: HashSet<&ItemKey> = match wish {
        ArchiveScope::Items(items) => items.iter().collect(),
        ArchiveScope::Filtered | ArchiveScope::All => HashSet::new(),
    };
    let blind_spots = BlindSpots { begins: facts.begins, ..BlindSpots::NOTHING };
    let reach = Reach::of_all_but(&blind_spots);
    for part in facts.parts() {
        let mut items = Vec::new();
        for of_item in part? {
            missing.remove(&of_item.item);
            let here = live.remove(&of_item.item);
            // Whether a text that nobody knows passes the filter is not known.
            let is_chosen = |version: &Version| version.is_absent() || texts.has(&of_item.item, &version.record_id);
            if matches!(wish, ArchiveScope::Filtered) && !of_item.document_at(rules.at).is_some_and(is_chosen) {
                continue;
            }
            items.push((of_item, here));
        }
        let looked_at: Vec<_> = stream::iter(items)
            .map(|(of_item, here)| async move {
                let here = match wish {
                    ArchiveScope::All => here,
                    _ => look_at(&*applier.containers.target, &applier.pace, &of_item.item, None, true).await?,
                };
                Ok::<_, SurveyError>((found(&of_item, here), of_item))
            })
            .buffered(concurrency.max(1))
            .try_collect()
            .await?;
        let (mut all, items): (Vec<ScannedItem>, Vec<ArchivedVersions>) = looked_at.into_iter().unzip();
        gone.mark_archived(&mut all, rules.at).await?;
        let steps: Vec<_> = stream::iter(all.into_iter().zip(items))
            .map(|(found, of_item)| async move {
                let (mut step, hand) = decided(applier, found, reach, rules).await?;
                // A version in the archive need not be in the history.
                step.saved = false;
                if let Some(chosen) = &mut step.version {
                    chosen.archived = of_item.place_of(&chosen.record_id).map(|place| facts.place_below(place));
                }
                planned(applier, step, hand).await
            })
            .buffered(concurrency.max(1))
            .try_collect()
            .await?;
        noted(steps, draft, &mut each)?;
    }
    // Documents that the archive does not have.
    let mut rest: Vec<ScannedItem> = live
        .into_iter()
        .map(|(item, live)| ScannedItem { live: Some(live), ..ScannedItem::new(item) })
        .chain(missing.into_iter().map(|item| ScannedItem::new(item.clone())))
        .collect();
    rest.sort_by_cached_key(|found| found.item.sort_key());
    let mut steps = Vec::with_capacity(rest.len());
    for found in rest {
        let (step, _) = decided(applier, found, Reach::ALL, rules).await?;
        let notes = if step.action == Action::Unknown { vec!["no version in the archive".into()] } else { step.notes };
        steps.push(Step { notes, ..step });
    }
    Ok(noted(steps, draft, &mut each)?)
}
