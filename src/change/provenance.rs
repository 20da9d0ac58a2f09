//! Where a version comes from. A later version of this program may write other names into its records: they are read
//! all the same, and shown as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Via, record::RecordFidelity};

/// How a version got here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum VersionVia {
    /// Through an entrance of the history.
    Known(Via),
    /// Not captured: it is the live document, shown as a version that the history lacks.
    Live,
    /// From an archive.
    Archive,
    /// Through an entrance that this program does not know.
    Other(String),
}

impl VersionVia {
    /// The name in records and in output.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(via) => via.as_str(),
            Self::Live => "live",
            Self::Archive => "archive",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for VersionVia {
    fn from(name: String) -> Self {
        match name.as_str() {
            "live" => Self::Live,
            "archive" => Self::Archive,
            known => Via::parse(known).map_or(Self::Other(name), Self::Known),
        }
    }
}

impl From<VersionVia> for String {
    fn from(via: VersionVia) -> Self {
        match via {
            VersionVia::Other(name) => name,
            known => known.as_str().to_owned(),
        }
    }
}

impl fmt::Display for VersionVia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How faithful a version's text is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum VersionFidelity {
    /// One that this program knows.
    Known(RecordFidelity),
    /// One that this program does not know.
    Other(String),
}

impl VersionFidelity {
    /// The name in records and in output.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(fidelity) => fidelity.as_str(),
            Self::Other(name) => name,
        }
    }
}

impl From<String> for VersionFidelity {
    fn from(name: String) -> Self {
        RecordFidelity::parse(&name).map_or(Self::Other(name), Self::Known)
    }
}

impl From<VersionFidelity> for String {
    fn from(fidelity: VersionFidelity) -> Self {
        match fidelity {
            VersionFidelity::Other(name) => name,
            known => known.as_str().to_owned(),
        }
    }
}

impl fmt::Display for VersionFidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_written_as_it_was_read() {
        for name in
            ["trigger", "follow", "filter", "backfill", "restore", "live", "archive", "", "Trigger", "a later one"]
        {
            let via: VersionVia = serde_json::from_value(name.into()).unwrap();
            assert_eq!(serde_json::to_value(&via).unwrap(), name);
            assert_eq!((via.to_string().as_str(), String::from(via).as_str()), (name, name));
        }
        for name in ["exact", "normalized", "partial", "", "Exact", "a later one"] {
            let fidelity: VersionFidelity = serde_json::from_value(name.into()).unwrap();
            assert_eq!(serde_json::to_value(&fidelity).unwrap(), name);
            assert_eq!((fidelity.to_string().as_str(), String::from(fidelity).as_str()), (name, name));
        }
        assert_eq!(VersionVia::from("follow".to_owned()), VersionVia::Known(Via::Follow));
        assert_eq!(VersionFidelity::from("partial".to_owned()), VersionFidelity::Known(RecordFidelity::Partial));
    }
}
