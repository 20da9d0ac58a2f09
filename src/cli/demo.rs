//! `demo`: the whole story on this machine, with its proof.

use std::time::{Duration, Instant};

use clap::Args;

use super::local::Mode;
use crate::{
    config::Settings,
    console::{
        CliError, Exit, Ui,
        render::demo::{print, summed_up},
    },
    format::Format,
    local::demo::{self, Incident, Report, Request},
    telemetry,
};

/// Flags of `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Writes: each a zip code picked at random, so that inserts are followed by updates
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Change feed mode; in `latest` a version replaced between two polls is never seen, as in the service
    #[arg(long, value_enum, default_value = "all-versions")]
    mode: Mode,
    /// Physical partitions, and with it leases that work at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Makes the random picks repeatable
    #[arg(long, value_name = "N", default_value_t = 35)]
    seed: u64,
    /// Seconds to wait for the last change
    #[arg(long, value_name = "S", default_value_t = 120)]
    patience: u64,
    /// Print the timeline and the summary in this format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When anything is missing, doubled, out of order or wrong, and when a part does not start.
pub async fn run(args: DemoArgs, ui: &Ui) -> Result<Exit, CliError> {
    telemetry::start(&Settings::environment(), telemetry::Stream::Stderr, "warn")?;
    let start = Instant::now();
    let request = Request {
        count: args.count,
        mode: args.mode.into(),
        partitions: args.partitions,
        seed: args.seed,
        patience: Duration::from_secs(args.patience),
    };
    let mut printed = Ok(Vec::new());
    let told = demo::run(&request, ui.screen(), |report| printed = print(ui, report, args.format, start)).await;
    let figures = printed?;
    if matches!(args.format, Format::Json | Format::Jsonl) && !figures.is_empty() {
        let incident = told.as_ref().ok().and_then(|(_, incident)| incident.as_ref());
        ui.summary(args.format, &[figures, vec![("incident", summed_up(incident))]].concat())?;
    }
    let (report, incident) = told?;
    judge(&report, incident.as_ref())
}

/// Fails when anything is not as it must be.
fn judge(report: &Report, incident: Option<&Incident>) -> Result<Exit, CliError> {
    if report.letters > 0 {
        return Err(CliError::failed(format!("{} changes went to the dead-letter store", report.letters)));
    }
    let failed = |problems: &[String], place: &str| {
        let shown = problems.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        Err(CliError::failed(format!("{} problems {place}:\n  {shown}", problems.len())))
    };
    if let Err(problems) = &report.proof {
        return failed(problems, "in the history");
    }
    match incident {
        Some(incident) if incident.problems.is_empty() => Ok(Exit::Done),
        Some(incident) => failed(&incident.problems, "in the incident"),
        None => Err(CliError::failed("the incident was not played")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            documents: 1,
            written: 1,
            captured: 1,
            took: Duration::from_secs(1),
            invocations: 1,
            lags: Vec::new(),
            charged: 0.0,
            letters: 0,
            timeline: None,
            proof: Ok("all".into()),
        }
    }

    #[test]
    fn whatever_is_not_proved_fails_and_is_named() {
        let played = Incident { damaged: 2, found: 2, planned: 2, reverted: 2, undone: 2, ..Incident::default() };
        assert!(judge(&report(), Some(&played)).is_ok());
        assert_eq!(summed_up(Some(&played))["proved"], true);

        let failed = |report: &Report, incident: Option<&Incident>| judge(report, incident).unwrap_err().to_string();
        let lost = Incident { problems: vec!["27007: not what the honest writes made of it".into()], ..played.clone() };
        let said = failed(&report(), Some(&lost));
        assert!(said.contains("1 problems in the incident") && said.contains("27007: not what"), "{said}");
        assert_eq!(summed_up(Some(&lost))["proved"], false);
        assert_eq!(summed_up(Some(&lost))["problems"][0], lost.problems[0]);

        assert!(failed(&report(), None).contains("not played"));
        assert!(summed_up(None).is_null());
        let missing = Report { proof: Err(vec!["27007: missing".into()]), ..report() };
        assert!(failed(&missing, None).contains("27007: missing") && !missing.is_proved());
        let letters = Report { letters: 3, ..report() };
        assert!(failed(&letters, Some(&played)).contains("3 changes") && !letters.is_proved());
    }
}
