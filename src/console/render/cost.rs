//! The figures of `cost`, and how they are calculated.

use crate::{
    console::{CliError, Ui},
    format::Format,
    restore::sizing::{Cost, Sizing},
};
use serde_json::{Value, json};

/// Prints the figures: what capture needs, and what that costs when prices are known.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(
    ui: &Ui,
    sizing: &Sizing,
    cost: Option<&Cost>,
    is_latest: bool,
    format: Format,
) -> Result<(), CliError> {
    let money = |pick: fn(&Cost) -> f64| cost.map_or(Value::Null, |c| rounded(pick(c)));
    let figures = [
        ("record_bytes", json!(sizing.record_bytes)),
        ("ru_per_version", rounded(sizing.write_ru)),
        ("ru_per_version_in_source", rounded(sizing.reread_ru)),
        ("ru_per_second", rounded(sizing.average)),
        ("ru_per_second_peak", rounded(sizing.busiest)),
        ("ru_per_second_peak_in_source", rounded(sizing.source_busiest)),
        ("records", whole(sizing.records)),
        ("gigabytes", rounded(sizing.gigabytes)),
        ("partitions", whole(sizing.partitions)),
        ("throughput", whole(sizing.fixed)),
        ("autoscale_max", whole(sizing.autoscale)),
        ("restore_ru", whole(sizing.restore_ru)),
        ("month_throughput", money(|c| c.fixed)),
        ("month_autoscale", money(|c| c.autoscale)),
        ("month_storage", money(|c| c.storage)),
    ];
    let shown: Vec<(&str, Value)> = match format {
        Format::Table => figures.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => figures.into(),
    };
    ui.summary(format, &shown)?;
    ui.note(
        "note: calculated, not measured: the service's published charges by size, and an assumed 0.2 RU for each of the 14 index terms that a \
         record has with provision's policy and for each further path; after a day, compare with ru of `batch stored` (docs/deploy/sizing.md)",
    );
    ui.note(if is_latest {
        "note: latest mode: versions that follow each other closely are captured once, so this is the most"
    } else {
        "note: all-versions mode: every version and delete counts; the account needs continuous backup, which is billed apart"
    });
    Ok(())
}

/// Two decimal places, for money and small numbers of RU.
fn rounded(number: f64) -> Value {
    json!((number * 100.0).round() / 100.0)
}

fn whole(number: f64) -> Value {
    json!(number.ceil() as u64)
}
