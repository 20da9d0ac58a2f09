//! Why a predicate matched nothing: a field that it names may be in no document at all.

use futures::StreamExt as _;

use super::request::Targets;
use crate::{
    cosmos::{Failure, HashRange, PageStream, RuLimiter},
    history::{Containers, predicate::fields::fields},
};

/// The fields that the predicate of a request names and that neither a live document nor a version has, as they are
/// written. None when that cannot be asked, which is no reason to say something else than that nothing was found.
pub async fn fields_of_nobody(which: &Targets, containers: &Containers, pace: &RuLimiter) -> Vec<String> {
    let Targets::Where { predicate, .. } = which else { return Vec::new() };
    let mut missing = Vec::new();
    for field in fields(predicate) {
        match is_anywhere(&format!("IS_DEFINED({field})"), containers, pace).await {
            Ok(true) => {}
            Ok(false) => missing.push(field.to_owned()),
            Err(_) => return Vec::new(),
        }
    }
    missing
}

/// Whether a live document or a version matches, or a version cannot be asked.
async fn is_anywhere(predicate: &str, containers: &Containers, pace: &RuLimiter) -> Result<bool, Failure> {
    let live = containers.source.documents_in(HashRange::WHOLE, false, Some((predicate, &[])));
    Ok(has_any(live, pace).await?
        || has_any(containers.changes.matching(HashRange::WHOLE, predicate, &[]), pace).await?)
}

/// Reads pages until one has something.
async fn has_any<T>(mut pages: PageStream<'_, T>, pace: &RuLimiter) -> Result<bool, Failure> {
    loop {
        pace.wait().await;
        let Some(page) = pages.next().await else { return Ok(false) };
        if !page?.is_empty() {
            return Ok(true);
        }
    }
}
