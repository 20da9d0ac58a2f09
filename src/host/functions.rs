//! The functions of an app folder: each `<Name>/function.json` with a Cosmos DB trigger or a timer is one.
//!
//! The handler needs only two names from it, the route and the key under `Data`, and looks at a third, the container;
//! the rest is between the host and the trigger (`local::trigger` reads it to play them).

use std::{collections::BTreeMap, io, path::Path};

use serde::Deserialize;

use super::app;
use crate::config::{ConfigError, Names, Settings};

/// The function this repository ships, used when the app folder has none.
pub const DEFAULT_FUNCTION: &str = "CaptureChanges";
/// The binding name of the shipped function.
pub const DEFAULT_BINDING: &str = "documents";

/// The kind of a function's trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// Changes of a container: they are captured.
    Changes,
    /// A schedule: the history is pruned.
    Timer,
}

/// One function of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its trigger.
    pub trigger: TriggerKind,
    /// Folder name, which is also the route.
    pub name: String,
    /// Name of the member of `Data` that carries the documents.
    pub binding: String,
    /// The container that the trigger watches, as function.json names it: a name, or `%SETTING%`.
    pub container: Option<String>,
}

impl Function {
    /// The shipped function, for a folder that has none.
    pub fn shipped() -> Self {
        Self {
            trigger: TriggerKind::Changes,
            name: DEFAULT_FUNCTION.into(),
            binding: DEFAULT_BINDING.into(),
            container: Some("%COSMOS_SOURCE_CONTAINER%".into()),
        }
    }

    /// Checks that the trigger watches the container that the handler expects: documents of another one would end up in
    /// the wrong history.
    ///
    /// # Errors
    /// When they differ. A setting that is not known here is the host's concern: it does not start the function then.
    pub fn check_container(&self, settings: &Settings, source: &str) -> Result<(), ConfigError> {
        let Some(Ok(watched)) = self.container.as_ref().map(|text| app::resolve(text, settings)) else {
            return Ok(());
        };
        if watched == source {
            return Ok(());
        }
        let setting = format!("{}__COSMOS_SOURCE_CONTAINER", self.name);
        let problem = format!(
            "{}/function.json watches {watched:?}, and for the handler it is {source:?}: versions would go to the wrong history",
            self.name
        );
        let fix = format!("set {setting} to {watched}, and {}__COSMOS_CHANGES_CONTAINER to its history", self.name);
        Err(ConfigError::new(setting, problem, fix))
    }

    /// Reads a function.json; `None` when it has neither a Cosmos DB trigger nor a timer.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn parse(name: &str, text: &str) -> Result<Option<Self>, ConfigError> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            bindings: Vec<Binding>,
        }
        #[derive(Deserialize)]
        struct Binding {
            #[serde(rename = "type", default)]
            kind: String,
            #[serde(default)]
            name: String,
            #[serde(rename = "containerName", default)]
            container: Option<String>,
        }
        let wrong = |problem: String| {
            ConfigError::new(format!("{name}/function.json"), problem, "compare it with CaptureChanges/function.json")
        };
        let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|e| wrong(format!("is not valid: {e}")))?;
        let kinds = [("cosmosDBTrigger", TriggerKind::Changes), ("timerTrigger", TriggerKind::Timer)];
        let known = |b: Binding| {
            let kind = kinds.iter().find(|(kind, _)| b.kind.eq_ignore_ascii_case(kind))?;
            Some((kind.1, b.name, b.container))
        };
        let Some((trigger, binding, container)) = file.bindings.into_iter().find_map(known) else { return Ok(None) };
        if !binding.starts_with(|c: char| c.is_ascii_alphabetic())
            || !binding.chars().all(|c| c.is_ascii_alphanumeric())
        {
            return Err(wrong(format!(
                "the host does not allow the binding name {binding:?}: a letter, then letters and digits"
            )));
        }
        Ok(Some(Self { trigger, name: name.to_owned(), binding, container }))
    }

    /// All functions of an app folder, by name.
    ///
    /// # Errors
    /// When a function.json cannot be read or is not valid; the host would refuse it, too.
    pub fn discover(app_root: &Path) -> Result<Vec<Self>, ConfigError> {
        let mut found = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir(app_root) else { return Ok(Vec::new()) };
        for entry in entries.filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let text = match std::fs::read_to_string(entry.path().join("function.json")) {
                Ok(text) => text,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => {
                    return Err(ConfigError::new(
                        format!("{name}/function.json"),
                        format!("cannot be read: {e}"),
                        "make it readable",
                    ));
                }
            };
            if let Some(function) = Self::parse(&name, &text)? {
                found.insert(name, function);
            }
        }
        Ok(found.into_values().collect())
    }
}

/// The containers of an app: those of the common settings, then those of each function.
///
/// # Errors
/// When a function.json or a setting is wrong.
pub fn all_names(app_root: &Path, settings: &Settings) -> Result<Vec<Names>, ConfigError> {
    let mut all = vec![Names::from_settings(settings, None)?];
    for function in Function::discover(app_root)? {
        all.push(Names::from_settings(settings, Some(&function.name))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_function_is_the_one_in_the_repository() {
        let text = include_str!("../../CaptureChanges/function.json");
        assert_eq!(Function::parse(DEFAULT_FUNCTION, text).unwrap(), Some(Function::shipped()));
    }

    #[test]
    fn a_wrong_function_json_is_named() {
        for (text, problem) in [
            ("{", "not valid"),
            (r#"{"bindings":[{"type":"cosmosDBTrigger"}]}"#, "binding name \"\""),
            (r#"{"bindings":[{"type":"cosmosDBTrigger","name":"my-docs"}]}"#, "letters and digits"),
        ] {
            let error = Function::parse("Orders", text).unwrap_err();
            assert_eq!(error.name, "Orders/function.json");
            assert!(error.problem.contains(problem), "{error}");
        }
        let timer = Function::parse("Timer", r#"{"bindings":[{"type":"timerTrigger","name":"t"}]}"#).unwrap().unwrap();
        assert_eq!((timer.trigger, timer.binding.as_str()), (TriggerKind::Timer, "t"));
        assert_eq!(Function::parse("Http", r#"{"bindings":[{"type":"httpTrigger","name":"t"}]}"#).unwrap(), None);
    }

    #[test]
    fn a_trigger_that_watches_another_container_than_the_handler_means_is_refused() {
        let check = |container: Option<&str>, source: &str| {
            let settings = Settings::from_pairs([("SOURCE", "orders")]);
            let function = Function { container: container.map(str::to_owned), ..Function::shipped() };
            function.check_container(&settings, source)
        };
        for (container, source) in
            [(None, "events"), (Some("orders"), "orders"), (Some("%SOURCE%"), "orders"), (Some("%UNKNOWN%"), "orders")]
        {
            assert_eq!(check(container, source), Ok(()), "{container:?}");
        }
        let error = check(Some("%SOURCE%"), "events").unwrap_err();
        assert_eq!(error.name, "CaptureChanges__COSMOS_SOURCE_CONTAINER");
        assert!(error.problem.contains("\"orders\"") && error.problem.contains("\"events\""), "{error}");
    }

    #[test]
    fn functions_are_found_by_folder_and_other_files_are_passed_over() {
        let app = tempfile::tempdir().unwrap();
        for (name, binding) in [("Orders", "orders"), ("Events", "events")] {
            std::fs::create_dir(app.path().join(name)).unwrap();
            let text = format!(r#"{{"bindings":[{{"type":"cosmosDBTrigger","name":"{binding}"}}]}}"#);
            std::fs::write(app.path().join(name).join("function.json"), text).unwrap();
        }
        std::fs::create_dir(app.path().join("src")).unwrap();
        std::fs::write(app.path().join("host.json"), "{}").unwrap();
        let found = Function::discover(app.path()).unwrap();
        let names: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.binding.as_str())).collect();
        assert_eq!(names, [("Events", "events"), ("Orders", "orders")]);
        assert_eq!(Function::discover(&app.path().join("nowhere")).unwrap(), []);
    }
}
