//! What a template may say, and which secrets it names.

use std::collections::BTreeMap;

use minijinja::machinery::ast::{CallArg, Expr, Filter, Stmt};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::value::ValueKind;

use super::TemplateError;
use super::filters::FILTERS;
use super::render::syntax;
use crate::TargetName;

/// How the secrets are called.
const SECRETS: &str = "secrets";

/// The most tokens between `{{` and `}}`, or `{%` and `%}`. The parser calls itself for some of them
/// without a limit of its own, and would end the process.
const TOKENS: usize = 128;

/// How deep statements may stand in each other, for the same reason.
const DEPTH: usize = 16;

/// The targets that a text names and the line of each, if all of it is allowed.
pub(super) fn check(text: &str) -> Result<BTreeMap<TargetName, usize>, TemplateError> {
    bound(text)?;
    let tree = parse(text, "template", syntax()).map_err(|error| malformed(&error))?;
    let mut inputs = Inputs::default();
    inputs.statement(&tree)?;
    Ok(inputs.0)
}

fn at(line: impl Into<usize>, problem: impl Into<String>) -> TemplateError {
    TemplateError::At { line: line.into(), problem: problem.into() }
}

/// The parser quotes the template, which may hold anything.
fn malformed(error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().unwrap_or("this is no template");
    let problem: String = detail.chars().take(200).flat_map(char::escape_debug).collect();
    at(error.line().unwrap_or(1), problem)
}

/// Refuses what would take the parser too deep.
fn bound(text: &str) -> Result<(), TemplateError> {
    let (mut tokens, mut opening) = (0, false);
    // For each open statement, how deep it goes: each `elif` goes deeper.
    let mut depths: Vec<usize> = Vec::new();
    for token in tokenize(text, false, syntax()) {
        let (token, span) = token.map_err(|error| malformed(&error))?;
        match token {
            Token::VariableStart | Token::BlockStart => tokens = 0,
            _ => tokens += 1,
        }
        if tokens > TOKENS {
            return Err(at(span.start_line, "too much stands between two braces"));
        }
        if opening && let Token::Ident(keyword) = token {
            match keyword {
                "if" | "for" | "with" => depths.push(1),
                "elif" => depths.last_mut().into_iter().for_each(|depth| *depth += 1),
                _ if keyword.starts_with("end") => drop(depths.pop()),
                _ => {}
            }
            if depths.iter().sum::<usize>() > DEPTH {
                return Err(at(span.start_line, "statements stand too deep in each other"));
            }
        }
        opening = matches!(token, Token::BlockStart);
    }
    Ok(())
}

/// What has been named so far, and in which line first.
#[derive(Default)]
struct Inputs(BTreeMap<TargetName, usize>);

impl Inputs {
    fn statements(&mut self, statements: &[Stmt<'_>]) -> Result<(), TemplateError> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), TemplateError> {
        let (line, name) = match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(_) => return Ok(()),
            Stmt::EmitExpr(output) => return self.output(&output.expr),
            Stmt::ForLoop(each) if !each.recursive => {
                plain(&each.target)?;
                plain(&each.iter)?;
                each.filter_expr.as_ref().map_or(Ok(()), plain)?;
                self.statements(&each.body)?;
                return self.statements(&each.else_body);
            }
            Stmt::IfCond(condition) => {
                plain(&condition.expr)?;
                self.statements(&condition.true_body)?;
                return self.statements(&condition.false_body);
            }
            Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    plain(target)?;
                    plain(value)?;
                }
                return self.statements(&with.body);
            }
            Stmt::Set(set) => {
                plain(&set.target)?;
                return plain(&set.expr);
            }
            // What is between these would be kept in memory that nobody wipes.
            Stmt::SetBlock(block) => (block.span().start_line, "a set block"),
            Stmt::FilterBlock(block) => (block.span().start_line, "a filter block"),
            Stmt::ForLoop(each) => (each.span().start_line, "a recursive loop"),
            Stmt::AutoEscape(block) => (block.span().start_line, "autoescape"),
            Stmt::Do(call) => (call.span().start_line, "do"),
        };
        Err(at(line, format!("{name} is not possible in a template")))
    }

    /// What is put out: a secret or something plain, through filters.
    fn output(&mut self, expression: &Expr<'_>) -> Result<(), TemplateError> {
        match expression {
            Expr::Filter(filter) => {
                known(filter, expression)?;
                for argument in &filter.args {
                    plain(argument_of(argument))?;
                }
                match &filter.expr {
                    Some(of) => self.output(of),
                    None => Ok(()),
                }
            }
            _ => match secret(expression)? {
                Some(name) => {
                    self.0.entry(name).or_insert(line(expression));
                    Ok(())
                }
                None => plain(expression),
            },
        }
    }
}

/// The name in `secrets.name` and in `secrets["name"]`.
fn secret(expression: &Expr<'_>) -> Result<Option<TargetName>, TemplateError> {
    let is_secrets = |of: &Expr<'_>| matches!(of, Expr::Var(variable) if variable.id == SECRETS);
    let name = match expression {
        Expr::GetAttr(attribute) if is_secrets(&attribute.expr) => attribute.name.to_owned(),
        Expr::GetItem(item) if is_secrets(&item.expr) => match &item.subscript_expr {
            Expr::Const(name) if name.value.kind() == ValueKind::String => name.value.to_string(),
            _ => return Err(at(line(expression), "the name in secrets[...] must be a text in quotes")),
        },
        _ => return Ok(None),
    };
    let name = TargetName::try_from(name).map_err(|error| at(line(expression), error.to_string()))?;
    Ok(Some(name))
}

fn known(filter: &Filter<'_>, expression: &Expr<'_>) -> Result<(), TemplateError> {
    if FILTERS.contains(&filter.name) {
        return Ok(());
    }
    let name: String = filter.name.chars().take(100).collect();
    Err(at(line(expression), format!("there is no filter {name}; there are {}", FILTERS.join(", "))))
}

/// Refuses what touches a secret, and what could touch anything else.
fn plain(expression: &Expr<'_>) -> Result<(), TemplateError> {
    let all = |expressions: &[Expr<'_>]| expressions.iter().try_for_each(plain);
    let optional = |expression: &Option<Expr<'_>>| expression.as_ref().map_or(Ok(()), plain);
    let problem = match expression {
        Expr::Var(variable) if variable.id == SECRETS => {
            "a secret can be put out and filtered and nothing else, as in {{ secrets.name | filter }} \
             or {{ secrets[\"a-name\"] }}"
        }
        Expr::Filter(_) => "filters are for what is put out",
        Expr::Call(_) => "there are no functions",
        Expr::Var(_) | Expr::Const(_) => return Ok(()),
        Expr::Slice(slice) => {
            plain(&slice.expr)?;
            optional(&slice.start)?;
            optional(&slice.stop)?;
            return optional(&slice.step);
        }
        Expr::UnaryOp(operation) => return plain(&operation.expr),
        Expr::BinOp(operation) => {
            plain(&operation.left)?;
            return plain(&operation.right);
        }
        Expr::Compare(compare) => {
            plain(&compare.expr)?;
            return compare.ops.iter().try_for_each(|operand| plain(&operand.expr));
        }
        Expr::IfExpr(condition) => {
            plain(&condition.test_expr)?;
            plain(&condition.true_expr)?;
            return optional(&condition.false_expr);
        }
        Expr::Test(test) => {
            plain(&test.expr)?;
            return test.args.iter().try_for_each(|argument| plain(argument_of(argument)));
        }
        Expr::GetAttr(attribute) => return plain(&attribute.expr),
        Expr::GetItem(item) => {
            plain(&item.expr)?;
            return plain(&item.subscript_expr);
        }
        Expr::List(list) => return all(&list.items),
        Expr::Tuple(tuple) => return all(&tuple.items),
        Expr::Map(map) => {
            all(&map.keys)?;
            return all(&map.values);
        }
    };
    Err(at(line(expression), problem))
}

fn line(expression: &Expr<'_>) -> usize {
    expression.span().start_line.into()
}

fn argument_of<'a, 'b>(argument: &'a CallArg<'b>) -> &'a Expr<'b> {
    match argument {
        CallArg::Pos(expression)
        | CallArg::Kwarg(_, expression)
        | CallArg::PosSplat(expression)
        | CallArg::KwargSplat(expression) => expression,
    }
}
