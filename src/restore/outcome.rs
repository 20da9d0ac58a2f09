//! The outcomes of a plan's steps, as the journal records them.

use serde::{Deserialize, Serialize};

use super::plan::{Action, Step};

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// Begun; its result could not be noted. Only in local journals.
    Begun,
    /// Written.
    Done,
    /// Already as planned: an earlier run had done it.
    Already,
    /// The document changed since the plan was made; untouched.
    Conflict,
    /// Could not be done; untouched, as far as is known.
    Failed,
}

/// The record of one step, kept in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The document's id.
    pub id: String,
    /// Its partition key, as a JSON array.
    pub pk: serde_json::Value,
    /// The action.
    pub action: Action,
    /// The outcome.
    pub fate: StepResult,
    /// Etag of the document that was replaced or deleted.
    #[serde(default)]
    pub before: Option<String>,
    /// Record in the history that holds that document.
    #[serde(default)]
    pub before_record: Option<String>,
    /// Etag of the document that was written.
    #[serde(default)]
    pub after: Option<String>,
    /// Why it was not done.
    #[serde(default)]
    pub message: Option<String>,
}

/// Interprets a refused write: it is `ours` after all, or the document is unchanged, so that another one is in the way,
/// or somebody was quicker.
pub(super) fn overtaken(outcome: &mut Outcome, ours: bool, is_as_it_was: bool) {
    let (fate, message) = match (ours, is_as_it_was) {
        (true, _) => (StepResult::Done, None),
        (false, true) => (StepResult::Failed, Some("another document has its values of a unique key")),
        (false, false) => (StepResult::Conflict, Some("was changed while it was being restored")),
    };
    outcome.fate = fate;
    outcome.message = message.map(str::to_owned);
}

/// Notes that a document was changed after the plan was made.
pub(super) fn conflicting(outcome: &mut Outcome, step: &Step, etag: Option<&String>) {
    outcome.fate = StepResult::Conflict;
    outcome.message = Some(match (&step.live, etag) {
        (Some(_), None) => "was deleted, or has expired, since the plan was made".into(),
        (None, Some(_)) => "was created since the plan was made".into(),
        _ => "was changed since the plan was made".into(),
    });
}
