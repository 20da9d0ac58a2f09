//! How a follower reads, and which combinations are impossible.

use std::time::Duration;

use super::run::FollowedSource;
use crate::cosmos::{FeedMode, FeedStart, Shard};

/// How a follower reads.
#[derive(Debug, Clone)]
pub struct Options {
    /// The follower's name: followers with the same name share the checkpoint.
    pub name: String,
    /// Which feed.
    pub mode: FeedMode,
    /// Where it starts when there is no checkpoint.
    pub start: FeedStart,
    /// Its static share of the container.
    pub part: Option<Shard>,
    /// Whether it ends when nothing is left to read.
    pub until_caught_up: bool,
    /// Pause between polls of a range that had nothing new.
    pub poll: Duration,
    /// How long a holder that does not save keeps the name.
    pub lease: Duration,
    /// Names the process for people who look at the checkpoint.
    pub holder: String,
}

/// Why a source cannot be read with these options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// The service keeps no past for this feed.
    #[error("the all-versions feed cannot be read from the past")]
    Past,
    /// The source has no ranges.
    #[error("a MongoDB change stream cannot be shared")]
    Share,
}

impl Options {
    /// Checks whether a source can be read with these options; nothing is contacted.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, source: &FollowedSource) -> Result<(), BadOptions> {
        let is_container = matches!(source, FollowedSource::Container);
        if is_container && self.mode == FeedMode::AllVersions && self.start != FeedStart::Now {
            return Err(BadOptions::Past);
        }
        if !is_container && self.part.is_some() {
            return Err(BadOptions::Share);
        }
        Ok(())
    }
}

/// Names this process for people who read the checkpoint; unique.
pub fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok())
        .map_or_else(|| "?".to_owned(), |host| host.trim().to_owned());
    format!("{host}/{}/{:08x}", std::process::id(), rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feed_of_all_versions_has_no_past() {
        let options = |mode, start| Options {
            name: "default".into(),
            mode,
            start,
            part: None,
            until_caught_up: false,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(15),
            holder: holder(),
        };
        let check = |mode, start| options(mode, start).check(&FollowedSource::Container);
        assert_eq!(check(FeedMode::AllVersions, FeedStart::Beginning), Err(BadOptions::Past));
        assert_eq!(check(FeedMode::AllVersions, FeedStart::Now), Ok(()));
        assert_eq!(check(FeedMode::Latest, FeedStart::Beginning), Ok(()));
    }
}
