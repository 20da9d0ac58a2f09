//! Queries: the service's SQL over the documents of one container.
//!
//! Text -> `parse` -> [`ast::Query`] -> `run` over documents, or `plan` for clients that fan a query out themselves.
//! Unknown syntax and functions are refused by name and never answered incorrectly.

mod aggregate;
mod ast;
mod computed;
mod eval;
mod functions;
mod names;
mod parse;
mod plan;
mod run;

use serde_json::Value;

pub(super) use computed::{Computed, check as check_computed};
pub(super) use plan::{is_count, missing_feature, needs_merging, plan};
pub(super) use run::run;

use super::message::GatewayAnswer;

/// A query in the SDKs' format.
#[derive(Debug)]
pub(super) struct Statement {
    query: ast::Query,
    parameters: Vec<(String, Value)>,
}

/// Why a query cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlError {
    /// The service refuses it as well.
    Invalid(String),
    /// The service may support it, but the local account does not.
    Unsupported(String),
}

impl SqlError {
    pub fn into_answer(self) -> GatewayAnswer {
        match self {
            Self::Invalid(message) => GatewayAnswer::bad_request(format!("Syntax error or invalid query: {message}")),
            Self::Unsupported(what) => {
                GatewayAnswer::bad_request(format!("The local account does not evaluate this query: {what}"))
            }
        }
    }
}

impl Statement {
    /// Parses the body of a query request: `{"query": .., "parameters": [..]}`, or only the query's text.
    pub fn read(body: &[u8]) -> Result<Self, SqlError> {
        let invalid = |error: &dyn std::fmt::Display| SqlError::Invalid(error.to_string());
        let sent: Value = match serde_json::from_slice(body) {
            Ok(sent @ (Value::Object(_) | Value::String(_))) => sent,
            _ => Value::from(std::str::from_utf8(body).map_err(|error| invalid(&error))?),
        };
        let text = sent.as_str().or_else(|| sent["query"].as_str());
        let text = text.ok_or_else(|| SqlError::Invalid("the request's body has no query".into()))?;
        let mut parameters = Vec::new();
        for parameter in sent["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            parameters.push((name, parameter["value"].clone()));
        }
        let query = parse::parse(text)?;
        names::check(&query)?;
        Ok(Self { query, parameters })
    }

    pub fn is_ordered(&self) -> bool {
        !self.query.order_by.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::{Computed, Statement, plan, run};
    use crate::local::emulator::Partitioning;

    fn statement(query: &str, parameters: Value) -> Result<Statement, String> {
        let body = json!({"query": query, "parameters": parameters}).to_string();
        Statement::read(body.as_bytes()).map_err(|error| format!("{error:?}"))
    }

    fn asked(query: &str, documents: &Value) -> Result<Value, String> {
        let statement = statement(query, json!([{"name": "@p", "value": "x"}, {"name": "@n", "value": 2}]))?;
        let documents = documents.as_array().unwrap().iter().map(|document| Bytes::from(document.to_string()));
        let found = run(&statement, &Computed::default(), documents).map_err(|error| format!("{error:?}"))?;
        Ok(found.iter().map(|item| serde_json::from_slice::<Value>(item).unwrap()).collect())
    }

    fn documents() -> Value {
        json!([
            {"id": "1", "pk": "x", "n": 3, "tags": ["a", "b"], "in": {"k": 1}},
            {"id": "2", "pk": "x", "n": 1, "tags": ["b"], "s": null},
            {"id": "3", "pk": "y", "n": 2, "odd name": true},
            {"id": "4", "pk": "y", "n": "text"},
        ])
    }

    #[track_caller]
    fn is(query: &str, expected: Value) {
        assert_eq!(asked(query, &documents()), Ok(expected), "{query}");
    }

    #[test]
    fn strings_and_properties_are_parsed_in_every_spelling() {
        for query in [
            "SELECT VALUE c.id FROM c WHERE c.pk = 'x'",
            "SELECT VALUE c.id FROM c WHERE c.pk = \"x\"",
            "SELECT VALUE c[\"id\"] FROM c WHERE c[\"pk\"] = @p",
            "select value root['id'] from root where (root[\"pk\"] = \"\\u0078\")",
            "SELECT VALUE c.id FROM anything AS c WHERE @p = c.pk",
        ] {
            is(query, json!(["1", "2"]));
        }
        is("SELECT VALUE c.id FROM c WHERE c[\"odd name\"]", json!(["3"]));
        is("SELECT VALUE 'it\\'s \\\"q\\\"' FROM c WHERE c.id = '1'", json!(["it's \"q\""]));
    }

    #[test]
    fn undefined_is_neither_a_value_nor_null() {
        is("SELECT VALUE c.s FROM c", json!([null]));
        is("SELECT c.s FROM c", json!([{}, {"s": null}, {}, {}]));
        is("SELECT VALUE c.id FROM c WHERE NOT (c.s = 1)", json!(["2"]));
        is("SELECT VALUE c.id FROM c WHERE c.s != null OR c.n = 3", json!(["1"]));
        is("SELECT VALUE c.id FROM c WHERE c.n > 1", json!(["1", "3"]));
        is("SELECT VALUE c.id FROM c WHERE IS_DEFINED(c.s)", json!(["2"]));
        is("SELECT VALUE [c.s, c.n] FROM c WHERE c.id = '1'", json!([[3]]));
        is("SELECT VALUE c.s ?? 'none' FROM c", json!(["none", null, "none", "none"]));
    }

    #[test]
    fn results_are_ordered_by_type_and_value_and_limited() {
        is("SELECT VALUE c.n FROM c ORDER BY c.n", json!([1, 2, 3, "text"]));
        is("SELECT VALUE c.n FROM c ORDER BY c.pk DESC, c.n ASC", json!([2, "text", 1, 3]));
        is("SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 1 LIMIT @n", json!([2, 3]));
        is("SELECT TOP 1 VALUE c.n FROM c ORDER BY c.n DESC", json!(["text"]));
        is("SELECT TOP 1 [c.n] FROM c ORDER BY c.n", json!([{"$1": [1]}]));
    }

    #[test]
    fn distinct_compares_values() {
        is("SELECT DISTINCT VALUE c.pk FROM c", json!(["x", "y"]));
        is("SELECT DISTINCT c.pk FROM c", json!([{"pk": "x"}, {"pk": "y"}]));
        is(
            "SELECT DISTINCT VALUE {\"b\": 1, \"a\": c.pk = 'x'} FROM c",
            json!([{"b": 1, "a": true}, {"b": 1, "a": false}]),
        );
    }

    #[test]
    fn rows_are_grouped_and_aggregated() {
        is("SELECT VALUE COUNT(1) FROM c WHERE c.pk = 'none'", json!([0]));
        is("SELECT COUNT(1) AS n, c.pk FROM c GROUP BY c.pk", json!([{"n": 2, "pk": "x"}, {"n": 2, "pk": "y"}]));
        is("SELECT VALUE SUM(c.n) FROM c WHERE c.pk = 'x'", json!([4]));
        is("SELECT VALUE SUM(c.n) FROM c", json!([]));
        is("SELECT VALUE AVG(c.n) FROM c WHERE IS_NUMBER(c.n)", json!([2]));
        is("SELECT VALUE MAX(c.n) FROM c", json!(["text"]));
        is("SELECT VALUE [{\"item\": MIN(c.n)}] FROM c", json!([[{"item": 1}]]));
        is("SELECT VALUE COUNT(c.s) FROM c", json!([1]));
    }

    #[test]
    fn arrays_and_subqueries_are_evaluated() {
        is(
            "SELECT c.id, t FROM c JOIN t IN c.tags WHERE t = 'b'",
            json!([{"id": "1", "t": "b"}, {"id": "2", "t": "b"}]),
        );
        is("SELECT VALUE t FROM t IN c.tags", json!(["a", "b", "b"]));
        is("SELECT VALUE k FROM c.in.k", json!([1]));
        is("SELECT VALUE c.id FROM c WHERE EXISTS(SELECT VALUE t FROM t IN c.tags WHERE t = 'a')", json!(["1"]));
        is("SELECT VALUE ARRAY(SELECT VALUE UPPER(t) FROM t IN c.tags) FROM c WHERE c.n = 3", json!([["A", "B"]]));
        is("SELECT VALUE (SELECT VALUE COUNT(1) FROM t IN c.tags) FROM c WHERE c.pk = 'x'", json!([2, 1]));
        is("SELECT VALUE u FROM c JOIN (SELECT VALUE t FROM t IN c.tags WHERE t != 'b') AS u", json!(["a"]));
    }

    #[test]
    fn operators_have_their_precedence() {
        is("SELECT VALUE 1 + 2 * 3 - 4 / 2 FROM c WHERE c.n = 3", json!([5]));
        is("SELECT VALUE (1 = 2 OR 2 = 2 AND NOT 1 = 2) ? 'y' : 'n' FROM c WHERE c.n = 3", json!(["y"]));
        is("SELECT VALUE c.id FROM c WHERE c.n BETWEEN 2 AND 3 AND c.pk IN ('x', 'z')", json!(["1"]));
        is("SELECT VALUE c.id FROM c WHERE c.n NOT IN (1, 2) AND NOT c.pk LIKE '%y'", json!(["1"]));
        is("SELECT VALUE 'a%b' LIKE 'a!%_' ESCAPE '!' FROM c WHERE c.n = 3", json!([true]));
        is("SELECT VALUE -1 FROM c WHERE c.n = 3", json!([-1]));
        is("SELECT VALUE 'a' || 'b' FROM c WHERE c.n = 3", json!(["ab"]));
    }

    #[test]
    fn a_whole_document_keeps_its_text() {
        let text = "{\"id\":\"1\",\"n\":1.10,\"n2\":100000000000000000000000}";
        for query in ["SELECT * FROM c", "SELECT VALUE c FROM c", "SELECT * FROM root r ORDER BY r.id"] {
            let found = run(
                &statement(query, json!([])).unwrap(),
                &Computed::default(),
                std::iter::once(Bytes::from_static(text.as_bytes())),
            );
            assert_eq!(found.unwrap(), [text], "{query}");
        }
    }

    #[test]
    fn invalid_and_unknown_syntax_is_refused_by_name() {
        for (query, named) in [
            ("SELECT * FROM c WHERE d.x = 1", "'d'"),
            ("SELECT * FROM c WHERE", "the end"),
            ("SELEC * FROM c", "SELECT"),
            ("SELECT * FROM c WHERE c.x = 'open", "no end"),
            ("SELECT VALUE udf.f(c) FROM c", "user-defined"),
            ("SELECT VALUE ST_DISTANCE(c.a, c.b) FROM c", "ST_DISTANCE"),
            ("SELECT VALUE c.x FROM c WHERE COUNT(1) > 1", "COUNT"),
            ("SELECT * FROM c JOIN t IN c.tags", "single input"),
            ("SELECT * FROM c WHERE c.x = @missing", "@missing"),
            ("SELECT c.x, d.x FROM c", "twice"),
            ("SELECT TOP 1.5 * FROM c", "whole number"),
            ("SELECT VALUE LEFT('x') FROM c", "LEFT"),
        ] {
            let refused = asked(query, &documents()).unwrap_err();
            assert!(refused.contains(named), "{query}: {refused}");
        }
        let long = format!("SELECT VALUE COUNT(1) FROM c WHERE {}", vec!["c.id = '1'"; 20_000].join(" OR "));
        assert_eq!(asked(&long, &documents()), Ok(json!([1])));
        let nothing = asked("SELECT * FROM c WHERE EXISTS(SELECT VALUE 1 FROM t IN x.tags)", &json!([]));
        assert!(nothing.unwrap_err().contains("'x'"), "told without any document");
        let deep = format!("SELECT VALUE {}1{} FROM c", "(".repeat(5000), ")".repeat(5000));
        assert!(asked(&deep, &documents()).unwrap_err().contains("too deeply"));
    }

    fn planned(query: &str) -> Value {
        let partitioning = Partitioning::parse(&json!({"paths": ["/pk"], "kind": "Hash", "version": 2})).unwrap();
        plan(&statement(query, json!([])).unwrap(), &partitioning).unwrap()
    }

    #[test]
    fn a_plan_names_aggregates_as_clients_expect() {
        let info = planned("SELECT VALUE AVG(c.n) FROM c")["queryInfo"].clone();
        assert_eq!((&info["aggregates"], &info["hasSelectValue"]), (&json!(["Average"]), &json!(true)));
        let rewritten = info["rewrittenQuery"].as_str().unwrap();
        assert_eq!(rewritten, "SELECT VALUE [{\"item\": {\"sum\": SUM(c.n), \"count\": COUNT(c.n)}}] FROM c");
        let info = planned("SELECT c.pk, COUNT(1) AS n FROM c GROUP BY c.pk")["queryInfo"].clone();
        assert_eq!(info["groupByAliasToAggregateType"], json!({"pk": null, "n": "Count"}));
        assert_eq!(info["groupByAliases"], json!(["pk", "n"]));
        let rows = asked(info["rewrittenQuery"].as_str().unwrap(), &documents()).unwrap();
        assert_eq!(rows[0], json!({"groupByItems": [{"item": "x"}], "payload": {"pk": "x", "n": {"item": 2}}}));
    }

    #[test]
    fn an_ordered_plan_returns_the_order_by_values() {
        let info = planned("SELECT c.id FROM c WHERE c.n > 0 ORDER BY c.n DESC OFFSET 1 LIMIT 2")["queryInfo"].clone();
        assert_eq!((&info["orderBy"], &info["orderByExpressions"]), (&json!(["Descending"]), &json!(["c.n"])));
        let rewritten = info["rewrittenQuery"].as_str().unwrap();
        assert!(rewritten.contains("{documentdb-formattableorderbyquery-filter}"), "{rewritten}");
        let rows =
            asked(&rewritten.replace("{documentdb-formattableorderbyquery-filter}", "true"), &documents()).unwrap();
        assert_eq!(rows[0], json!({"orderByItems": [{"item": 3}], "payload": {"id": "1"}}));
        assert_eq!(rows.as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_plan_covers_one_key_if_the_filter_requires_it() {
        let range = |query: &str| planned(query)["queryRanges"][0].clone();
        let one = range("SELECT * FROM c WHERE c[\"pk\"] = 'x' AND c.n > 1");
        assert_eq!((&one["min"], &one["isMaxInclusive"]), (&one["max"], &json!(true)));
        for query in
            ["SELECT * FROM c", "SELECT * FROM c WHERE c.pk = 'x' OR c.n = 1", "SELECT * FROM c WHERE c.pk = c.n"]
        {
            assert_eq!(range(query), json!({"min": "", "max": "FF", "isMinInclusive": true, "isMaxInclusive": false}));
        }
    }

    #[test]
    fn computed_properties_are_visible_to_filters_but_not_to_star() {
        let computed = Computed::read(&json!([{"name": "low", "query": "SELECT VALUE LOWER(c.name) FROM c"}]));
        let text = Bytes::from_static(b"{\"id\":\"1\",\"name\":\"ABC\"}");
        let found =
            |query: &str| run(&statement(query, json!([])).unwrap(), &computed, std::iter::once(text.clone())).unwrap();
        assert_eq!(found("SELECT * FROM c WHERE c.low = 'abc'"), std::slice::from_ref(&text));
        assert_eq!(found("SELECT VALUE c.low FROM c"), ["\"abc\""]);
        assert_eq!(found("SELECT * FROM c WHERE c.low = 'ABC'").len(), 0);
    }
}
