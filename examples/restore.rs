//! Restores documents to a moment with the library alone: plan, review, approve, apply.
//!
//! `cargo run --example restore -- http://127.0.0.1:8081/ 2026-11-20T14:05:00Z`

use cosmos_rewind::{
    change::time::PointInTime,
    config::{AccountSettings, Names, Settings},
    context::Context,
    cosmos::Cosmos,
    restore::{self, Approval, PlanLimits, Request, RunOptions, Targets, Use},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().ok_or("which account?")?;
    let at = PointInTime::parse(&args.next().ok_or("which moment?")?, &chrono::Local::now())?;
    let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", endpoint)]);
    let cosmos = Cosmos::new(AccountSettings::from_settings(&settings)?);
    let names = Names::from_settings(&settings, None)?;
    let cx = Context::new(&cosmos, &names).any();

    let containers = restore::open(None, &cx).await?;
    let plan = restore::plan(&Request::at(Targets::All, at), &containers, &cx).await?.plan;
    println!("{} documents will be written", plan.totals.writes);
    let approval = Approval::of(&plan, &PlanLimits { max: 100, max_deletes: None })?;
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    let options = RunOptions { force: false, concurrency: 16, ru_limit: None, journal: "journal".into() };
    let report = restore::apply(&plan, &approval, this, &options, &containers, &cx).await?;
    println!("{} written; undo {}", report.results.done, plan.head.id);
    Ok(())
}
