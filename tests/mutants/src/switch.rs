//! Writes mutants into a source file, each behind a switch: all of them are compiled once, and a run chooses one.
//!
//! Invariant: with no switch on, the file does what it did. What does not fit behind a switch (a constant, what does not compile there) is left
//! out and named, never counted. Not known here: what a mutant means.

use std::ops::Range;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::list::Mutant;

/// A place that mutants change.
#[derive(Clone, Debug)]
struct Place {
    /// Where cargo-mutants says it is.
    key: usize,
    at: Range<usize>,
    kind: Kind,
    choices: Vec<(usize, String)>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A function's body, from its first statement.
    Body,
    Binary {
        left: Range<usize>,
        right: Range<usize>,
    },
    Unary {
        inner: Range<usize>,
    },
    Guard,
    /// The end of the pattern of a match arm without a guard.
    Arm,
    /// The value of a field of a struct that takes the rest from another; its name where only that stands there, and what it
    /// would have taken.
    Field {
        named: String,
        otherwise: String,
    },
}

/// What came of writing mutants into a file.
#[derive(Debug)]
pub(crate) struct Switched {
    pub(crate) text: String,
    /// Those that have a switch now.
    pub(crate) mutants: Vec<usize>,
}

/// Puts `mutants` (with their numbers) of one file behind switches.
pub(crate) fn switch(source: &str, mutants: &[(usize, &Mutant)]) -> syn::Result<Switched> {
    let mut places = Places { source, found: Vec::new(), constants: 0 };
    places.visit_file(&syn::parse_file(source)?);
    let mut places = places.found;
    let lines: Vec<usize> = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut switched = Vec::new();
    for (number, mutant) in mutants {
        let line = lines.get(mutant.span.start.line.saturating_sub(1)).copied().unwrap_or(source.len());
        let before = source[line..].chars().take(mutant.span.start.column.saturating_sub(1));
        let key = line + before.map(char::len_utf8).sum::<usize>();
        // One place cannot return two types.
        let is_opaque = mutant.place().contains(" -> impl ");
        let is_it = |place: &&mut Place| place.key == key && fits(&place.kind, &mutant.genre) && !is_opaque;
        if let Some(place) = places.iter_mut().find(is_it) {
            place.choices.push((*number, mutant.replacement.clone()));
            switched.push(*number);
        }
    }
    places.retain(|place| !place.choices.is_empty());
    // What holds others comes before them.
    let is_inner = |place: &Place| !matches!(place.kind, Kind::Body);
    places.sort_by_key(|place| (place.at.start, is_inner(place), std::cmp::Reverse(place.at.end)));
    let text = render(source, &places, 0..source.len());
    // A switch is looked up, which a constant function cannot do.
    Ok(Switched { text: text.replace("const fn ", "fn "), mutants: switched })
}

fn fits(kind: &Kind, genre: &str) -> bool {
    match kind {
        Kind::Body => genre == "FnValue",
        Kind::Binary { .. } => genre == "BinaryOperator",
        Kind::Unary { .. } => genre == "UnaryOperator",
        Kind::Guard => genre == "MatchArmGuard" || genre == "MatchArm",
        Kind::Arm => genre == "MatchArm",
        Kind::Field { .. } => genre == "StructField",
    }
}

struct Places<'a> {
    source: &'a str,
    found: Vec<Place>,
    /// How many constants and types the place stands in.
    constants: usize,
}

impl Places<'_> {
    fn add(&mut self, key: usize, at: Range<usize>, kind: Kind) {
        if self.constants == 0 {
            self.found.push(Place { key, at, kind, choices: Vec::new() });
        }
    }

    /// Goes through what is looked at when it is compiled, where no switch can be asked.
    fn constant(&mut self, within: impl FnOnce(&mut Self)) {
        self.constants += 1;
        within(self);
        self.constants -= 1;
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_block(&mut self, block: &'ast syn::Block) {
        if let Some(first) = block.stmts.first() {
            let start = first.span().byte_range().start;
            self.add(start, start..start, Kind::Body);
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, expression: &'ast syn::ExprBinary) {
        let (left, right) = (expression.left.span().byte_range(), expression.right.span().byte_range());
        if !has_let(&expression.left) && !has_let(&expression.right) {
            let key = expression.op.span().byte_range().start;
            self.add(key, expression.span().byte_range(), Kind::Binary { left, right });
        }
        visit::visit_expr_binary(self, expression);
    }

    fn visit_expr_unary(&mut self, expression: &'ast syn::ExprUnary) {
        let at = expression.span().byte_range();
        self.add(at.start, at, Kind::Unary { inner: expression.expr.span().byte_range() });
        visit::visit_expr_unary(self, expression);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let key = arm.span().byte_range().start;
        match &arm.guard {
            Some((_, guard)) if !has_let(guard) => {
                let at = guard.span().byte_range();
                self.add(at.start, at.clone(), Kind::Guard);
                self.add(key, at, Kind::Guard);
            }
            Some(_) => {}
            None => {
                let end = arm.pat.span().byte_range().end;
                self.add(key, end..end, Kind::Arm);
            }
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expression: &'ast syn::ExprStruct) {
        if let Some(rest) = &expression.rest {
            for field in &expression.fields {
                let syn::Member::Named(name) = &field.member else { continue };
                let otherwise = format!("({}).{name}.clone()", &self.source[rest.span().byte_range()]);
                let at = field.expr.span().byte_range();
                let named = if field.colon_token.is_some() { String::new() } else { format!("{name}: ") };
                self.add(field.span().byte_range().start, at, Kind::Field { named, otherwise });
            }
        }
        visit::visit_expr_struct(self, expression);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|places| visit::visit_item_const(places, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|places| visit::visit_impl_item_const(places, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|places| visit::visit_item_static(places, item));
    }

    fn visit_type(&mut self, item: &'ast syn::Type) {
        self.constant(|places| visit::visit_type(places, item));
    }

    fn visit_expr_repeat(&mut self, expression: &'ast syn::ExprRepeat) {
        self.visit_expr(&expression.expr);
    }
}

fn has_let(expression: &syn::Expr) -> bool {
    struct Lets(bool);
    impl Visit<'_> for Lets {
        fn visit_expr_let(&mut self, _: &syn::ExprLet) {
            self.0 = true;
        }
        // What a closure or a block binds stays within it.
        fn visit_expr_closure(&mut self, _: &syn::ExprClosure) {}
        fn visit_block(&mut self, _: &syn::Block) {}
        fn visit_expr_macro(&mut self, _: &syn::ExprMacro) {}
    }
    let mut lets = Lets(false);
    lets.visit_expr(expression);
    lets.0
}

/// The source within `at`, with a choice at each of `places` that lies there.
fn render(source: &str, places: &[Place], at: Range<usize>) -> String {
    let mut text = String::new();
    let mut done = at.start;
    for (index, place) in places.iter().enumerate() {
        if place.at.start < done || place.at.end > at.end {
            continue;
        }
        let inside = &places[index + 1..];
        text.push_str(&source[done..place.at.start]);
        done = place.at.end;
        let chosen = |what: &dyn Fn(&str) -> String| -> String {
            let choice = |(number, replacement): &(usize, String)| {
                format!("\nif crate::mutant_is({number}) {{ {} }} else\n", what(replacement))
            };
            place.choices.iter().map(choice).collect()
        };
        let piece = match &place.kind {
            Kind::Body => {
                let choice = |(number, value): &(usize, String)| {
                    format!("\nif crate::mutant_is({number}) {{ return {value}; }}\n")
                };
                place.choices.iter().map(choice).collect()
            }
            Kind::Binary { left, right } => {
                let (one, other) = (&source[left.clone()], &source[right.clone()]);
                let (before, after) = (render(source, inside, left.clone()), render(source, inside, right.clone()));
                let choices = chosen(&|operator| format!("{one} {operator} {other}"));
                format!("({choices} {{ {before}{}{after} }})", &source[left.end..right.start])
            }
            Kind::Unary { inner } => {
                let choices = chosen(&|_| source[inner.clone()].to_owned());
                let operator = &source[place.at.start..inner.start];
                format!("({choices} {{ {operator}{} }})", render(source, inside, inner.clone()))
            }
            Kind::Guard => {
                let never = |replacement: &str| if replacement.is_empty() { "false" } else { replacement }.to_owned();
                format!("({} {{ {} }})", chosen(&never), render(source, inside, place.at.clone()))
            }
            Kind::Arm => {
                let numbers = place.choices.iter().map(|(number, _)| format!("!crate::mutant_is({number})"));
                format!(" if {}", numbers.collect::<Vec<_>>().join(" && "))
            }
            Kind::Field { named, otherwise } => {
                let choices = chosen(&|_| otherwise.clone());
                format!("{named}({choices} {{ {} }})", render(source, inside, place.at.clone()))
            }
        };
        text.push_str(&piece);
    }
    text + &source[done..at.end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Mutant;

    const SOURCE: &str = "\
const LIMIT: u32 = 3 * 4;
fn add(a: u32, b: u32) -> u32 {
    if !(a > b) && a != 7 { a + b } else { match a { 1 if b > 2 => 1, 2 => 2, _ => LIMIT } }
}
fn of(base: Pair) -> Pair {
    Pair { left: 1, ..base }
}
";

    fn mutant(genre: &str, line: usize, column: usize, replacement: &str) -> Mutant {
        let span = serde_json::json!({ "start": { "line": line, "column": column } });
        let value = serde_json::json!({
            "name": "it", "file": "it.rs", "genre": genre, "replacement": replacement, "span": span
        });
        serde_json::from_value(value).unwrap()
    }

    /// The source with a mutant behind a switch, on one line.
    fn switched(mutant: &Mutant) -> Option<String> {
        let done = switch(SOURCE, &[(5, mutant)]).unwrap();
        syn::parse_file(&done.text).unwrap();
        (done.mutants == [5]).then(|| done.text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn without_mutants_a_file_stays_as_it_is() {
        assert_eq!(switch(SOURCE, &[]).unwrap().text, SOURCE);
    }

    #[test]
    fn each_kind_of_mutant_stands_beside_what_it_changes() {
        let cases = [
            (mutant("BinaryOperator", 3, 12, "<"), "(a > b)", "((if crate::mutant_is(5) { a < b } else { a > b }))"),
            (
                mutant("BinaryOperator", 3, 17, "||"),
                "",
                "if crate::mutant_is(5) { !(a > b) || a != 7 } else { !(a > b) && a != 7 }",
            ),
            (mutant("UnaryOperator", 3, 8, ""), "", "(if crate::mutant_is(5) { (a > b) } else { !(a > b) })"),
            (mutant("FnValue", 3, 5, "0"), "", "{ if crate::mutant_is(5) { return 0; } if !(a > b)"),
            (mutant("MatchArmGuard", 3, 59, "true"), "", "1 if (if crate::mutant_is(5) { true } else { b > 2 })"),
            (mutant("MatchArm", 3, 54, ""), "", "1 if (if crate::mutant_is(5) { false } else { b > 2 })"),
            (mutant("MatchArm", 3, 71, ""), "", "2 if !crate::mutant_is(5) => 2"),
            (mutant("StructField", 6, 12, ""), "", "left: (if crate::mutant_is(5) { (base).left.clone() } else { 1 })"),
        ];
        for (mutant, gone, found) in cases {
            let text = switched(&mutant).unwrap_or_default();
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert!(squeezed(&text).contains(&squeezed(found)), "{found}\n{text}");
            assert!(gone.is_empty() || !squeezed(&text).contains(&squeezed(&format!("!{gone}"))), "{text}");
        }
    }

    #[test]
    fn what_no_switch_can_express_is_left_out() {
        assert_eq!(switched(&mutant("BinaryOperator", 1, 22, "+")), None, "a constant");
        assert_eq!(switched(&mutant("BinaryOperator", 3, 1, "+")), None, "no operator stands there");
        assert_eq!(switched(&mutant("FnValue", 3, 12, "0")), None, "nor a body");
    }
}
