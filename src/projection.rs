//! The settings `REWIND_FIELDS` and `REWIND_REDACT`. Their syntax is checked when the handler starts; the shape is made
//! when the source's partition key is known, which no shape may touch.

use std::{
    fmt::Display,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    change::{
        key::{KeyPaths, parse_path},
        shape::{Redact, Redactor},
    },
    config::{ConfigError, Secret, Settings},
};

const FIELDS: &str = "REWIND_FIELDS";
const REDACT: &str = "REWIND_REDACT";
const KEY: &str = "REWIND_REDACT_KEY";

/// Segments of a path.
struct Path(Vec<String>);

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_path(text).map(Self)
    }
}

/// The settings of one function, parsed.
#[derive(Debug)]
pub struct Projection {
    fields: Vec<Vec<String>>,
    redactions: Vec<Redact>,
    key: Option<Secret>,
    /// Name of the setting that holds the redactions, for messages.
    setting: String,
    /// The shape for the most recent key paths, which only change when the container is recreated.
    known: Mutex<Option<(KeyPaths, Arc<Redactor>)>>,
}

impl Projection {
    /// Reads the settings of a function, or the common ones; `None` when there are none.
    ///
    /// # Errors
    /// When one is wrong whatever the source's partition key is.
    pub fn from_settings(settings: &Settings, function: Option<&str>) -> Result<Option<Self>, ConfigError> {
        let (fields_name, fields) = list::<Path>(settings, function, FIELDS, "/name,/address/city")?;
        let (setting, redactions) = list::<Redact>(settings, function, REDACT, "/ssn,/email=hash")?;
        if fields.is_empty() && redactions.is_empty() {
            return Ok(None);
        }
        let key = settings.get_for(function, KEY).map(Secret::new);
        if key.is_none() && redactions.iter().any(Redact::is_hash) {
            return Err(ConfigError::new(
                setting,
                "asks for a hash, which without a key is undone by trying all values",
                format!("set {KEY} to a secret text, or drop the field: write its path without =hash"),
            ));
        }
        let fields = fields.into_iter().map(|path| path.0).collect();
        let setting = if redactions.is_empty() { fields_name } else { setting };
        let projection = Self { fields, redactions, key, setting, known: Mutex::default() };
        // Without a partition key: what every record needs, in any container.
        projection.make(&KeyPaths::default())?;
        Ok(Some(projection))
    }

    /// The shape for a source with these key paths.
    ///
    /// # Errors
    /// When it would hide a part of the partition key.
    pub fn shape(&self, paths: &KeyPaths) -> Result<Arc<Redactor>, ConfigError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, shape)) = &*known
            && of == paths
        {
            return Ok(shape.clone());
        }
        let shape = Arc::new(self.make(paths)?);
        *known = Some((paths.clone(), shape.clone()));
        Ok(shape)
    }

    fn make(&self, paths: &KeyPaths) -> Result<Redactor, ConfigError> {
        let fix = "name fields of the document's content";
        Redactor::new(&self.fields, &self.redactions, paths, self.key.clone())
            .map_err(|problem| ConfigError::new(&self.setting, problem.to_string(), fix))?
            .ok_or_else(|| ConfigError::new(&self.setting, "names no field", fix))
    }
}

/// The parts of a comma-separated setting, and the name under which it was found.
fn list<T: FromStr<Err: Display>>(
    settings: &Settings,
    function: Option<&str>,
    name: &str,
    example: &str,
) -> Result<(String, Vec<T>), ConfigError> {
    let own = function.map(|function| format!("{function}__{name}")).filter(|own| settings.get(own).is_some());
    let shown = own.unwrap_or_else(|| name.to_owned());
    let Some(text) = settings.get_for(function, name) else { return Ok((shown, Vec::new())) };
    let parts = text.split(',').map(|part| {
        part.trim().parse().map_err(|problem: T::Err| {
            ConfigError::new(
                &shown,
                problem.to_string(),
                format!("write paths with commas between them, such as {example}"),
            )
        })
    });
    let parts = parts.collect::<Result<_, _>>()?;
    Ok((shown, parts))
}
