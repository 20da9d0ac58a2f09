//! Finds which members of a document an expression uses: the others need not be parsed.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};

use crate::{
    change::{extended::escaped, key::KeyPaths, shape::LeftOut},
    history::predicate::partly::hides,
};

/// The members of a variable that an expression uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UsedMembers {
    /// These, by name.
    These(BTreeSet<String>),
    /// All of them.
    All,
}

impl UsedMembers {
    /// Returns the members of a variable that an expression uses.
    pub(super) fn of(variable: &str, expression: &IdedExpr) -> Self {
        let mut names = BTreeSet::new();
        if named(variable, expression, &mut names) { Self::These(names) } else { Self::All }
    }

    /// Whether a record of a part of a document may lack one of them, or a part of it.
    pub(super) fn any_left_out(&self, left_out: &LeftOut, keys: &KeyPaths, extended: bool) -> bool {
        let Self::These(names) = self else { return true };
        names.iter().any(|name| {
            let name = if extended { escaped(name) } else { name.as_str().into() };
            hides(left_out, keys.segments(), &[name.into_owned()])
        })
    }
}

/// Notes the members that are used by name; `false` when the variable is used in any other way.
fn named(variable: &str, at: &IdedExpr, names: &mut BTreeSet<String>) -> bool {
    let is_it = |at: &IdedExpr| matches!(&at.expr, Expr::Ident(name) if name == variable);
    let mut of_entry = |entry: &EntryExpr| match entry {
        EntryExpr::MapEntry(entry) => named(variable, &entry.key, names) && named(variable, &entry.value, names),
        EntryExpr::StructField(field) => named(variable, &field.value, names),
    };
    match &at.expr {
        Expr::Ident(name) => name != variable,
        Expr::Select(select) if is_it(&select.operand) => {
            names.insert(select.field.clone());
            true
        }
        Expr::Select(select) => named(variable, &select.operand, names),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            ("_[_]", [operand, index]) if is_it(operand) => match &index.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    names.insert(name.to_string());
                    true
                }
                _ => false,
            },
            (_, args) => {
                call.target.as_deref().is_none_or(|target| named(variable, target, names))
                    && args.iter().all(|arg| named(variable, arg, names))
            }
        },
        Expr::Comprehension(all) => {
            // A variable of its own may have the name.
            let own = [Some(&all.iter_var), all.iter_var2.as_ref(), Some(&all.accu_var)];
            !own.into_iter().flatten().any(|name| name == variable)
                && [&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result]
                    .into_iter()
                    .all(|part| named(variable, part, names))
        }
        Expr::List(list) => list.elements.iter().all(|element| named(variable, element, names)),
        Expr::Map(map) => map.entries.iter().all(|entry| of_entry(&entry.expr)),
        Expr::Struct(object) => object.entries.iter().all(|entry| of_entry(&entry.expr)),
        Expr::Literal(_) | Expr::Unspecified => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_by_name_is_known_and_everything_else_is_all() {
        let of = |text: &str| {
            let program = cel::Env::stdlib().compile(text).unwrap();
            match UsedMembers::of("doc", program.expression()) {
                UsedMembers::These(names) => names.into_iter().collect::<Vec<_>>().join(" "),
                UsedMembers::All => "*".to_owned(),
            }
        };
        for (expression, members) in [
            ("doc.price < 0", "price"),
            ("has(doc.a) && doc.a.b == previous.c && doc[\"d e\"] > 1", "a d e"),
            ("op == \"delete\"", ""),
            ("doc.tags.exists(t, t == doc.main)", "main tags"),
            ("[1, 2].exists(doc, doc > 1)", "*"),
            ("doc == null", "*"),
            ("doc[id] == 1", "*"),
            ("size(doc) > 3", "*"),
            ("doc.exists(name, name == \"a\")", "*"),
            ("{\"a\": doc.x}.a == [doc.y][0]", "x y"),
            ("doc.a.startsWith(doc.b) ? doc.c : doc.d", "a b c d"),
        ] {
            assert_eq!(of(expression), members, "{expression}");
        }
    }
}
