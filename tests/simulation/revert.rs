//! Honest writers and a bad one in memory, through the real capture. After a revert, every honest edit is intact, every
//! bad edit that nobody overwrote is gone, every conflict is listed, and nothing else has changed. The oracle keeps a
//! twin of each document: its state if the bad writer had never written. It has no notion of diffs, paths or versions.

use std::collections::{BTreeMap, BTreeSet};

use cosmos_rewind::{
    change::{key::PartitionKey, merge::MergeRules, time::PointInTime},
    cosmos::Items as _,
    restore::{self, Approval, PlanLimits, RestoreError, Targets, Use},
    revert,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    memory::{Contents, LAYOUTS, Place, World, contents},
    seed_after_seed,
};

const BAD: &str = "job-42";
const HONEST: [&str; 2] = ["ann", "bob"];
pub const LEAVES: [&str; 5] = ["/price", "/city", "/address/zip", "/address/street", "/tags"];

/// A document's leaves.
pub type Leaves = BTreeMap<&'static str, Value>;

/// The oracle's knowledge about one document.
#[derive(Default)]
pub struct Twin {
    /// The real document.
    real: Option<Leaves>,
    /// The document without the bad writer's edits.
    pub honest: Option<Leaves>,
    /// Paths that an honest writer set while they had a bad value, with the value before it.
    decided: BTreeMap<&'static str, Option<Value>>,
    /// The whole document before an honest writer deleted it, recreated it, or changed one that the bad writer had
    /// created.
    whole: Option<Option<Leaves>>,
}

impl Twin {
    pub fn write(&mut self, is_bad: bool, now: Option<Leaves>) {
        let before = std::mem::replace(&mut self.real, now.clone());
        if is_bad {
            return;
        }
        match (&before, &now, &mut self.honest) {
            (Some(before), Some(now), Some(honest)) => {
                for leaf in LEAVES.iter().chain(&["/by"]) {
                    let (was, is) = (before.get(leaf), now.get(leaf));
                    if was == is {
                        continue;
                    }
                    if honest.get(leaf) != was && honest.get(leaf) != is && *leaf != "/by" {
                        self.decided.entry(leaf).or_insert_with(|| honest.get(leaf).cloned());
                    }
                    match is {
                        Some(value) => honest.insert(leaf, value.clone()),
                        None => honest.remove(leaf),
                    };
                }
            }
            _ => {
                let honest = plain(&self.honest);
                if honest != plain(&before) && honest != plain(&now) {
                    let mut base = self.honest.clone();
                    for (leaf, value) in &self.decided {
                        match (&mut base, value) {
                            (Some(base), Some(value)) => base.insert(leaf, value.clone()),
                            (Some(base), None) => base.remove(leaf),
                            (None, _) => None,
                        };
                    }
                    self.whole.get_or_insert(base);
                }
                self.honest = now;
            }
        }
    }

    /// The paths in conflict.
    pub fn conflicts(&self) -> BTreeSet<String> {
        if let Some(base) = &self.whole {
            return if plain(base) == plain(&self.honest) { BTreeSet::new() } else { BTreeSet::from(["/".to_owned()]) };
        }
        let now = |leaf: &str| self.honest.as_ref().and_then(|honest| honest.get(leaf).cloned());
        self.decided.iter().filter(|(leaf, base)| now(leaf) != **base).map(|(leaf, _)| (*leaf).to_owned()).collect()
    }
}

/// Without the field that every writer sets.
fn plain(leaves: &Option<Leaves>) -> Option<Leaves> {
    leaves.clone().map(|leaves| leaves.into_iter().filter(|(leaf, _)| *leaf != "/by").collect())
}

pub fn document(place: &Place, leaves: &Leaves) -> Value {
    let mut document = json!({"id": place.0, "pk": serde_json::from_str::<Value>(&place.1).unwrap(), "address": {}});
    for (leaf, value) in leaves {
        let (parent, name) = leaf.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    document
}

struct Story {
    world: World,
    twins: BTreeMap<Place, Twin>,
}

impl Story {
    /// Writes a whole document in which a few leaves are new.
    async fn write(&mut self, rng: &mut StdRng, by: &'static str, with_whole: bool) {
        self.world.later(rng.random_range(0..3));
        let number = rng.random_range(0..12);
        let place = (format!("doc-{number}"), json!(number % 3).to_string());
        let twin = self.twins.entry(place.clone()).or_default();
        let key = PartitionKey::parse(&format!("[{}]", place.1)).unwrap();
        let source = &self.world.account.source;
        if with_whole && twin.real.is_some() && rng.random_bool(0.2) {
            source.delete(&key, &place.0, None).await.unwrap();
            twin.write(by == BAD, None);
            return;
        }
        let mut leaves = match (&twin.real, with_whole) {
            (Some(leaves), _) => leaves.clone(),
            (None, true) => Leaves::new(),
            (None, false) => return,
        };
        for _ in 0..rng.random_range(1..4) {
            let leaf = LEAVES[rng.random_range(0..LEAVES.len())];
            // Few distinct values, so that they repeat.
            let value = json!(rng.random_range(0..3));
            match rng.random_range(0..6) {
                0 => leaves.remove(leaf),
                _ if leaf == "/tags" => leaves.insert(leaf, json!([value, "x"])),
                _ => leaves.insert(leaf, value),
            };
        }
        leaves.insert("/by", by.into());
        source.upsert(&key, &place.0, document(&place, &leaves).to_string().into_bytes()).await.unwrap();
        twin.write(by == BAD, Some(leaves));
    }

    fn expected(&self) -> Contents {
        let honest = self.twins.iter().filter_map(|(place, twin)| Some((place, twin.honest.as_ref()?)));
        honest.map(|(place, leaves)| (place.clone(), document(place, leaves))).collect()
    }

    fn conflicts(&self) -> BTreeMap<Place, BTreeSet<String>> {
        let all = self.twins.iter().map(|(place, twin)| (place.clone(), twin.conflicts()));
        all.filter(|(_, paths)| !paths.is_empty()).collect()
    }
}

fn honest(rng: &mut StdRng) -> &'static str {
    HONEST[rng.random_range(0..HONEST.len())]
}

async fn play(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let layout = LAYOUTS[rng.random_range(0..LAYOUTS.len())];
    let mut story = Story { world: World::new(layout, seed), twins: BTreeMap::new() };
    let by_filter = rng.random_bool(0.5);
    let name = format!("seed {seed}, history keyed {layout:?}, {}", if by_filter { "by a filter" } else { "a window" });
    // All initial documents are honest.
    for _ in 0..15 {
        let by = honest(&mut rng);
        story.write(&mut rng, by, true).await;
    }
    story.world.later(2);
    let from = story.world.now;
    for _ in 0..rng.random_range(1..40) {
        // With a filter, the writers alternate. A delete cannot be attributed by a filter, so only honest writers
        // delete.
        let by = if by_filter && rng.random_bool(0.5) { honest(&mut rng) } else { BAD };
        let with_whole = !by_filter || by != BAD;
        story.write(&mut rng, by, with_whole).await;
    }
    let to = story.world.now;
    story.world.later(2);
    for _ in 0..rng.random_range(0..30) {
        let by = honest(&mut rng);
        story.write(&mut rng, by, true).await;
    }
    story.world.later(2);
    story.world.capture(&mut rng).await;

    let (expected, before) = (story.expected(), contents(&story.world.account.source));
    let world = &story.world;
    let cx = world.cx();
    let containers = restore::open(None, &cx).await.unwrap();
    let request = revert::Request {
        filter: by_filter.then(|| format!("op != \"delete\" && doc.by == {BAD:?}")),
        rules: MergeRules { bookkeeping: vec![vec!["by".into()]], ..MergeRules::default() },
        delete_created: true,
        concurrency: 4,
        ..revert::Request::of(Targets::All, PointInTime::from_epoch(from), PointInTime::from_epoch(to))
    };
    let planned = match revert::plan(&request, &containers, &cx).await {
        Err(RestoreError::NothingToRevert { .. }) => {
            assert_eq!(expected, before, "{name}: nothing to revert");
            return;
        }
        planned => planned.unwrap(),
    };
    let plan = &planned.plan;
    let steps: Vec<_> = plan.steps().map(Result::unwrap).collect();
    let unknown: Vec<_> = steps.iter().filter(|step| step.action == restore::plan::Action::Unknown).collect();
    assert!(unknown.is_empty(), "{name}: {unknown:?}");
    let place = |id: &str, pk: &Value| (id.to_owned(), pk[0].to_string());
    let listed: BTreeMap<Place, BTreeSet<String>> = steps
        .iter()
        .filter(|step| !step.conflicts.is_empty())
        .map(|step| (place(&step.id, &step.pk), step.conflicts.iter().cloned().collect()))
        .collect();
    assert_eq!(listed, story.conflicts(), "{name}: conflicts");

    let approval = Approval::of(plan, &PlanLimits { max: 100, max_deletes: Some(100) }).unwrap();
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    let writes = world.account.source.written().len();
    let report = restore::apply(plan, &approval, this, &world.options(), &containers, &cx).await.unwrap();
    assert_eq!(report.is_complete(), listed.is_empty(), "{name}: {report:?}");
    assert_eq!(report.results.done, plan.totals.writes, "{name}: {report:?}");
    assert_eq!(contents(&world.account.source), expected, "{name}: reverted");
    let written = &world.account.source.written()[writes..];
    let differ = story.twins.values().filter(|twin| twin.real != twin.honest).count();
    assert_eq!(written.len(), differ, "{name}: nothing else is written");
    if report.outcomes.is_some() {
        let undone = world.undo(&plan.head.id).await;
        assert!(undone.is_complete(), "{name}: {undone:?}");
        assert_eq!(contents(&world.account.source), before, "{name}: undone");
    }
}

#[test]
fn no_honest_edit_is_lost_and_no_bad_one_stays() {
    seed_after_seed("REVERT", 100, play);
}
