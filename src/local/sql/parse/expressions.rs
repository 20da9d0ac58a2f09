//! Parses expressions by operator precedence.

use serde_json::Value;

use super::{
    Parser,
    clauses::{NO_ALIAS, one_or},
    tokens::{SqlToken, invalid, number_of},
};
use crate::local::sql::{
    SqlError,
    ast::{Binary, Expr, Unary},
    functions,
};

/// The maximum number of consecutive operators other than AND and OR.
const MAX_OPERATORS: usize = 500;

impl Parser {
    pub(super) fn expr(&mut self) -> Result<Expr, SqlError> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expr, SqlError> {
        let condition = self.coalesce()?;
        if !self.sign("?") {
            return Ok(condition);
        }
        let yes = self.expr()?;
        self.need_sign(":")?;
        let no = self.expr()?;
        Ok(Expr::Condition(Box::new(condition), Box::new(yes), Box::new(no)))
    }

    fn coalesce(&mut self) -> Result<Expr, SqlError> {
        let left = self.any()?;
        if !self.sign("??") {
            return Ok(left);
        }
        let right = self.deeper(Self::coalesce)?;
        Ok(Expr::Coalesce(Box::new(left), Box::new(right)))
    }

    pub(super) fn any(&mut self) -> Result<Expr, SqlError> {
        let mut items = vec![self.all()?];
        while self.word("or") {
            items.push(self.all()?);
        }
        Ok(one_or(items, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, SqlError> {
        let mut items = vec![self.binary(2)?];
        while self.word("and") {
            items.push(self.binary(2)?);
        }
        Ok(one_or(items, Expr::All))
    }

    /// Returns the operator at this position with its precedence.
    fn operator(&self) -> Option<(u8, Binary)> {
        Some(match self.peek() {
            SqlToken::Sign("=") => (3, Binary::Equal),
            SqlToken::Sign("!=" | "<>") => (3, Binary::NotEqual),
            SqlToken::Sign("<") => (4, Binary::Less),
            SqlToken::Sign("<=") => (4, Binary::LessOrEqual),
            SqlToken::Sign(">") => (4, Binary::Greater),
            SqlToken::Sign(">=") => (4, Binary::GreaterOrEqual),
            SqlToken::Sign("||") => (5, Binary::Concat),
            SqlToken::Sign("|") => (6, Binary::BitOr),
            SqlToken::Sign("^") => (7, Binary::BitXor),
            SqlToken::Sign("&") => (8, Binary::BitAnd),
            SqlToken::Sign("<<") => (9, Binary::ShiftLeft),
            SqlToken::Sign(">>") => (9, Binary::ShiftRight),
            SqlToken::Sign(">>>") => (9, Binary::ShiftRightZero),
            SqlToken::Sign("+") => (10, Binary::Add),
            SqlToken::Sign("-") => (10, Binary::Subtract),
            SqlToken::Sign("*") => (11, Binary::Multiply),
            SqlToken::Sign("/") => (11, Binary::Divide),
            SqlToken::Sign("%") => (11, Binary::Modulo),
            _ => return None,
        })
    }

    fn binary(&mut self, least: u8) -> Result<Expr, SqlError> {
        let mut left = if least <= 2 && self.word("not") {
            let of = self.deeper(|parser| parser.binary(2))?;
            Expr::Unary(Unary::Not, Box::new(of))
        } else {
            self.unary()?
        };
        for _ in 0..MAX_OPERATORS {
            if least <= 3
                && let Some(tested) = self.tested(&left)?
            {
                left = tested;
                continue;
            }
            let Some((precedence, operator)) = self.operator().filter(|(precedence, _)| *precedence >= least) else {
                return Ok(left);
            };
            self.at += 1;
            let right = self.deeper(|parser| parser.binary(precedence + 1))?;
            left = Expr::Binary(operator, Box::new(left), Box::new(right));
        }
        Err(invalid("too many operators in a row"))
    }

    /// `[NOT] BETWEEN`, `[NOT] IN`, `[NOT] LIKE`
    fn tested(&mut self, of: &Expr) -> Result<Option<Expr>, SqlError> {
        let at = self.at;
        let not = self.word("not");
        let of = Box::new(of.clone());
        let tested = if self.word("between") {
            let low = self.deeper(|parser| parser.binary(5))?;
            self.need_word("and")?;
            let high = self.deeper(|parser| parser.binary(5))?;
            Expr::Between(of, Box::new(low), Box::new(high))
        } else if self.word("in") {
            self.need_sign("(")?;
            if self.is_word("select") {
                return Err(SqlError::Unsupported("IN (SELECT ...)".into()));
            }
            let items = self.list(Self::expr)?;
            self.need_sign(")")?;
            Expr::In(of, items)
        } else if self.word("like") {
            let pattern = self.deeper(|parser| parser.binary(5))?;
            let mut escape = None;
            if self.word("escape") {
                escape = match self.peek() {
                    SqlToken::Text(text) if text.chars().count() == 1 => text.chars().next(),
                    _ => return Err(self.unexpected("one character in quotes")),
                };
                self.at += 1;
            }
            Expr::Like(of, Box::new(pattern), escape)
        } else {
            self.at = at;
            return Ok(None);
        };
        Ok(Some(if not { Expr::Unary(Unary::Not, Box::new(tested)) } else { tested }))
    }

    fn unary(&mut self) -> Result<Expr, SqlError> {
        for (sign, operator) in [("-", Unary::Minus), ("+", Unary::Plus), ("~", Unary::BitNot)] {
            if self.sign(sign) {
                let of = self.deeper(Self::unary)?;
                return Ok(match (operator, of) {
                    (Unary::Minus, Expr::Literal(Value::Number(number))) => Expr::Literal(negative(&number)),
                    (operator, of) => Expr::Unary(operator, Box::new(of)),
                });
            }
        }
        if self.word("not") {
            let of = self.deeper(Self::unary)?;
            return Ok(Expr::Unary(Unary::Not, Box::new(of)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, SqlError> {
        let token = self.peek().clone();
        self.at += 1;
        let expr = match token {
            SqlToken::Text(text) => Expr::Literal(text.into()),
            SqlToken::Number(number) => Expr::Literal(number),
            SqlToken::Parameter(name) => Expr::Parameter(name),
            SqlToken::Sign("(") if self.is_word("select") => {
                let query = self.query()?;
                self.need_sign(")")?;
                Expr::Query(Box::new(query))
            }
            SqlToken::Sign("(") => {
                let expr = self.expr()?;
                self.need_sign(")")?;
                expr
            }
            SqlToken::Sign("[") => {
                let items =
                    if matches!(self.peek(), SqlToken::Sign("]")) { Vec::new() } else { self.list(Self::expr)? };
                self.need_sign("]")?;
                Expr::Array(items)
            }
            SqlToken::Sign("{") => self.object()?,
            SqlToken::Word(word) => self.named(word)?,
            SqlToken::Sign(_) | SqlToken::End => {
                self.at -= 1;
                return Err(self.unexpected("an expression"));
            }
        };
        self.members(expr)
    }

    fn object(&mut self) -> Result<Expr, SqlError> {
        let mut members = Vec::new();
        while !self.sign("}") {
            if !members.is_empty() {
                self.need_sign(",")?;
            }
            let name = match self.peek().clone() {
                SqlToken::Text(text) => {
                    self.at += 1;
                    text
                }
                _ => self.identifier()?,
            };
            self.need_sign(":")?;
            members.push((name, self.expr()?));
        }
        Ok(Expr::Object(members))
    }

    fn named(&mut self, word: String) -> Result<Expr, SqlError> {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "true" => return Ok(Expr::Literal(true.into())),
            "false" => return Ok(Expr::Literal(false.into())),
            "null" => return Ok(Expr::Literal(Value::Null)),
            "undefined" => return Ok(Expr::Undefined),
            "udf" if matches!(self.peek(), SqlToken::Sign(".")) => {
                return Err(SqlError::Unsupported("user-defined functions".into()));
            }
            "exists" | "array" if matches!(self.peek(), SqlToken::Sign("(")) => {
                self.at += 1;
                let query = Box::new(self.query()?);
                self.need_sign(")")?;
                return Ok(if lower == "exists" { Expr::Exists(query) } else { Expr::ArrayOf(query) });
            }
            _ => {}
        }
        if self.sign("(") {
            if self.is_word("select") {
                return Err(SqlError::Unsupported(format!("{word}(SELECT ...)")));
            }
            let arguments =
                if matches!(self.peek(), SqlToken::Sign(")")) { Vec::new() } else { self.list(Self::expr)? };
            self.need_sign(")")?;
            let name = word.to_ascii_uppercase();
            functions::check(&name, arguments.len())?;
            return Ok(Expr::Call(name, arguments));
        }
        if NO_ALIAS.contains(&lower.as_str()) {
            self.at -= 1;
            return Err(self.unexpected("an expression"));
        }
        Ok(Expr::Name(word))
    }

    pub(super) fn members(&mut self, mut of: Expr) -> Result<Expr, SqlError> {
        for _ in 0..MAX_OPERATORS {
            if self.sign(".") {
                let name = self.identifier()?;
                of = of.member(&name);
            } else if self.sign("[") {
                let index = self.expr()?;
                self.need_sign("]")?;
                of = Expr::Member(Box::new(of), Box::new(index));
            } else {
                return Ok(of);
            }
        }
        Err(invalid("a path is too long"))
    }
}

fn negative(number: &serde_json::Number) -> Value {
    match number.as_i64().and_then(i64::checked_neg) {
        Some(whole) if whole != 0 => whole.into(),
        _ => number.as_f64().and_then(|value| number_of(-value)).unwrap_or_default(),
    }
}
