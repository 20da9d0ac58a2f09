//! The plan of a query, for clients that query every partition and merge the results themselves.

use serde_json::{Map, Value, json};

use super::ast::{Binary, Expr, NamedExpr, Query, Select};
use super::eval::{NameScope, eval};
use super::{SqlError, Statement, aggregate};
use crate::local::emulator::Partitioning;

/// A placeholder that clients replace with a condition when they resume an ordered result.
const FILTER: &str = "{documentdb-formattableorderbyquery-filter}";

/// Builds the service's response to a query plan request.
pub(in crate::local) fn plan(statement: &Statement, partitioning: &Partitioning) -> Result<Value, SqlError> {
    let query = &statement.query;
    let scope = NameScope::root(&statement.parameters);
    let count = |expr: &Option<Expr>| match expr {
        None => Ok(None),
        Some(expr) => {
            let value = eval(expr, &scope)?.as_deref().and_then(Value::as_u64);
            value
                .map(Some)
                .ok_or_else(|| SqlError::Invalid("TOP, OFFSET and LIMIT need a whole number from 0 on".into()))
        }
    };
    let (top, offset, limit) = (count(&query.top)?, count(&query.offset)?, count(&query.limit)?);
    let is_grouped = aggregate::is_grouped(query);
    let parts = Parts::of(query)?;
    let distinct = match (query.distinct, query.order_by.is_empty()) {
        (false, _) => "None",
        (true, true) => "Unordered",
        (true, false) => "Ordered",
    };
    let rewritten = if is_grouped {
        if !query.order_by.is_empty() && !query.group_by.is_empty() {
            return Err(SqlError::Unsupported("ORDER BY together with GROUP BY over all partitions".into()));
        }
        parts.rewritten.clone()
    } else if !query.order_by.is_empty() {
        Some(ordered(query, offset, limit))
    } else {
        offset.zip(limit).map(|(offset, limit)| {
            // A single partition may contain all requested rows.
            let reach = Expr::Literal(offset.saturating_add(limit).into());
            let zero = Expr::Literal(0.into());
            Query { offset: Some(zero), limit: Some(reach), ..query.clone() }.to_string()
        })
    };
    // A single row needs no order.
    let ordered_by = if is_grouped { &[][..] } else { &query.order_by[..] };
    let order_by: Vec<&str> =
        ordered_by.iter().map(|order| if order.descending { "Descending" } else { "Ascending" }).collect();
    let expressions = |all: &mut dyn Iterator<Item = &Expr>| all.map(ToString::to_string).collect::<Vec<_>>();
    Ok(json!({
        "partitionedQueryExecutionInfoVersion": 2,
        "queryInfo": {
            "distinctType": distinct,
            "top": top,
            "offset": offset,
            "limit": limit,
            "orderBy": order_by,
            "orderByExpressions": expressions(&mut ordered_by.iter().map(|order| &order.expr)),
            "groupByExpressions": expressions(&mut query.group_by.iter()),
            "groupByAliases": parts.aliases,
            "aggregates": parts.aggregates,
            "groupByAliasToAggregateType": parts.by_alias,
            "rewrittenQuery": rewritten.unwrap_or_default(),
            "hasSelectValue": matches!(query.select, Select::Value(_)),
            "hasNonStreamingOrderBy": false,
            "dCountInfo": null,
        },
        "queryRanges": [range(query, &scope, partitioning)?],
    }))
}

/// Whether the results of all partitions must be merged by the client, because the service's gateway does not do it.
pub(in crate::local) fn needs_merging(statement: &Statement) -> bool {
    let query = &statement.query;
    query.distinct
        || query.top.is_some()
        || query.offset.is_some()
        || !query.order_by.is_empty()
        || aggregate::is_grouped(query)
}

/// Whether the result is a count that does not depend on the documents' contents.
pub(in crate::local) fn is_count(statement: &Statement) -> bool {
    let query = &statement.query;
    let counts =
        |expr: &Expr| matches!(expr, Expr::Call(name, of) if name == "COUNT" && matches!(of[..], [Expr::Literal(_)]));
    query.filter.is_none() && matches!(&query.select, Select::Value(expr) if counts(expr))
}

/// Returns a feature that the query requires and that the client does not declare.
pub(in crate::local) fn missing_feature(statement: &Statement, features: &str) -> Option<&'static str> {
    let query = &statement.query;
    let has = |feature: &str| features.split(',').any(|known| known.trim().eq_ignore_ascii_case(feature));
    let is_list = matches!(query.select, Select::List(_));
    if !query.group_by.is_empty() && !has("GroupBy") {
        return Some("GroupBy");
    }
    if query.group_by.is_empty() && is_list && aggregate::is_grouped(query) && !has("NonValueAggregate") {
        return Some("NonValueAggregate");
    }
    None
}

/// The information with which a client merges groups.
#[derive(Default)]
struct Parts {
    aliases: Vec<String>,
    aggregates: Vec<&'static str>,
    by_alias: Map<String, Value>,
    rewritten: Option<String>,
}

impl Parts {
    fn of(query: &Query) -> Result<Self, SqlError> {
        let mut parts = Self::default();
        if !aggregate::is_grouped(query) {
            return Ok(parts);
        }
        let group_items = query.group_by.iter().map(|expr| Expr::Object(vec![("item".into(), expr.clone())]));
        let group_items = Expr::Array(group_items.collect());
        let (payload, is_value) = match &query.select {
            Select::Star => return Err(SqlError::Invalid("'SELECT *' cannot be grouped".into())),
            Select::Value(expr) => (parts.value(expr)?, true),
            Select::List(items) => (parts.list(items, !query.group_by.is_empty())?, false),
        };
        let select = match (query.group_by.is_empty(), is_value) {
            (true, true) => Select::Value(Expr::Array(vec![payload])),
            (true, false) => Select::List(vec![named("payload", payload)]),
            (false, _) => Select::List(vec![named("groupByItems", group_items), named("payload", payload)]),
        };
        let rewritten = Query {
            select,
            distinct: false,
            top: None,
            order_by: Vec::new(),
            offset: None,
            limit: None,
            ..query.clone()
        };
        parts.rewritten = Some(rewritten.to_string());
        Ok(parts)
    }

    fn value(&mut self, expr: &Expr) -> Result<Expr, SqlError> {
        match aggregated(expr)? {
            Some((kind, item)) => {
                self.aggregates.push(kind);
                Ok(item)
            }
            None => Ok(expr.clone()),
        }
    }

    fn list(&mut self, items: &[NamedExpr], has_groups: bool) -> Result<Expr, SqlError> {
        let mut members = Vec::new();
        for NamedExpr { name, expr } in items {
            let found = aggregated(expr)?;
            if found.is_none() && !has_groups {
                return Err(SqlError::Invalid(format!("{name} is neither aggregated nor grouped by")));
            }
            let (kind, member) = found.map_or((None, expr.clone()), |(kind, item)| (Some(kind), item));
            self.aliases.push(name.clone());
            self.by_alias.insert(name.clone(), kind.into());
            members.push((name.clone(), member));
        }
        Ok(Expr::Object(members))
    }
}

fn named(name: &str, expr: Expr) -> NamedExpr {
    NamedExpr { name: name.to_owned(), expr }
}

/// Rewrites an aggregate call as `{"item": ..}` and returns the client's name for it; `None` when the expression has no
/// aggregate.
fn aggregated(expr: &Expr) -> Result<Option<(&'static str, Expr)>, SqlError> {
    let (name, arguments) = match expr {
        Expr::Call(name, arguments) if aggregate::is_aggregate(name) => (name.as_str(), arguments),
        _ if aggregate::calls(expr).is_empty() => return Ok(None),
        _ => return Err(SqlError::Unsupported("an expression of aggregates over all partitions".into())),
    };
    let argument = arguments.first().cloned().unwrap_or(Expr::Undefined);
    let pair = |first: &str, function: &str| {
        Expr::Object(vec![
            (first.to_owned(), Expr::call(function, argument.clone())),
            ("count".to_owned(), Expr::call("COUNT", argument.clone())),
        ])
    };
    let item = |value: Expr| vec![("item".to_owned(), value)];
    let (kind, members) = match name {
        "COUNT" => ("Count", item(expr.clone())),
        "COUNTIF" => ("CountIf", item(expr.clone())),
        "SUM" => ("Sum", item(expr.clone())),
        "AVG" => ("Average", item(pair("sum", "SUM"))),
        // A partition without values must not spoil the result: newer clients look at `item2`.
        _ => {
            let (kind, member) = if name == "MIN" { ("Min", "min") } else { ("Max", "max") };
            let mut members = item(expr.clone());
            members.push(("item2".to_owned(), pair(member, name)));
            (kind, members)
        }
    };
    Ok(Some((kind, Expr::Object(members))))
}

/// Builds the query for a single partition, whose rows contain the values to order by.
fn ordered(query: &Query, offset: Option<u64>, limit: Option<u64>) -> String {
    let alias = query.from.first().map_or("c", |source| source.alias.as_str());
    let payload = match &query.select {
        Select::Star => Expr::Name(alias.to_owned()),
        Select::Value(expr) => expr.clone(),
        Select::List(items) => Expr::Object(items.iter().map(|item| (item.name.clone(), item.expr.clone())).collect()),
    };
    let items = query.order_by.iter().map(|order| Expr::Object(vec![("item".into(), order.expr.clone())]));
    let members = vec![
        named("_rid", Expr::Name(alias.to_owned()).member("_rid")),
        named("orderByItems", Expr::Array(items.collect())),
        named("payload", payload),
    ];
    let mark = Expr::Name(FILTER.to_owned());
    let filter = match &query.filter {
        Some(filter) => Expr::All(vec![filter.clone(), mark]),
        None => mark,
    };
    let mut rewritten = Query { select: Select::List(members), distinct: false, filter: Some(filter), ..query.clone() };
    if let (Some(offset), Some(limit)) = (offset, limit) {
        rewritten.offset = Some(Expr::Literal(0.into()));
        rewritten.limit = Some(Expr::Literal(offset.saturating_add(limit).into()));
    }
    if query.distinct {
        // The number of duplicates is known only after the merge.
        (rewritten.top, rewritten.offset, rewritten.limit) = (None, None, None);
    }
    rewritten.to_string()
}

/// Returns the key range of the query: a single key when the filter requires one.
fn range(query: &Query, scope: &NameScope<'_>, partitioning: &Partitioning) -> Result<Value, SqlError> {
    let mut equalities: Vec<(String, &Expr)> = Vec::new();
    if let (Some(filter), Some(source)) = (&query.filter, query.from.first()) {
        conjuncts(filter, &mut |left, right| {
            for (path, value) in [(left, right), (right, left)] {
                if let Some(path) = path_of(path, &source.alias) {
                    equalities.push((path, value));
                }
            }
        });
    }
    let mut values = Vec::new();
    for path in &partitioning.paths {
        let Some((_, expr)) = equalities.iter().find(|(known, _)| known == path) else { break };
        if !matches!(expr, Expr::Literal(_) | Expr::Parameter(_)) {
            break;
        }
        values.extend(eval(expr, scope)?.map(std::borrow::Cow::into_owned));
    }
    let full = json!({"min": "", "max": "FF", "isMinInclusive": true, "isMaxInclusive": false});
    let Some(keys) = partitioning.range_of(&values) else { return Ok(full) };
    let is_one = keys.min == keys.max;
    let (min, max) = (keys.min.padded(), keys.max.padded());
    Ok(json!({"min": min, "max": max, "isMinInclusive": true, "isMaxInclusive": is_one}))
}

/// Calls `visit` with both sides of every equality that must hold.
fn conjuncts<'e>(expr: &'e Expr, visit: &mut dyn FnMut(&'e Expr, &'e Expr)) {
    match expr {
        Expr::All(items) => {
            for item in items {
                conjuncts(item, visit);
            }
        }
        Expr::Binary(Binary::Equal, left, right) => visit(left, right),
        _ => {}
    }
}

/// `/a/b` for `c.a.b`.
fn path_of(expr: &Expr, alias: &str) -> Option<String> {
    match expr {
        Expr::Name(name) if name == alias => Some(String::new()),
        Expr::Member(of, name) => match &**name {
            Expr::Literal(Value::String(name)) => Some(format!("{}/{name}", path_of(of, alias)?)),
            _ => None,
        },
        _ => None,
    }
}
