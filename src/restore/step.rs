//! One item's part of a plan, as the plan's file has it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::change::{
    Op, VersionVia,
    key::ItemKey,
    merge::{Edit, is_own_version},
    version::{ArchivePlace, Version},
};

/// The version that a step puts back: enough to find it again, and to see where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chosen {
    /// Id of the record.
    pub record_id: String,
    /// The operation; `None` for a copy of the original demo.
    #[serde(default)]
    pub op: Option<Op>,
    /// Source time, epoch seconds.
    pub ts: i64,
    /// Source LSN.
    #[serde(default)]
    pub lsn: Option<i64>,
    /// Which entrance it was captured through.
    #[serde(default)]
    pub via: Option<VersionVia>,
    /// Where it lies, when it comes from an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivePlace>,
}

impl From<&Version> for Chosen {
    fn from(v: &Version) -> Self {
        Self { record_id: v.record_id.clone(), op: v.op, ts: v.ts, lsn: v.lsn, via: v.via.clone(), archived: None }
    }
}

/// The action for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It differs from what it was: put that back.
    Restore,
    /// It was deleted since: recreate it.
    Recreate,
    /// It did not exist then: delete it (only when asked for).
    Delete,
    /// It is what it was.
    Keep,
    /// Unknown, so nothing is done; the notes say why.
    Unknown,
}

impl Action {
    /// Whether anything is written.
    pub fn writes(self) -> bool {
        matches!(self, Self::Restore | Self::Recreate | Self::Delete)
    }

    /// The name in plans and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Recreate => "recreate",
            Self::Delete => "delete",
            Self::Keep => "keep",
            Self::Unknown => "unknown",
        }
    }
}

/// One item's part of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The document's id.
    pub id: String,
    /// Its partition key, as a JSON array.
    pub pk: serde_json::Value,
    /// The action.
    pub action: Action,
    /// The version that was in force at the point in time.
    #[serde(default)]
    pub version: Option<Chosen>,
    /// The target's etag while planning; `None` when there was no document.
    #[serde(default)]
    pub live: Option<String>,
    /// Whether that version is in the history, so that it can be replaced without being saved first.
    #[serde(default)]
    pub saved: bool,
    /// The record of that version, when its id does not follow from the etag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// SHA-256 of the canonical text that is written, stamp included: the version may not change between plan and use.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Paths of the first few fields that change.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The estimated request units of the step.
    #[serde(default)]
    pub ru: f64,
    /// Why this version, and what cannot be known.
    #[serde(default)]
    pub notes: Vec<String>,
    /// For a revert: what is set back in the live document, value by value, each to its value in a version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// For a revert: the fields that are left alone, because somebody changed them after the writes that are undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
}

impl Step {
    /// A step about an item, of which nothing else is known yet.
    pub fn new(id: &str, pk: serde_json::Value, action: Action) -> Self {
        Self {
            id: id.to_owned(),
            pk,
            action,
            version: None,
            live: None,
            saved: false,
            record: None,
            sha256: None,
            changed: Vec::new(),
            ru: 0.0,
            notes: Vec::new(),
            edits: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// Whether it changes the live document value by value, so that what it writes depends on that document.
    pub fn is_edit(&self) -> bool {
        self.live.is_some() && !self.edits.is_empty() && self.action != Action::Delete
    }

    /// The versions that its edits take values from and the history does not have: their texts come with the plan.
    pub fn own_versions(&self) -> BTreeSet<&str> {
        self.edits.iter().flat_map(Edit::records).filter(|version| is_own_version(version)).collect()
    }

    /// The item.
    ///
    /// # Errors
    /// When the key is malformed: anybody may have edited the plan.
    pub fn item(&self) -> Result<ItemKey, String> {
        ItemKey::parse_json(&self.id, &self.pk)
    }
}
