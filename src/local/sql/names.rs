//! Checks that every name in a query refers to an input, before any document is examined.

use super::SqlError;
use super::ast::{Expr, From, Query, Select};

/// Checks a query. Its first input is the container, whatever it is called.
pub(super) fn check(query: &Query) -> Result<(), SqlError> {
    inside(query, &[], true)
}

fn inside(query: &Query, outer: &[&str], is_outermost: bool) -> Result<(), SqlError> {
    let mut names = outer.to_vec();
    for (index, source) in query.from.iter().enumerate() {
        match &source.from {
            From::Query(query) => inside(query, &names, false)?,
            From::Path(path) => {
                let root = root_of(path);
                let begins_here = is_outermost && index == 0;
                let mut known = names.clone();
                known.extend(root.filter(|_| begins_here));
                expr(path, &known)?;
            }
        }
        names.push(&source.alias);
    }
    let selected: Vec<&Expr> = match &query.select {
        Select::Star => Vec::new(),
        Select::Value(expr) => vec![expr],
        Select::List(items) => items.iter().map(|item| &item.expr).collect(),
    };
    let ordered = query.order_by.iter().map(|order| &order.expr);
    let mut all = selected.into_iter().chain(&query.filter).chain(&query.group_by).chain(ordered);
    all.try_for_each(|part| expr(part, &names))
}

fn root_of(path: &Expr) -> Option<&str> {
    match path {
        Expr::Member(of, _) => root_of(of),
        Expr::Name(name) => Some(name),
        _ => None,
    }
}

fn expr(whole: &Expr, names: &[&str]) -> Result<(), SqlError> {
    let mut result = Ok(());
    whole.walk(&mut |part| {
        let found = match part {
            Expr::Name(name) if !names.contains(&name.as_str()) => {
                Err(SqlError::Invalid(format!("identifier '{name}' could not be resolved")))
            }
            Expr::Query(query) | Expr::Exists(query) | Expr::ArrayOf(query) => inside(query, names, false),
            _ => Ok(()),
        };
        if result.is_ok() {
            result = found;
        }
    });
    result
}
