//! What is not known of a document that is gone.

use std::fmt;

/// Why nobody knows when a missing document was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDelete {
    /// Its delete is neither in the history nor waiting to be captured.
    Uncaptured,
    /// Too much is waiting to be captured to look for its delete.
    Unsearched,
    /// Today's reader does not see deletes, though the newest version comes from a feed that has them.
    Unseen,
    /// Nothing captures its part any more, as far as leases and checkpoints tell.
    Unread,
    /// It is live, and that version is neither in the history nor waiting: nobody captured what came before.
    Overwritten,
    /// It was deleted, and what waits for it did not happen to a document that was made after that: it was made in a
    /// time that nobody captured.
    MadeUnseen,
    /// It was deleted, and is live; of MongoDB, where a live document has no time of its own. Its creation is neither in
    /// the history nor waiting.
    LivesUnseen,
}

impl UnknownDelete {
    /// The reason alone.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Overwritten => {
                "its live version was not captured, and does not wait to be: what it was before that is not known"
            }
            Self::MadeUnseen => "what waits to be captured happened to a document whose creation was not captured",
            Self::LivesUnseen => "it exists, and the history does not say since when",
            Self::Uncaptured => "its delete was not captured",
            Self::Unsearched => "too much is waiting to be captured to look for its delete",
            Self::Unseen => "latest-version mode does not see deletes",
            Self::Unread => "no lease or checkpoint tells whether its delete was captured",
        }
    }
}

impl fmt::Display for UnknownDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwritten | Self::MadeUnseen | Self::LivesUnseen => f.write_str(self.why()),
            _ => write!(f, "is gone, and {}: it may have been deleted before the point in time", self.why()),
        }
    }
}
