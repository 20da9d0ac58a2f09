//! Plans in files that a person names.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
};

use super::{
    plan::PlanTarget,
    plan_file::{BadPlan, Plan},
};

/// Why a saved plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanLoadError {
    /// The file cannot be opened.
    #[error("cannot open the plan")]
    Open(#[source] io::Error),
    /// It is no plan, was edited, or was made for other containers; the source says which.
    #[error("the plan cannot be used")]
    Unusable(#[source] BadPlan),
}

/// Reads a plan for these containers.
///
/// # Errors
/// When it cannot be used.
pub fn load_plan(file: &Path, place: &PlanTarget) -> Result<Plan, PlanLoadError> {
    let text = File::open(file).map_err(PlanLoadError::Open)?;
    Plan::read(text, Some(place)).map_err(PlanLoadError::Unusable)
}

/// Writes a plan into a new file, which nobody else may read.
///
/// # Errors
/// When the file exists, or cannot be written.
pub fn save_plan(plan: &Plan, file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(file)?;
    io::copy(&mut plan.text(), &mut out)?;
    out.sync_all()
}
