//! The checks, the severity of their findings, and their descriptions.

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Nothing is wrong.
    Ok,
    /// Something is unknown, or will cost or lose something one day.
    Warning,
    /// Something is lost, would be restored wrongly, or cannot work.
    Failure,
}

impl Verdict {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Failure => "FAILURE",
        }
    }
}

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The live document's version is in the history.
    Missing,
    /// It is complete.
    Partial,
    /// Its text means the same as the live document.
    Content,
    /// It is the newest there.
    Newest,
    /// A document that is not live has a tombstone.
    Gone,
    /// Chains of versions close.
    Chain,
    /// Documents fit into records.
    Absent,
    /// Records can be turned back into documents.
    Rebuild,
    /// Versions belong to today's container of the source's name.
    Container,
    /// Records can be parsed.
    Record,
}

impl Check {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Missing,
        Self::Partial,
        Self::Content,
        Self::Newest,
        Self::Gone,
        Self::Chain,
        Self::Absent,
        Self::Rebuild,
        Self::Container,
        Self::Record,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Partial => "partial",
            Self::Content => "content",
            Self::Newest => "newest",
            Self::Gone => "gone",
            Self::Chain => "chain",
            Self::Absent => "absent",
            Self::Rebuild => "rebuild",
            Self::Container => "container",
            Self::Record => "record",
        }
    }

    /// The meaning of a finding, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "live documents whose version the history lacks",
            Self::Partial => "live documents of which the history has a part only, on purpose",
            Self::Content => "versions in force that differ from the live document",
            Self::Newest => "live documents for which the history has a newer version",
            Self::Gone => "documents that are gone, and the history has no tombstone",
            Self::Chain => "versions before which another one is missing",
            Self::Absent => {
                "versions that were too large, or gone when MongoDB was asked for them: the history has nothing of them"
            }
            Self::Rebuild => "versions of the sample that are no whole document",
            Self::Container => "versions from an earlier container of this name",
            Self::Record => "items of the history that are not understood, and set aside",
        }
    }

    /// The severity of a finding.
    pub fn severity(self) -> Verdict {
        match self {
            Self::Missing | Self::Content | Self::Rebuild | Self::Record => Verdict::Failure,
            Self::Partial | Self::Newest | Self::Gone | Self::Chain | Self::Absent | Self::Container => {
                Verdict::Warning
            }
        }
    }
}

/// Something that is wrong with the history of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// The finding, without any content of the document.
    pub detail: String,
    /// The period that it concerns, epoch seconds: from the last certain version to the next.
    pub span: Option<(i64, i64)>,
}
