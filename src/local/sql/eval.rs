//! Evaluates an expression. `None` is "undefined": not a value, and not null.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::ast::{Binary, Expr, Unary};
use super::{SqlError, aggregate, functions, run};

pub(super) type Evaluated<'e> = Option<Cow<'e, Value>>;

/// A retained row: the values of all inputs.
pub(super) type Row = Vec<(String, Option<Value>)>;

/// The names that are visible to an expression: the innermost input and those around it.
#[derive(Clone, Copy)]
pub(super) struct NameScope<'e> {
    pub parameters: &'e [(String, Value)],
    pub name: &'e str,
    pub value: Option<&'e Value>,
    pub outer: Option<&'e NameScope<'e>>,
    /// The rows that aggregates work on.
    pub group: Option<&'e [Row]>,
}

impl<'e> NameScope<'e> {
    pub fn root(parameters: &'e [(String, Value)]) -> Self {
        Self { parameters, name: "", value: None, outer: None, group: None }
    }

    /// Adds another input to this scope.
    pub fn with(&'e self, name: &'e str, value: Option<&'e Value>) -> Self {
        Self { parameters: self.parameters, name, value, outer: Some(self), group: None }
    }

    pub fn find(&self, name: &str) -> Option<Option<&'e Value>> {
        let mut scope = Some(self);
        while let Some(found) = scope {
            if found.name == name && !name.is_empty() {
                return Some(found.value);
            }
            scope = found.outer;
        }
        None
    }

    /// Whether this is a group without rows, whose names are undefined.
    fn is_empty_group(&self) -> bool {
        self.group.is_some_and(<[Row]>::is_empty)
    }
}

fn owned<'e>(value: impl Into<Value>) -> Evaluated<'e> {
    Some(Cow::Owned(value.into()))
}

pub(super) fn eval<'e>(expr: &'e Expr, scope: &'e NameScope<'e>) -> Result<Evaluated<'e>, SqlError> {
    Ok(match expr {
        Expr::Undefined => None,
        Expr::Literal(value) => Some(Cow::Borrowed(value)),
        Expr::Parameter(name) => {
            let found = scope.parameters.iter().find(|(known, _)| known == name);
            let (_, value) = found.ok_or_else(|| SqlError::Invalid(format!("the parameter {name} has no value")))?;
            Some(Cow::Borrowed(value))
        }
        Expr::Name(name) => match scope.find(name) {
            Some(value) => value.map(Cow::Borrowed),
            None if scope.is_empty_group() => None,
            None => return Err(SqlError::Invalid(format!("identifier '{name}' could not be resolved"))),
        },
        Expr::Member(of, name) => {
            let (of, name) = (eval(of, scope)?, eval(name, scope)?);
            member(of, name.as_deref())
        }
        Expr::Array(items) => {
            let mut array = Vec::with_capacity(items.len());
            for item in items {
                // Undefined elements are left out.
                array.extend(eval(item, scope)?.map(Cow::into_owned));
            }
            owned(array)
        }
        Expr::Object(members) => {
            let mut object = Map::new();
            for (name, value) in members {
                if let Some(value) = eval(value, scope)? {
                    object.insert(name.clone(), value.into_owned());
                }
            }
            owned(object)
        }
        Expr::Unary(operator, of) => unary(*operator, eval(of, scope)?.as_deref()),
        Expr::All(items) => every(items, true, scope)?,
        Expr::Any(items) => every(items, false, scope)?,
        Expr::Binary(operator, left, right) => {
            let (left, right) = (eval(left, scope)?, eval(right, scope)?);
            let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
            binary(*operator, &left, &right).map(Cow::Owned)
        }
        Expr::Condition(condition, yes, no) => {
            let chosen = if boolean(eval(condition, scope)?.as_deref()) == Some(true) { yes } else { no };
            eval(chosen, scope)?
        }
        Expr::Coalesce(left, right) => match eval(left, scope)? {
            Some(left) => Some(left),
            None => eval(right, scope)?,
        },
        Expr::Between(of, low, high) => {
            let (of, low, high) = (eval(of, scope)?, eval(low, scope)?, eval(high, scope)?);
            let (Some(of), Some(low), Some(high)) = (of, low, high) else { return Ok(None) };
            let inside = comparable(&low, &of).zip(comparable(&of, &high));
            inside.and_then(|(low, high)| owned(low.is_le() && high.is_le()))
        }
        Expr::In(of, items) => {
            let Some(of) = eval(of, scope)? else { return Ok(None) };
            for item in items {
                if eval(item, scope)?.is_some_and(|item| equal(&of, &item)) {
                    return Ok(owned(true));
                }
            }
            owned(false)
        }
        Expr::Like(of, pattern, escape) => {
            let (of, pattern) = (eval(of, scope)?, eval(pattern, scope)?);
            match (of.as_deref(), pattern.as_deref()) {
                (Some(Value::String(of)), Some(Value::String(pattern))) => owned(like(of, pattern, *escape)),
                _ => None,
            }
        }
        Expr::Call(name, arguments) if aggregate::is_aggregate(name) => {
            let group = scope.group.ok_or_else(|| {
                SqlError::Invalid(format!("{name} is an aggregate: it stands in SELECT or ORDER BY only"))
            })?;
            aggregate::eval(name, arguments, group, scope)?.map(Cow::Owned)
        }
        Expr::Call(name, arguments) => {
            let mut values = Vec::with_capacity(arguments.len());
            for argument in arguments {
                values.push(eval(argument, scope)?);
            }
            functions::call(name, &values)?.map(Cow::Owned)
        }
        Expr::Query(query) => {
            let mut values = run::values(query, scope)?;
            if values.len() > 1 {
                return Err(SqlError::Invalid("a scalar subquery has more than one result".into()));
            }
            values.pop().map(Cow::Owned)
        }
        Expr::Exists(query) => owned(!run::values(query, scope)?.is_empty()),
        Expr::ArrayOf(query) => owned(run::values(query, scope)?),
    })
}

/// AND when `neutral` is true, OR when it is false. An operand with the opposite value decides the result, even if
/// others are undefined.
fn every<'e>(items: &'e [Expr], neutral: bool, scope: &'e NameScope<'e>) -> Result<Evaluated<'e>, SqlError> {
    let mut all_known = true;
    for item in items {
        match boolean(eval(item, scope)?.as_deref()) {
            Some(value) if value != neutral => return Ok(owned(value)),
            Some(_) => {}
            None => all_known = false,
        }
    }
    Ok(all_known.then(|| Cow::Owned(neutral.into())))
}

pub(super) fn boolean(value: Option<&Value>) -> Option<bool> {
    value.and_then(Value::as_bool)
}

fn member<'e>(of: Evaluated<'e>, name: Option<&Value>) -> Evaluated<'e> {
    match (of?, name?) {
        (Cow::Borrowed(Value::Object(object)), Value::String(name)) => object.get(name).map(Cow::Borrowed),
        (Cow::Borrowed(Value::Array(array)), Value::Number(index)) => array.get(index_of(index)?).map(Cow::Borrowed),
        (Cow::Owned(Value::Object(mut object)), Value::String(name)) => object.swap_remove(name).map(Cow::Owned),
        (Cow::Owned(Value::Array(mut array)), Value::Number(index)) => {
            let index = index_of(index).filter(|index| *index < array.len())?;
            Some(Cow::Owned(array.swap_remove(index)))
        }
        _ => None,
    }
}

fn index_of(number: &Number) -> Option<usize> {
    match number.as_u64() {
        Some(index) => usize::try_from(index).ok(),
        None => number.as_f64().filter(|value| value.fract() == 0.0 && *value >= 0.0).map(|value| value as usize),
    }
}

/// Converts a number to the service's format: without a fraction if it is integral. `None` when it is not finite.
pub(super) fn number(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 && !(value == 0.0 && value.is_sign_negative()) {
        return Some((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number)
}

fn unary<'e>(operator: Unary, of: Option<&Value>) -> Evaluated<'e> {
    match operator {
        Unary::Not => boolean(of).and_then(|value| owned(!value)),
        Unary::Minus => match of?.as_i64().and_then(i64::checked_neg) {
            Some(value) => owned(value),
            None => number(-of?.as_f64()?).map(Cow::Owned),
        },
        Unary::Plus => of?.is_number().then(|| Cow::Owned(of.cloned().unwrap_or_default())),
        Unary::BitNot => owned(i64::from(!bits(of?)?)),
    }
}

/// The service's bitwise operators work on 32 bits.
fn bits(value: &Value) -> Option<i32> {
    value.as_f64().filter(|value| value.fract() == 0.0).map(|value| value as i64 as i32)
}

fn binary(operator: Binary, left: &Value, right: &Value) -> Option<Value> {
    let ordering = |test: fn(Ordering) -> bool| comparable(left, right).map(|ordering| test(ordering).into());
    let whole =
        |operation: fn(i64, i64) -> Option<i64>| left.as_i64().zip(right.as_i64()).and_then(|(a, b)| operation(a, b));
    let numeric = |exact: fn(i64, i64) -> Option<i64>, rounded: fn(f64, f64) -> f64| match whole(exact) {
        Some(value) => Some(value.into()),
        None => number(rounded(left.as_f64()?, right.as_f64()?)),
    };
    let bitwise = |operation: fn(i32, i32) -> i64| Some(operation(bits(left)?, bits(right)?).into());
    match operator {
        Binary::Equal => Some(equal(left, right).into()),
        Binary::NotEqual => Some((!equal(left, right)).into()),
        Binary::Less => ordering(Ordering::is_lt),
        Binary::LessOrEqual => ordering(Ordering::is_le),
        Binary::Greater => ordering(Ordering::is_gt),
        Binary::GreaterOrEqual => ordering(Ordering::is_ge),
        Binary::Add => numeric(i64::checked_add, |a, b| a + b),
        Binary::Subtract => numeric(i64::checked_sub, |a, b| a - b),
        Binary::Multiply => numeric(i64::checked_mul, |a, b| a * b),
        Binary::Divide => number(left.as_f64()? / right.as_f64()?),
        Binary::Modulo => numeric(i64::checked_rem, |a, b| a % b),
        Binary::Concat => Some(format!("{}{}", left.as_str()?, right.as_str()?).into()),
        Binary::BitAnd => bitwise(|a, b| i64::from(a & b)),
        Binary::BitOr => bitwise(|a, b| i64::from(a | b)),
        Binary::BitXor => bitwise(|a, b| i64::from(a ^ b)),
        Binary::ShiftLeft => bitwise(|a, b| i64::from(a.wrapping_shl(b as u32))),
        Binary::ShiftRight => bitwise(|a, b| i64::from(a.wrapping_shr(b as u32))),
        Binary::ShiftRightZero => bitwise(|a, b| i64::from((a as u32).wrapping_shr(b as u32))),
    }
}

pub(super) fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left.cmp(&right);
    }
    let (left, right) = (left.as_f64().unwrap_or_default(), right.as_f64().unwrap_or_default());
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

/// Whether two values are equal; the order of members does not matter.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right).is_eq(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// Compares two values of one scalar type; `None` where the service returns "undefined".
fn comparable(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Some(compare_numbers(left, right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

/// The order of ORDER BY, MIN and MAX: undefined, null, booleans, numbers, strings, arrays, objects.
pub(super) fn total_order(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let rank = |value: Option<&Value>| match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(_)) => 2,
        Some(Value::Number(_)) => 3,
        Some(Value::String(_)) => 4,
        Some(Value::Array(_)) => 5,
        Some(Value::Object(_)) => 6,
    };
    rank(left).cmp(&rank(right)).then_with(|| match (left, right) {
        (Some(left @ (Value::Array(_) | Value::Object(_))), Some(right)) => left.to_string().cmp(&right.to_string()),
        (Some(left), Some(right)) => comparable(left, right).unwrap_or(Ordering::Equal),
        _ => Ordering::Equal,
    })
}

/// In a pattern, `%` matches any text, `_` any character, and `[a-z]` or `[^a-z]` one character of a set.
fn like(text: &str, pattern: &str, escape: Option<char>) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = pieces(pattern, escape);
    // The positions of the text that can be reached after each part of the pattern.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for piece in &pattern {
        let mut next = vec![false; text.len() + 1];
        for at in (0..=text.len()).filter(|at| reached[*at]) {
            match piece {
                Piece::Any => {
                    next[at..].fill(true);
                    break;
                }
                Piece::One(set) => {
                    if text.get(at).is_some_and(|character| set.has(*character)) {
                        next[at + 1] = true;
                    }
                }
            }
        }
        reached = next;
    }
    reached[text.len()]
}

enum Piece {
    Any,
    One(Set),
}

struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != self.negated
    }
}

fn pieces(pattern: &str, escape: Option<char>) -> Vec<Piece> {
    let one = |character: char| Piece::One(Set { negated: false, ranges: vec![(character, character)] });
    let mut found = Vec::new();
    let characters: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        at += 1;
        if Some(character) == escape && at < characters.len() {
            found.push(one(characters[at]));
            at += 1;
            continue;
        }
        found.push(match character {
            '%' => Piece::Any,
            '_' => Piece::One(Set { negated: true, ranges: Vec::new() }),
            '[' => match characters[at..].iter().skip(1).position(|c| *c == ']').map(|end| at + 1 + end) {
                Some(end) => {
                    let negated = characters[at] == '^';
                    let inside = &characters[at + usize::from(negated)..end];
                    at = end + 1;
                    Piece::One(Set { negated, ranges: ranges(inside) })
                }
                None => one('['),
            },
            other => one(other),
        });
    }
    found
}

fn ranges(inside: &[char]) -> Vec<(char, char)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < inside.len() {
        if inside.get(at + 1) == Some(&'-') && at + 2 < inside.len() {
            found.push((inside[at], inside[at + 2]));
            at += 3;
        } else {
            found.push((inside[at], inside[at]));
            at += 1;
        }
    }
    found
}
