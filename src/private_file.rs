//! Files that hold documents, or name them: nobody but their owner can read them.

use std::fs::OpenOptions;

/// Options that create a file with mode 0600, where the system has modes. What it is opened for is the caller's to add.
pub(crate) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut, reason = "only a mode changes it"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
