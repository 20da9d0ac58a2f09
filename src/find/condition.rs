//! The condition that each version is tested with: an expression (CEL, as in `follow`) or a predicate on `c`.

use crate::{
    change::{key::ItemKey, version::Version},
    cosmos::Param,
    follow::{BadFilter, Filter, NoAnswer, Subject},
    history::predicate::evaluate::{Predicate, Unsupported},
};

/// Tells a bad version from a good one.
#[derive(Debug)]
pub enum Condition {
    /// An expression that is true for a bad version.
    Expression(Filter),
    /// A predicate that matches a bad version.
    Sql(Predicate),
}

/// Why a condition is invalid.
#[derive(Debug, thiserror::Error)]
pub enum BadCondition {
    /// The expression cannot be compiled.
    #[error(transparent)]
    Expression(#[from] BadFilter),
    /// The predicate has parts that cannot be evaluated here.
    #[error(transparent)]
    Sql(#[from] Unsupported),
}

/// The answer of a condition for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is true.
    Yes,
    /// It is not true.
    No,
    /// Neither, and why: the kind of the problem, without any value of the document.
    None(NoAnswer),
}

impl Condition {
    /// An expression that may use `doc`, `previous`, `op`, `ts`, `lsn`, `id`, `pk` and `changed("/path")`.
    ///
    /// # Errors
    /// When it is malformed, with the place.
    pub fn expression(text: &str) -> Result<Self, BadCondition> {
        Ok(Self::Expression(Filter::compile(text)?))
    }

    /// A predicate on `c`, which is the document, with the values of its parameters.
    ///
    /// # Errors
    /// With what cannot be evaluated: each version is tested here, not by the service.
    pub fn sql(text: &str, params: &[Param]) -> Result<Self, BadCondition> {
        let value = |name: &str| params.iter().find(|param| param.name == name).map(|param| &param.value);
        Ok(Self::Sql(Predicate::parse(text, value)?))
    }

    /// Whether it also needs the version before.
    pub fn needs_previous(&self) -> bool {
        matches!(self, Self::Expression(filter) if filter.needs_previous())
    }

    /// The answer for a version with this text that follows one with that text. A delete has no text.
    pub fn ask(&self, item: &ItemKey, version: &Version, doc: Option<&str>, previous: Option<&str>) -> Decision {
        match self {
            Self::Expression(filter) => match filter.answer(&Subject::of(item, version, doc, previous)) {
                Ok(true) => Decision::Yes,
                Ok(false) => Decision::No,
                // There is no document that could lack a field.
                Err(NoAnswer::Unknown(_)) if doc.is_none() => Decision::No,
                Err(why) => Decision::None(why),
            },
            Self::Sql(predicate) => match doc.map(|doc| predicate.matches_version(version, doc)) {
                Some(Ok(true)) => Decision::Yes,
                Some(Ok(false)) | None => Decision::No,
                Some(Err(_)) => Decision::None(NoAnswer::Unknown("the document is not understood")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::PartitionKey;

    fn ask(condition: &Condition, op: &str, doc: Option<&str>, previous: Option<&str>) -> Decision {
        let record = serde_json::json!({"id": "a~1", "_originalId": "a", "_change": {"v": 1, "op": op, "ts": 5}});
        let version = Version::parse(&record.to_string()).unwrap();
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
        condition.ask(&item, &version, doc, previous)
    }

    #[test]
    fn a_delete_is_answered_and_a_missing_field_has_no_answer() {
        let no_answer = Decision::None(NoAnswer::Unknown("a field is not there"));
        for (text, op, doc, answer) in [
            ("doc.n < 0", "replace", Some(r#"{"n":-1}"#), Decision::Yes),
            ("doc.n < 0", "replace", Some(r#"{"n":1}"#), Decision::No),
            ("doc.n < 0", "replace", Some(r#"{"m":1}"#), no_answer),
            ("doc.n < 0", "delete", None, Decision::No),
            ("op == 'delete'", "delete", None, Decision::Yes),
            ("doc == null", "delete", None, Decision::Yes),
            ("id == 'a' && pk == 'p' && ts == 5", "create", Some("{}"), Decision::Yes),
        ] {
            assert_eq!(ask(&Condition::expression(text).unwrap(), op, doc, None), answer, "{text} {doc:?}");
        }
        let changed = Condition::expression("changed('/n') && doc.n > previous.n").unwrap();
        assert!(changed.needs_previous());
        assert_eq!(ask(&changed, "replace", Some(r#"{"n":2}"#), Some(r#"{"n":1}"#)), Decision::Yes);
        let sql = Condition::sql("c.n < @least", &[Param::new("least", 0)]).unwrap();
        for (doc, answer) in [
            (Some(r#"{"n":-1}"#), Decision::Yes),
            (Some(r#"{"m":1}"#), Decision::No),
            (None, Decision::No),
            (Some("nonsense"), Decision::None(NoAnswer::Unknown("the document is not understood"))),
        ] {
            assert_eq!(ask(&sql, "replace", doc, None), answer, "{doc:?}");
        }
        assert!(!sql.needs_previous());
        assert!(matches!(Condition::sql("EXISTS(SELECT 1)", &[]), Err(BadCondition::Sql(_))));
        assert!(matches!(Condition::expression("n <"), Err(BadCondition::Expression(_))));
    }
}
