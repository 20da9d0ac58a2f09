//! A short incident after the proof of capture: damage, find, plan, revert, undo. The proofs compare with what the demo
//! itself wrote, never with the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, value::RawValue};

use super::{DemoError, WRITERS};
use crate::{
    change::{
        edit::{quote, set},
        key::{KeyValue, PartitionKey},
        merge::MergeRules,
        record::own_text,
        time::PointInTime,
    },
    config::Names,
    context::Context,
    cosmos::{Container, Cosmos, Failure, Retry},
    figures::count_of,
    find::{self, Condition},
    history::{AnyContext, Containers},
    local::trigger::Trigger,
    progress::Progress,
    restore::{
        self, Approval, PlanLimits, RestoreError, RunOptions, Targets, UndoRequest, Use, plan::Action, plan_file::Plan,
    },
    revert,
};

/// The number of documents that the bad writer writes, if there are that many.
const DAMAGED: usize = 20;
/// The number of fields of the plan that are shown.
const SHOWN: usize = 2;
/// The wrong value.
const WRONG: &str = "Nowhere";
/// The bad writer.
const BAD: &str = "job-42";
/// The writer of all other changes.
const HONEST: &str = "ann";
/// Matches the writes to revert. Before the incident no document names its writer.
const FILTER: &str = r#"has(doc.updatedBy) && doc.updatedBy == "job-42""#;
/// The predicate to search for.
const WHEN: &str = r#"doc.city_name == "Nowhere""#;

/// The result of the incident.
#[derive(Debug, Clone, Default)]
pub struct Incident {
    /// Documents that the bad writer changed.
    pub damaged: usize,
    /// The honest writer's writes, during the incident and afterwards.
    pub honest: usize,
    /// Documents in which the wrong value was found.
    pub found: u64,
    /// Documents that the plan writes.
    pub planned: usize,
    /// Documents that the revert wrote.
    pub reverted: usize,
    /// Documents that the undo wrote.
    pub undone: usize,
    /// Violations of what must hold; empty means that everything is proved.
    pub problems: Vec<String>,
}

/// The documents' texts without system properties, by id.
type Texts = BTreeMap<String, String>;

/// The environment of the incident.
pub(super) struct IncidentPlace<'a> {
    pub names: &'a Names,
    pub cosmos: &'a Cosmos,
    pub source: &'a Container,
    pub trigger: &'a Trigger,
    pub folder: &'a Path,
    /// Latest-version mode cannot tell whether versions are missing. Here none are: everything is captured between the
    /// rounds, and no document is written twice within a round.
    pub assume_no_gaps: bool,
    /// How long to wait for the last change.
    pub patience: Duration,
    pub progress: &'a dyn Progress,
}

/// Runs the incident, and reports each step when it is done.
pub(super) async fn play(place: &IncidentPlace<'_>) -> Result<Incident, DemoError> {
    let mut incident = Incident::default();
    let mut expected = place.documents().await?;
    let damaged = place.damage(&mut expected, &mut incident).await?;

    let context = Context::new(place.cosmos, place.names);
    let cx = context.any();
    let Some((from, to)) = place.find(&damaged, &cx, &mut incident).await? else { return Ok(incident) };

    let before = place.documents().await?;
    let containers = restore::open(None, &cx).await?;
    let request = revert::Request {
        filter: Some(FILTER.into()),
        rules: MergeRules { bookkeeping: vec![vec!["updatedBy".into()]], ..MergeRules::default() },
        assume_no_gaps: place.assume_no_gaps,
        ..revert::Request::of(Targets::All, from, to)
    };
    let planned = revert::plan(&request, &containers, &cx).await?;
    incident.planned = planned.plan.totals.writes;
    place.show(&planned)?;
    incident.reverted = place.apply(&planned.plan, &containers, &cx, &mut incident.problems).await?;
    place.note("reverted", &count_of(incident.reverted as u64, "document"));
    let wrong = differences(&expected, &place.documents().await?, same_values);
    if wrong.is_empty() {
        let documents = count_of(expected.len() as u64, "document");
        place.note("proved", &format!("{documents}: every honest value is there, and no wrong one"));
    }
    incident.problems.extend(wrong.iter().map(|id| format!("{id}: not what the honest writes made of it")));

    let undo = UndoRequest {
        restore: planned.plan.head.id.clone(),
        journal: place.journal(),
        concurrency: WRITERS,
        ru_limit: None,
    };
    let (plan, containers) = restore::undo(&undo, &cx).await?;
    incident.undone = place.apply(&plan, &containers, &cx, &mut incident.problems).await?;
    place.note("undone", &count_of(incident.undone as u64, "document"));
    let wrong = differences(&before, &place.documents().await?, |a, b| a == b);
    if wrong.is_empty() {
        let documents = count_of(before.len() as u64, "document");
        place.note("proved", &format!("{documents}: byte for byte as before the revert"));
    }
    incident.problems.extend(wrong.iter().map(|id| format!("{id}: not what it was before the revert")));
    Ok(incident)
}

impl IncidentPlace<'_> {
    fn note(&self, label: &str, text: &str) {
        self.progress.note(&format!("{label:<10} {text}"));
    }

    fn journal(&self) -> std::path::PathBuf {
        self.folder.join("journal")
    }

    /// A bad writer sets a wrong value. An honest one writes other documents at the same time, and then some of the
    /// damaged ones without noticing the wrong value. `expected` only receives the honest writes.
    async fn damage(&self, expected: &mut Texts, incident: &mut Incident) -> Result<BTreeSet<String>, DemoError> {
        let every = (expected.len() / DAMAGED).max(1);
        let ids = || expected.keys().cloned().enumerate();
        let damaged: Vec<String> = ids().filter(|(i, _)| i % every == 0).map(|(_, id)| id).take(DAMAGED).collect();
        let beside: Vec<String> = ids().filter(|(i, _)| i % every != 0).map(|(_, id)| id).take(2 * DAMAGED).collect();
        let after: Vec<String> = damaged.iter().step_by(2).cloned().collect();

        let bad = edits(expected, &damaged, &[("city_name", quote(WRONG)), ("updatedBy", quote(BAD))])?;
        let honest = edits(expected, &beside, &visit(1))?;
        tokio::try_join!(self.write(&bad), self.write(&honest))?;
        expected.extend(honest);
        self.trigger.wait_until_drained(self.patience).await?;

        let live = self.documents().await?;
        self.write(&edits(&live, &after, &visit(2))?).await?;
        let honest = edits(expected, &after, &visit(2))?;
        expected.extend(honest);
        self.trigger.wait_until_drained(self.patience).await?;

        (incident.damaged, incident.honest) = (damaged.len(), beside.len() + after.len());
        let documents = count_of(damaged.len() as u64, "document");
        let (beside, after) = (count_of(beside.len() as u64, "other"), after.len());
        self.note(
            "damage",
            &format!(
                "{BAD} sets a wrong city_name in {documents}; {HONEST} writes {beside}, then {after} of the damaged"
            ),
        );
        Ok(damaged.into_iter().collect())
    }

    /// Searches the history for the wrong value: the first and the last write that introduced it. Returns `None` when
    /// it is not found where it must be.
    async fn find(
        &self,
        damaged: &BTreeSet<String>,
        cx: &AnyContext<'_>,
        incident: &mut Incident,
    ) -> Result<Option<(PointInTime, PointInTime)>, DemoError> {
        let request =
            find::Request { actor: Some(vec!["updatedBy".into()]), ..find::Request::all(Condition::expression(WHEN)?) };
        let mut ids = BTreeSet::new();
        let report = find::find(request, cx, |write| {
            ids.insert(write.item.id);
            ControlFlow::Continue(())
        });
        let report = report.await?;
        incident.found = report.found;
        let Some((first, last)) = report.span.filter(|_| ids == *damaged) else {
            let found = count_of(report.found, "document");
            incident.problems.push(format!("find: {} are damaged, it names {found} and not these", damaged.len()));
            return Ok(None);
        };
        let (from, to) = (PointInTime::from_epoch(first), PointInTime::from_epoch(last));
        let when = if first == last { format!("at {from}") } else { format!("from {from} to {to}") };
        let by: Vec<&str> = report.actors.top(DAMAGED).0.into_iter().map(|(who, _)| who.trim_matches('"')).collect();
        let found = count_of(report.found, "document");
        self.note("find", &format!("{WHEN}: {found}, {when}, by {}", by.join(", ")));
        Ok(Some((from, to)))
    }

    /// Shows what a plan would do, with some of the values.
    fn show(&self, planned: &revert::PlannedRevert) -> Result<(), RestoreError> {
        let totals = &planned.plan.totals;
        let count = |action| totals.count(action);
        self.note(
            "plan",
            &format!(
                "revert what {BAD} wrote: {} restore, {} keep, {} unknown, {} in conflict",
                count(Action::Restore),
                count(Action::Keep),
                count(Action::Unknown),
                totals.conflicts
            ),
        );
        let value = |value: &Option<Box<RawValue>>| value.as_ref().map_or("none".to_owned(), |v| v.get().to_owned());
        let mut shown = 0;
        for field in planned.fields.iter()? {
            let field = field?;
            if shown < SHOWN && field.path == "/city_name" {
                shown += 1;
                self.note(
                    "",
                    &format!("{} {}: {} -> {}", field.id, field.path, value(&field.ours), value(&field.base)),
                );
            }
        }
        Ok(())
    }

    /// Applies a plan and counts its writes.
    async fn apply(
        &self,
        plan: &Plan,
        containers: &Containers,
        cx: &AnyContext<'_>,
        problems: &mut Vec<String>,
    ) -> Result<usize, DemoError> {
        let approval = Approval::of(plan, &PlanLimits { max: DAMAGED, max_deletes: None })?;
        let this = Use { run: &plan.head.id, made_now: true, texts: None };
        let options = RunOptions { force: false, concurrency: WRITERS, ru_limit: None, journal: self.journal() };
        let report = restore::apply(plan, &approval, this, &options, containers, cx).await?;
        if !report.is_complete() {
            problems.push(format!("{} of {} documents were written", report.results.done, plan.totals.writes));
        }
        Ok(report.results.done)
    }

    /// Returns all live documents as their writers wrote them.
    async fn documents(&self) -> Result<Texts, DemoError> {
        let mut texts = Texts::new();
        let mut pages = self.source.query("SELECT * FROM c", &[], None, None).await?;
        while let Some(page) = pages.next().await {
            for document in page?.documents {
                let text = own_text(document.get()).map_err(not_understood)?;
                let parsed: Value = serde_json::from_str(&text).map_err(not_understood)?;
                texts.insert(parsed["id"].as_str().unwrap_or_default().to_owned(), text);
            }
        }
        Ok(texts)
    }

    async fn write(&self, texts: &Texts) -> Result<(), DemoError> {
        let retry = &Retry::for_at_most(Duration::from_secs(30));
        stream::iter(texts)
            .map(|(id, text)| async move {
                let key = PartitionKey(vec![KeyValue::String(id.clone())]);
                retry.run(|| self.source.upsert(&key, id, text.clone().into_bytes())).await.map(drop)
            })
            .buffer_unordered(WRITERS)
            .try_collect::<()>()
            .await?;
        Ok(())
    }
}

/// The fields that the honest writer sets.
fn visit(number: u32) -> [(&'static str, String); 2] {
    [("visits", number.to_string()), ("updatedBy", quote(HONEST))]
}

/// Returns some of the documents with these fields set.
fn edits(texts: &Texts, ids: &[String], members: &[(&str, String)]) -> Result<Texts, DemoError> {
    let mut edited = Texts::new();
    for id in ids {
        let mut text = texts.get(id).cloned().unwrap_or_default();
        for (name, value) in members {
            text = set(&text, &[(*name).to_owned()], value).map_err(|e| Failure::invalid("edit item".into(), e))?;
        }
        edited.insert(id.clone(), text);
    }
    Ok(edited)
}

/// Returns the ids of documents that differ or that only one side has.
fn differences(expected: &Texts, found: &Texts, same: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let ids: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differs = |id: &&String| match (expected.get(*id), found.get(*id)) {
        (Some(expected), Some(found)) => !same(expected, found),
        _ => true,
    };
    ids.into_iter().filter(differs).cloned().collect()
}

/// Whether two texts have the same fields, in any order.
fn same_values(one: &str, other: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || parsed(one).is_some_and(|one| Some(one) == parsed(other))
}

fn not_understood(error: serde_json::Error) -> Failure {
    Failure::invalid("query items".into(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[(&str, &str)]) -> Texts {
        all.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn wrong_missing_and_surplus_documents_are_detected() {
        let expected = texts(&[("a", r#"{"id":"a","n":1,"by":"x"}"#), ("b", r#"{"id":"b","n":1}"#)]);
        let found = |a: &str| texts(&[("a", a), ("b", r#"{"id":"b","n":1}"#)]);
        let other_order = found(r#"{"by":"x","id":"a","n":1}"#);
        assert!(differences(&expected, &other_order, same_values).is_empty());
        assert_eq!(differences(&expected, &other_order, |a, b| a == b), ["a"]);
        for wrong in [r#"{"id":"a","n":2,"by":"x"}"#, r#"{"id":"a","n":1}"#, r#"{"id":"a","n":1,"by":"x","m":1}"#, "{"]
        {
            assert_eq!(differences(&expected, &found(wrong), same_values), ["a"], "{wrong}");
        }
        let one = texts(&[("b", r#"{"id":"b","n":1}"#)]);
        assert_eq!(differences(&expected, &one, same_values), ["a"]);
        assert_eq!(differences(&one, &expected, same_values), ["a"]);
    }
}
