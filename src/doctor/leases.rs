//! Checks which change feed the trigger really reads, by its leases. function.json says which one it should be; `local
//! --mode`, or a different deployed file, may say otherwise.

use std::collections::BTreeMap;

use super::{CheckResult, files::Declared};
use crate::{
    config::Names,
    cosmos::{Cosmos, Failure, FeedMode},
    frontier::leases::{Lease, leases},
};

/// Compares the mode of a function's leases with what its file says. What cannot be read was reported already.
pub(super) async fn check_mode(
    cosmos: &Cosmos,
    names: &Names,
    function: Option<&str>,
    declared: &BTreeMap<String, Declared>,
    findings: &mut Vec<CheckResult>,
) {
    let who = function.map_or_else(String::new, |name| format!(" of {name}"));
    let read = async {
        let source = cosmos.container(&names.database, &names.source).await?;
        let found = leases(cosmos.container(&names.database, &names.leases).await).await?;
        let mut all = found.map_or_else(Vec::new, |(leases, _)| leases);
        all.retain(|lease| lease.is_of(source.rid()));
        Ok::<_, Failure>(all)
    };
    let Ok(all) = read.await else { return };
    let file = function.and_then(|name| declared.get(name));
    let Some(mode) = mode_of(&all, file, declared) else { return };
    let check = format!("leases{who}: mode");
    let is_as_declared = file.is_none_or(|file| file.all_versions == (mode == FeedMode::AllVersions));
    findings.push(match is_as_declared {
        true => CheckResult::ok(check, format!("the trigger reads {}", words(mode))),
        false => CheckResult::warning(
            check,
            format!("the trigger reads {}, and function.json says otherwise", words(mode)),
            "make them the same: what was said of host.json and function.json is for what function.json says (`local --mode` overrides it)",
        ),
    });
}

/// The mode of the lease that was renewed last, among those of a function.
fn mode_of(all: &[Lease], file: Option<&Declared>, declared: &BTreeMap<String, Declared>) -> Option<FeedMode> {
    let prefix = file.map_or("", |file| file.prefix.as_str());
    // Without a prefix of its own, it does not count the leases of others.
    let is_others = |lease: &Lease| {
        let longer = declared.values().filter(|other| other.prefix.len() > prefix.len());
        longer.into_iter().any(|other| lease.id.starts_with(&other.prefix))
    };
    let own = all.iter().filter(|lease| lease.id.starts_with(prefix) && !is_others(lease));
    own.max_by_key(|lease| lease.at)?.mode
}

fn words(mode: FeedMode) -> &'static str {
    match mode {
        FeedMode::AllVersions => "all versions",
        FeedMode::Latest => "the latest version",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_that_was_renewed_last_says_the_mode() {
        let lease = |id: &str, mode: &str, minute: u32| {
            let text = format!(
                r#"{{"id":"{id}..0","LeaseToken":"0","Mode":"{mode}","timestamp":"2026-11-20T15:{minute:02}:00Z"}}"#
            );
            Lease::parse(&text).unwrap()
        };
        let (all_versions, latest) = ("Full-Fidelity Feed", "Incremental Feed");
        let all = [lease("host_a", all_versions, 1), lease("host_a", latest, 2), lease("Own_host_a", all_versions, 3)];
        let declare = |prefix: &str| Declared { prefix: prefix.into(), all_versions: false };
        let declared = BTreeMap::from([("A".to_owned(), declare("")), ("B".to_owned(), declare("Own_"))]);
        let mode = |name: &str| mode_of(&all, declared.get(name), &declared);
        assert_eq!((mode("A"), mode("B")), (Some(FeedMode::Latest), Some(FeedMode::AllVersions)));
        assert_eq!(mode_of(&all, None, &BTreeMap::new()), Some(FeedMode::AllVersions));
        assert_eq!(mode_of(&[lease("host_a", "another", 1)], None, &BTreeMap::new()), None);
        assert_eq!(mode_of(&[], None, &BTreeMap::new()), None);
    }
}
