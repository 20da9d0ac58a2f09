//! Archives of `follow` as `load` and `restore` take them.

use super::{
    CliError, Exit,
    follow::compiled,
    output::{count_of, note},
};
use crate::{
    archive::{
        Archive, Counts, Damage, HOW,
        versions::{Facts, Texts},
    },
    config::Credential,
    history::scan::{Containers, Scope},
    restore::{
        apply::Applier,
        archived::{ArchiveScope, Archived, known, survey},
        plan::Rules,
        plan_file::{Draft, Plan},
        survey::kept,
    },
};

/// The flag that names an archive.
pub(super) const FROM: &str = "--from-archive";

/// Opens the archive that a flag names.
pub(super) fn open_archive(flag: &str, text: &str, credential: &Credential) -> Result<Archive, CliError> {
    Archive::open(text, credential)
        .map_err(|problem| CliError::usage(format!("{flag} {problem}"), format!("write {flag} {HOW}")))
}

/// An archive that cannot be used; nothing was written yet.
pub(super) fn damaged(flag: &str, damage: &Damage) -> CliError {
    if damage.nothing {
        let fix = "name the folder, or container and prefix, that follow wrote to";
        return CliError::usage(format!("{flag}: {damage}"), fix);
    }
    CliError {
        message: format!("{flag}: {damage}"),
        hint: Some(
            "nothing was written: the newest version of a document may be what is missing; take another copy of it, \
             or move away what is no part of the archive"
                .into(),
        ),
        exit: Exit::Failed,
    }
}

/// Says what was found in it.
fn read_archive(counts: Counts) {
    counts.describe(None).iter().for_each(|line| note(line));
}

/// Which documents of which archive are restored.
pub(super) struct Request<'a> {
    pub archive: &'a Archive,
    /// The expression of --filter.
    pub filter: Option<&'a str>,
    /// What the other flags say.
    pub scope: Scope,
}

/// Plans a restore from an archive; the texts that it needs.
pub(super) async fn planned_from(
    request: Request<'_>,
    applier: Applier<'_>,
    rules: Rules,
    concurrency: usize,
    draft: &mut Draft,
    each: impl FnMut(u64),
) -> Result<Texts, CliError> {
    let Request { archive, filter, scope } = request;
    let filter = filter.map(compiled).transpose()?;
    let wish = wish(scope, filter.is_some());
    let keys = applier.containers.source.key_paths();
    let only = if let ArchiveScope::Items(items) = &wish { Some(items.clone()) } else { None };
    let facts = Facts::of(archive.clone(), keys.len(), only).await.map_err(|e| damaged(FROM, &e))?;
    read_archive(facts.counts);
    let mut known = known(applier.containers, &applier.pace, &facts, &wish, rules).await?;
    let wanted = std::mem::take(&mut known.wanted);
    let texts = Texts::read(archive, wanted, keys, filter.as_ref()).await.map_err(|e| damaged(FROM, &e))?;
    if texts.no_answer > 0 {
        note(&format!("--filter has no answer about {}", count_of(texts.no_answer, "version")));
    }
    let archived = Archived { facts: &facts, texts: &texts, wish: &wish, known };
    let applier = Applier { texts: Some(&texts), ..applier };
    survey(archived, &applier, rules, concurrency, draft, each).await?;
    Ok(texts)
}

/// Which documents of an archive.
fn wish(scope: Scope, filtered: bool) -> ArchiveScope {
    match scope {
        Scope::Items(items) => ArchiveScope::Items(items.into_iter().collect()),
        _ if filtered => ArchiveScope::Filtered,
        _ => ArchiveScope::All,
    }
}

/// The texts that a saved plan needs, when they come from an archive.
pub(super) async fn planned_texts(
    plan: &Plan,
    archive: Option<&Archive>,
    containers: &Containers,
) -> Result<Option<Texts>, CliError> {
    let archive = match (&plan.head.archive, archive) {
        (None, None) => return Ok(None),
        (Some(_), Some(archive)) => archive,
        (Some(name), None) => {
            return Err(CliError::usage(
                format!("--plan: its versions come from the archive {name}"),
                format!("add {FROM} with that archive, or a copy of it"),
            ));
        }
        (None, Some(_)) => {
            return Err(CliError::usage("--plan: its versions come from the history", format!("leave {FROM} out")));
        }
    };
    let mut wanted = Vec::new();
    for step in plan.writing_steps() {
        let step = step.map_err(|e| kept(&e))?;
        if let Some((chosen, place)) = step.version.as_ref().and_then(|v| Some((v, v.archived.as_ref()?))) {
            let found = archive.wanted(place, &chosen.record_id);
            wanted.push(found.map_err(|e| CliError::usage(format!("--plan: {e}"), "make a new plan"))?);
        }
    }
    let texts = Texts::read(archive, wanted, containers.source.key_paths(), None).await;
    texts.map(Some).map_err(|e| damaged(FROM, &e))
}
