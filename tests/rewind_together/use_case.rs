//! The use case without the CLI: the caller is notified when each container begins and ends.

use cosmos_rewind::{
    change::time::PointInTime,
    config::Names,
    context::Context,
    history::AnyContext,
    restore::{
        self, PlanLimits, Request, RestoreError, RunOptions, Targets,
        together::{ContainerPlan, OnePlan, Stage, pairs, plan_each},
    },
};

use super::Two;

#[tokio::test]
async fn a_restore_stopped_in_the_first_container_does_not_begin_in_the_second() {
    let two = Two::start().await;
    let names = |source: &str, changes: &str| {
        let [database, source, changes, leases] = ["dev", source, changes, "leases"].map(String::from);
        Names { database, source, changes, leases }
    };
    let all = [names("events", "changes"), names("orders", "order-changes")];
    let cx = Context::new(&two.app.cosmos, &all[0]).any();
    let at = PointInTime::from_epoch(two.now - 1800);
    let plans = plan_each::<RestoreError>(&all, &cx, async |_, containers, cx| {
        let request = Request { together: pairs(&all), ..Request::at(Targets::All, at) };
        Ok(restore::plan(&request, containers, cx).await.map(OnePlan::from))
    });
    let plans = plans.await.unwrap();
    assert_eq!((plans.parts.len(), plans.writes(), plans.is_odd(), plans.alone().is_none()), (2, 2, false, true));
    assert!(plans.approve(&PlanLimits { max: 1, max_deletes: None }).is_err(), "the limits apply to both");

    let approvals = plans.approve(&PlanLimits { max: 2, max_deletes: None }).unwrap();
    let journal = two.app.folder.path().join("journals");
    let options = RunOptions { force: false, concurrency: 4, ru_limit: None, journal };
    let apply = async |cx: &AnyContext<'_>| {
        let mut told = Vec::new();
        let tell = |part: &ContainerPlan, stage| match stage {
            Stage::Begun => told.push(part.names.source.clone()),
            Stage::Ended(report) => told.push(format!("{} written, {} not", report.results.done, report.not_begun)),
        };
        plans.apply(&approvals, &options, cx, tell).await.unwrap();
        told
    };
    let stopped = Context { stop: Default::default(), ..cx.clone() };
    stopped.stop.cancel();
    assert_eq!(apply(&stopped).await, ["events", "0 written, 1 not"]);
    assert_eq!(two.states().await, ["bad", "bad"]);
}
