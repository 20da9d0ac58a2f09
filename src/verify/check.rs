//! What is checked, how much a finding matters, and what is said of it.

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Nothing speaks against it.
    Ok,
    /// Something is not known, or will cost or lose something one day.
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

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The live document's version is in the history.
    Missing,
    /// It is there as a whole.
    Partial,
    /// Its text there means what the live document says.
    Content,
    /// It is the newest there.
    Newest,
    /// A document that is not live has a tombstone.
    Gone,
    /// Chains of versions close.
    Chain,
    /// Records can be turned into documents again.
    Rebuild,
    /// Versions are of the container that has the source's name now.
    Container,
    /// Records are understood.
    Record,
}

impl Check {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::Partial,
        Self::Content,
        Self::Newest,
        Self::Gone,
        Self::Chain,
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
            Self::Rebuild => "rebuild",
            Self::Container => "container",
            Self::Record => "record",
        }
    }

    /// What a finding means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "live documents whose version the history lacks",
            Self::Partial => "live documents of which the history has a part only, on purpose",
            Self::Content => "versions in force that differ from the live document",
            Self::Newest => "live documents for which the history has a newer version",
            Self::Gone => "documents that are gone, and the history has no tombstone",
            Self::Chain => "versions before which another one is missing",
            Self::Rebuild => "versions of the sample that are no whole document",
            Self::Container => "versions from an earlier container of this name",
            Self::Record => "items of the history that are not understood, and set aside",
        }
    }

    /// How much a finding matters.
    pub fn severity(self) -> Verdict {
        match self {
            Self::Missing | Self::Content | Self::Rebuild | Self::Record => Verdict::Failure,
            Self::Partial | Self::Newest | Self::Gone | Self::Chain | Self::Container => Verdict::Warning,
        }
    }
}

/// Something that speaks against the history of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What was found; no content of the document.
    pub detail: String,
    /// The time that it concerns, epoch seconds: from the last thing that is certain to the next.
    pub span: Option<(i64, i64)>,
}
