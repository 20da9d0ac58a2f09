//! Functions over a group of rows.

use serde_json::Value;

use super::SqlError;
use super::ast::{Expr, NamedExpr, Query, Select};
use super::eval::{NameScope, Row, boolean, eval as value_of, number, total_order};

const AGGREGATES: &[&str] = &["COUNT", "COUNTIF", "SUM", "AVG", "MIN", "MAX"];

pub(super) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

/// Returns the aggregate calls in an expression, outermost first.
pub(super) fn calls(expr: &Expr) -> Vec<(&str, &[Expr])> {
    let mut found: Vec<(&str, &[Expr])> = Vec::new();
    expr.walk(&mut |part| {
        if let Expr::Call(name, arguments) = part
            && is_aggregate(name)
        {
            found.push((name, arguments));
        }
    });
    found
}

/// Whether a query aggregates its rows.
pub(super) fn is_grouped(query: &Query) -> bool {
    let has = |expr: &Expr| !calls(expr).is_empty();
    !query.group_by.is_empty()
        || match &query.select {
            Select::Star => false,
            Select::Value(expr) => has(expr),
            Select::List(items) => items.iter().any(|NamedExpr { expr, .. }| has(expr)),
        }
}

/// Calls `visit` in the scope of a kept row.
pub(super) fn in_row<'e>(
    row: &'e [(String, Option<Value>)],
    scope: &'e NameScope<'e>,
    visit: &mut dyn FnMut(&NameScope<'_>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    match row.split_first() {
        None => visit(scope),
        Some(((name, value), rest)) => in_row(rest, &scope.with(name, value.as_ref()), visit),
    }
}

pub(super) fn eval(
    name: &str,
    arguments: &[Expr],
    group: &[Row],
    scope: &NameScope<'_>,
) -> Result<Option<Value>, SqlError> {
    let [argument] = arguments else {
        return Err(SqlError::Invalid(format!("{name} has one argument, not {}", arguments.len())));
    };
    let mut values = Vec::new();
    // The scope outside the group; a group's own aggregates must not see the group itself.
    let outside = NameScope { group: None, name: "", value: None, ..*scope };
    for row in group {
        in_row(row, &outside, &mut |scope| {
            values.extend(value_of(argument, scope)?.map(std::borrow::Cow::into_owned));
            Ok(())
        })?;
    }
    Ok(match name {
        "COUNT" => Some(values.len().into()),
        "COUNTIF" => Some(values.iter().filter(|value| boolean(Some(value)) == Some(true)).count().into()),
        "SUM" | "AVG" => {
            if !values.iter().all(Value::is_number) {
                return Ok(None);
            }
            let whole = values.iter().try_fold(0_i64, |sum, value| sum.checked_add(value.as_i64()?));
            let sum = || values.iter().filter_map(Value::as_f64).sum::<f64>();
            match (name, whole) {
                ("SUM", Some(whole)) => Some(whole.into()),
                ("SUM", None) => number(sum()),
                _ if values.is_empty() => None,
                _ => number(sum() / values.len() as f64),
            }
        }
        "MIN" => values.into_iter().min_by(|left, right| total_order(Some(left), Some(right))),
        _ => values.into_iter().max_by(|left, right| total_order(Some(left), Some(right))),
    })
}
