//! What became of the steps of a plan, as the journal has it.

use serde::{Deserialize, Serialize};

use super::plan::{Action, Step};

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// Begun; what became of it was not noted any more. Only in local journals.
    Begun,
    /// Written.
    Done,
    /// Already up to date: an earlier run had done it.
    Already,
    /// The document moved since the plan was made; untouched.
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
    /// What was to be done.
    pub action: Action,
    /// What became of it.
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
    /// Why not, where it was not done.
    #[serde(default)]
    pub message: Option<String>,
}

/// What a refused write came to: it is `ours` after all, or the document is still as it was looked at, so that another one
/// is in the way, or somebody was quicker.
pub(super) fn overtaken(outcome: &mut Outcome, ours: bool, is_as_it_was: bool) {
    let (fate, message) = match (ours, is_as_it_was) {
        (true, _) => (StepResult::Done, None),
        (false, true) => (StepResult::Failed, Some("another document has its values of a unique key")),
        (false, false) => (StepResult::Conflict, Some("was changed while it was being restored")),
    };
    outcome.fate = fate;
    outcome.message = message.map(str::to_owned);
}

/// That a document was changed after the plan was made.
pub(super) fn conflicting(outcome: &mut Outcome, step: &Step, etag: Option<&String>) {
    outcome.fate = StepResult::Conflict;
    outcome.message = Some(match (&step.live, etag) {
        (Some(_), None) => "was deleted since the plan was made".into(),
        (None, Some(_)) => "was created since the plan was made".into(),
        _ => "was changed since the plan was made".into(),
    });
}
