//! The options of the trigger: the functions, their settings, and possible errors.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use chrono::{FixedOffset, Offset as _, Utc};
use url::Url;

use super::{
    binding::{BindingError, FunctionBinding, HostFile, TriggerMode},
    handler::Program,
};
use crate::local::LocalError;

/// The number of documents per invocation unless the function specifies another.
pub(super) const DEFAULT_MAX_ITEMS: usize = 100;

/// The process that answers invocations.
#[derive(Clone, Debug, Default)]
pub enum HandlerProgram {
    /// The program in host.json; without one, this program with the argument `serve`.
    #[default]
    Default,
    /// This executable, with these arguments (`None`: those of host.json, else `serve`).
    Program {
        /// The executable.
        executable: PathBuf,
        /// Its arguments; `None` for those of host.json, or `serve`.
        arguments: Option<Vec<OsString>>,
    },
    /// A process that is already listening and was started elsewhere; for tests.
    Running(Url),
}

/// The trigger's options.
#[derive(Clone, Debug)]
pub struct TriggerOptions {
    /// The function app: `host.json` and `<Function>/function.json`. Also the handler's working directory.
    pub app_root: PathBuf,
    /// The process that answers invocations.
    pub handler: HandlerProgram,
    /// App settings: `%NAME%` in function.json refers to them, and the handler gets them in its environment.
    pub settings: Vec<(String, String)>,
    /// The only function to run, instead of those found in `app_root`.
    pub binding: Option<FunctionBinding>,
    /// Overrides the function's feed mode.
    pub mode: Option<TriggerMode>,
    /// Overrides the function's delay after an empty poll.
    pub poll_delay: Option<Duration>,
    /// Overrides the function's number of documents per invocation.
    pub max_items: Option<usize>,
    /// Overrides host.json's `functionTimeout`.
    pub function_timeout: Option<Duration>,
    /// The host's time zone; dates with an offset are converted to it before they reach the handler.
    pub host_time_zone: FixedOffset,
}

impl TriggerOptions {
    /// The function app in this folder, with nothing overridden, on a host in UTC.
    pub fn new(app_root: impl Into<PathBuf>) -> Self {
        Self {
            app_root: app_root.into(),
            handler: HandlerProgram::default(),
            settings: Vec::new(),
            binding: None,
            mode: None,
            poll_delay: None,
            max_items: None,
            function_timeout: None,
            host_time_zone: Utc.fix(),
        }
    }

    /// Returns the functions to run: the given one, those found in the folder, or the one that this project ships.
    pub(super) fn resolve_bindings(&self) -> Result<Vec<FunctionBinding>, TriggerError> {
        let mut bindings = match &self.binding {
            Some(binding) => vec![binding.clone()],
            None => FunctionBinding::find(&self.app_root, &self.settings)?,
        };
        if bindings.is_empty() {
            bindings.push(FunctionBinding::capture_changes(&self.settings));
        }
        for binding in &mut bindings {
            binding.mode = self.mode.unwrap_or(binding.mode);
            binding.poll_delay = self.poll_delay.unwrap_or(binding.poll_delay);
            binding.max_items = self.max_items.or(binding.max_items);
        }
        Ok(bindings)
    }

    /// Returns the process to start; `None` when the handler is already running.
    pub(super) fn program(&self, host: &HostFile) -> Result<Option<Program>, TriggerError> {
        let serve = || vec!["serve".to_owned()];
        let listed = || host.arguments.clone().unwrap_or_else(serve).into_iter().map(OsString::from).collect();
        let named = host.executable.as_ref().map(|path| self.app_root.join(path)).filter(|path| path.is_file());
        let (executable, arguments) = match (&self.handler, named) {
            (HandlerProgram::Running(_), _) => return Ok(None),
            (HandlerProgram::Program { executable, arguments }, _) => {
                (executable.clone(), arguments.clone().unwrap_or_else(listed))
            }
            (HandlerProgram::Default, Some(path)) => {
                (path, host.arguments.clone().unwrap_or_default().into_iter().map(OsString::from).collect())
            }
            (HandlerProgram::Default, None) => (std::env::current_exe().map_err(TriggerError::Program)?, listed()),
        };
        // The working directory differs, so a relative path would be resolved against it. A bare name is resolved
        // through PATH.
        let is_bare = executable.components().count() == 1 && !executable.exists();
        let executable =
            if is_bare { executable } else { std::path::absolute(executable).map_err(TriggerError::Program)? };
        let folder = std::path::absolute(&self.app_root).map_err(TriggerError::Program)?;
        Ok(Some(Program { executable, arguments, folder, settings: self.settings.clone() }))
    }
}

/// Why the trigger failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// The function app's files are invalid.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The account failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The handler's executable could not be determined.
    #[error("find the handler's executable")]
    Program(#[source] std::io::Error),
    /// The HTTP client could not be created.
    #[error("prepare the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The handler is not running and will not be restarted.
    #[error("{0}")]
    Handler(String),
    /// Not everything was delivered in time.
    #[error("{pending} changes were not delivered within {seconds} s{}", last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default())]
    NotDrained {
        /// An upper bound of the changes that are left.
        pending: u64,
        /// The timeout.
        seconds: f64,
        /// The most recent error.
        last_error: Option<String>,
    },
}
