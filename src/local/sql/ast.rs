//! A parsed query, and its conversion back to text.

use std::fmt;

use serde_json::Value;

/// `SELECT ... FROM ... WHERE ... GROUP BY ... ORDER BY ... OFFSET ... LIMIT ...`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    pub distinct: bool,
    pub top: Option<Expr>,
    pub select: Select,
    pub from: Vec<FromItem>,
    pub filter: Option<Expr>,
    pub group_by: Vec<Expr>,
    pub order_by: Vec<Order>,
    pub offset: Option<Expr>,
    pub limit: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Select {
    Star,
    Value(Expr),
    List(Vec<NamedExpr>),
}

/// `expression AS name`; a missing name is derived.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedExpr {
    pub name: String,
    pub expr: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    pub expr: Expr,
    pub descending: bool,
}

/// One input of FROM or JOIN.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FromItem {
    pub alias: String,
    pub from: From,
    /// `alias IN source`: one row for each element.
    pub each: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    Path(Expr),
    Query(Box<Query>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Concat,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    ShiftRightZero,
}

impl Binary {
    fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Concat => "||",
            Self::BitAnd => "&",
            Self::BitOr => "|",
            Self::BitXor => "^",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::ShiftRightZero => ">>>",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
    BitNot,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Undefined,
    Literal(Value),
    Parameter(String),
    /// An input's alias.
    Name(String),
    /// `a.b`, `a["b"]`, `a[0]`
    Member(Box<Expr>, Box<Expr>),
    Array(Vec<Expr>),
    Object(Vec<(String, Expr)>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// The operands of AND: a list, because clients send thousands of them.
    All(Vec<Expr>),
    /// The operands of OR.
    Any(Vec<Expr>),
    /// `a ? b : c`
    Condition(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `a ?? b`
    Coalesce(Box<Expr>, Box<Expr>),
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    Like(Box<Expr>, Box<Expr>, Option<char>),
    Call(String, Vec<Expr>),
    /// `(SELECT ...)`
    Query(Box<Query>),
    Exists(Box<Query>),
    /// `ARRAY(SELECT ...)`
    ArrayOf(Box<Query>),
}

impl Expr {
    pub fn string(text: &str) -> Self {
        Self::Literal(text.into())
    }

    pub fn member(self, name: &str) -> Self {
        Self::Member(Box::new(self), Box::new(Self::string(name)))
    }

    pub fn call(name: &str, argument: Self) -> Self {
        Self::Call(name.to_owned(), vec![argument])
    }

    /// Calls `visit` for this expression and its subexpressions, except for those in subqueries.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        visit(self);
        match self {
            Self::Undefined
            | Self::Literal(_)
            | Self::Parameter(_)
            | Self::Name(_)
            | Self::Query(_)
            | Self::Exists(_)
            | Self::ArrayOf(_) => {}
            Self::Member(a, b) | Self::Binary(_, a, b) | Self::Coalesce(a, b) | Self::Like(a, b, _) => {
                a.walk(visit);
                b.walk(visit);
            }
            Self::Condition(a, b, c) | Self::Between(a, b, c) => {
                a.walk(visit);
                b.walk(visit);
                c.walk(visit);
            }
            Self::Unary(_, a) => a.walk(visit),
            Self::Array(items) | Self::Call(_, items) | Self::All(items) | Self::Any(items) => {
                items.iter().for_each(|item| item.walk(visit))
            }
            Self::Object(members) => members.iter().for_each(|(_, item)| item.walk(visit)),
            Self::In(a, items) => {
                a.walk(visit);
                items.iter().for_each(|item| item.walk(visit));
            }
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    separated(f, items, ", ")
}

fn separated<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], by: &str) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(by)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !super::parse::is_keyword(name)
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined"),
            Self::Literal(value) => write!(f, "{value}"),
            Self::Parameter(name) | Self::Name(name) => f.write_str(name),
            Self::Member(of, name) => match &**name {
                Self::Literal(Value::String(name)) if is_identifier(name) => write!(f, "{of}.{name}"),
                name => write!(f, "{of}[{name}]"),
            },
            Self::Array(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{}: {value}", Value::from(name.as_str()))?;
                }
                f.write_str("}")
            }
            Self::Unary(Unary::Not, of) => write!(f, "(NOT {of})"),
            Self::Unary(Unary::Minus, of) => write!(f, "(-{of})"),
            Self::Unary(Unary::Plus, of) => write!(f, "(+{of})"),
            Self::Unary(Unary::BitNot, of) => write!(f, "(~{of})"),
            Self::Binary(operator, left, right) => write!(f, "({left} {} {right})", operator.text()),
            Self::All(items) | Self::Any(items) => {
                f.write_str("(")?;
                separated(f, items, if matches!(self, Self::All(_)) { " AND " } else { " OR " })?;
                f.write_str(")")
            }
            Self::Condition(condition, yes, no) => write!(f, "({condition} ? {yes} : {no})"),
            Self::Coalesce(left, right) => write!(f, "({left} ?? {right})"),
            Self::Between(of, low, high) => write!(f, "({of} BETWEEN {low} AND {high})"),
            Self::In(of, items) => {
                write!(f, "({of} IN (")?;
                list(f, items)?;
                f.write_str("))")
            }
            Self::Like(of, pattern, None) => write!(f, "({of} LIKE {pattern})"),
            Self::Like(of, pattern, Some(escape)) => {
                write!(f, "({of} LIKE {pattern} ESCAPE {})", Value::from(escape.to_string()))
            }
            Self::Call(name, arguments) => {
                write!(f, "{name}(")?;
                list(f, arguments)?;
                f.write_str(")")
            }
            Self::Query(query) => write!(f, "({query})"),
            Self::Exists(query) => write!(f, "EXISTS({query})"),
            Self::ArrayOf(query) => write!(f, "ARRAY({query})"),
        }
    }
}

impl fmt::Display for NamedExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AS {}", self.expr, self.name)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, if self.descending { " DESC" } else { " ASC" })
    }
}

impl fmt::Display for FromItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alias = &self.alias;
        match (&self.from, self.each) {
            (From::Path(path), true) => write!(f, "{alias} IN {path}"),
            (From::Path(Expr::Name(name)), false) if name == alias => f.write_str(name),
            (From::Path(path), false) => write!(f, "{path} AS {alias}"),
            (From::Query(query), true) => write!(f, "{alias} IN ({query})"),
            (From::Query(query), false) => write!(f, "({query}) AS {alias}"),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if self.distinct {
            f.write_str("DISTINCT ")?;
        }
        if let Some(top) = &self.top {
            write!(f, "TOP {top} ")?;
        }
        match &self.select {
            Select::Star => f.write_str("*")?,
            Select::Value(expr) => write!(f, "VALUE {expr}")?,
            Select::List(items) => list(f, items)?,
        }
        for (index, source) in self.from.iter().enumerate() {
            write!(f, " {} {source}", if index == 0 { "FROM" } else { "JOIN" })?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.group_by.is_empty() {
            f.write_str(" GROUP BY ")?;
            list(f, &self.group_by)?;
        }
        if !self.order_by.is_empty() {
            f.write_str(" ORDER BY ")?;
            list(f, &self.order_by)?;
        }
        if let (Some(offset), Some(limit)) = (&self.offset, &self.limit) {
            write!(f, " OFFSET {offset} LIMIT {limit}")?;
        }
        Ok(())
    }
}
