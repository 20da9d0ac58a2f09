//! Errors of `new-function`.

use crate::{console::CliError, new_function::NewFunctionError};

/// The flag that sets a setting of the function.
fn flag_of(setting: &str) -> Option<&'static str> {
    let flags = [
        ("COSMOS_DATABASE", "--database"),
        ("COSMOS_SOURCE_CONTAINER", "--source"),
        ("COSMOS_CHANGES_CONTAINER", "--changes"),
        ("COSMOS_LEASE_CONTAINER", "--leases"),
    ];
    flags.into_iter().find(|(name, _)| setting.ends_with(name)).map(|(_, flag)| flag)
}

impl From<NewFunctionError> for CliError {
    fn from(error: NewFunctionError) -> Self {
        match error {
            NewFunctionError::Name(name) => Self::usage(
                format!("--name: {name:?} is not a function name"),
                "use a letter, then letters, digits and _, 128 at most: --name CaptureOrders",
            ),
            NewFunctionError::Dash(name) => Self::usage(
                format!("--name: {name:?} has a - in it, which app settings on Linux cannot have in their names"),
                format!("use letters, digits and _: --name {}", name.replace('-', "_")),
            ),
            NewFunctionError::NoPast => Self::usage(
                "--start-from-beginning: the all-versions feed cannot be read from the past",
                "leave it out, and run `cosmos-rewind backfill` once the function is deployed",
            ),
            NewFunctionError::NoName { setting, value } => Self::usage(
                format!(
                    "{}: {value:?} is not a valid name for a container or database",
                    flag_of(&setting).unwrap_or_default()
                ),
                "give the name itself, without %",
            ),
            NewFunctionError::Setting(e) => {
                Self::usage(format!("{}: {}", flag_of(&e.name).unwrap_or(&e.name), e.problem), e.fix)
            }
            NewFunctionError::File { path, problem, is_host } => Self::usage(
                path.display().to_string(),
                if is_host {
                    "run it in the folder of host.json, or name that folder with --app-root"
                } else {
                    "correct it, and run the command again; nothing was written"
                },
            )
            .because(problem),
            NewFunctionError::Read { path, source } => Self::failed(path.display().to_string()).because(source),
            NewFunctionError::Taken(path) => Self::usage(
                format!("{} is there already, and is not what would be written", path.display()),
                "give another --name, or remove that folder",
            ),
            NewFunctionError::Captured { other, source_container, changes } => Self::usage(
                format!("--changes {changes}: {other} captures {source_container} into it already"),
                "name another history; one function captures a container",
            ),
            NewFunctionError::Write { path, source } => {
                Self::failed(format!("cannot write {}", path.display())).because(source)
            }
        }
    }
}
