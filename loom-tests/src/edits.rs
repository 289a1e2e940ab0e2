//! Random edits of ring's source: the orders, fences, comparisons, numbers and calls that could be changed, and a seed
//! that draws some of them.

use crate::build::workspace;
use crate::sites::{Catalogue, ring_files};
use proc_macro2::{TokenStream, TokenTree};
use std::fs;
use std::ops::Range;
use std::path::Path;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprBinary, ExprCall, ExprLit, ExprMethodCall, ExprPath, Lit, Meta, Stmt, Token};

/// The kind of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The ordering of an access is relaxed.
    Order,
    /// A fence is removed.
    Fence,
    /// A comparison is off by one or negated.
    Comparison,
    /// A number, or the operand of a wrapping addition or subtraction, is one more or one less.
    OneMoreOrLess,
    /// A call whose result is unused is removed.
    DroppedCall,
}

const KINDS: [Kind; 5] = [Kind::Order, Kind::Fence, Kind::Comparison, Kind::OneMoreOrLess, Kind::DroppedCall];

/// A change of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The path of the file in ring's source folder.
    pub file: String,
    /// The innermost function that contains the place.
    pub function: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The kind of the edit.
    pub kind: Kind,
    at: Range<usize>,
    /// The present text.
    pub before: String,
    /// The text that replaces it.
    pub after: String,
}

/// Source of a function that returns true if the edit with this number is switched on.
const IS_ON: &str = "
#[doc(hidden)]
pub(crate) mod edited {
    pub(crate) fn is_on(number: u32) -> bool {
        static ON: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
        *ON.get_or_init(|| std::env::var(\"SLIPRING_EDIT\").ok()?.parse().ok()) == Some(number)
    }
}
";

/// Inserts all `edits` into a copy of ring's source folder. Each is conditional on its number, so that one build serves
/// all of them.
pub fn put_in(edits: &[Edit], source: &Path) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", source.display());
    let mut files: Vec<&str> = edits.iter().map(|edit| edit.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let text = fs::read_to_string(source.join(file)).map_err(wrong)?;
        let mut of_file: Vec<(usize, &Edit)> = edits.iter().enumerate().filter(|(_, edit)| edit.file == file).collect();
        // An edit that contains another comes first.
        of_file.sort_by_key(|(_, edit)| (edit.at.start, std::cmp::Reverse(edit.at.end)));
        fs::write(source.join(file), with(&text, 0..text.len(), &of_file)).map_err(wrong)?;
    }
    let library = source.join("lib.rs");
    let text = fs::read_to_string(&library).map_err(wrong)?;
    fs::write(library, text + IS_ON).map_err(wrong)
}

/// The text of a range with these edits inserted, which lie in the range and are in order.
fn with(text: &str, range: Range<usize>, edits: &[(usize, &Edit)]) -> String {
    let (mut whole, mut at, mut rest) = (String::new(), range.start, edits);
    while let Some(((number, edit), behind)) = rest.split_first() {
        let inside = behind.iter().take_while(|(_, other)| other.at.end <= edit.at.end).count();
        whole.push_str(&text[at..edit.at.start]);
        let before = with(text, edit.at.clone(), &behind[..inside]);
        let (after, end) = (&edit.after, if edit.kind == Kind::DroppedCall { "" } else { ")" });
        let begin = if end.is_empty() { "" } else { "(" };
        whole.push_str(&format!("{begin}if crate::edited::is_on({number}) {{ {after} }} else {{ {before} }}{end}"));
        (at, rest) = (edit.at.end, &behind[inside..]);
    }
    whole + &text[at..range.end]
}

/// The part of ring that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of ring.
    Ring,
    /// The code that ends a ring, with the parts of claims and commits that deal with the end.
    Close,
}

/// The functions of [`Part::Close`] by file. An empty list means all functions of the file.
const CLOSE: [(&str, &[&str]); 10] = [
    ("closing.rs", &[]),
    ("claim.rs", &[]),
    ("bell.rs", &["ring_and_look", "ring_slowly", "is_closed", "is_closed_slowly", "mark_closed"]),
    ("internal.rs", &["cut_event", "cut_except"]),
    ("producer.rs", &["is_cut", "claim_now", "withdraw", "give_up"]),
    ("single_producer.rs", &["unpublished", "claim", "publish", "abandon"]),
    ("multi_producer.rs", &["unpublished", "claim", "publish", "abandon", "stamp", "refresh"]),
    ("consumer.rs", &["begin", "begin_at_the_end", "pass_over", "over"]),
    ("event_look.rs", &["let_through", "last_look", "over", "look"]),
    ("worker.rs", &["past", "take", "take_at_the_end", "is_something", "is_over", "look", "bells"]),
];

impl Part {
    fn has(self, edit: &Edit) -> bool {
        let functions = CLOSE.iter().find(|(file, _)| *file == edit.file).map(|(_, functions)| functions);
        let in_close = functions.is_some_and(|of| of.is_empty() || of.contains(&edit.function.as_str()));
        self == Self::Ring || in_close
    }
}

/// Files without edits: faults and the atomics of thorough models are not part of production; errors, reports and texts
/// have no memory orderings.
const LEFT_OUT: [&str; 9] = [
    "fault.rs",
    "thorough.rs",
    "error.rs",
    "report.rs",
    "text.rs",
    "shared/error.rs",
    "shared/folder.rs",
    "shared/model.rs",
    "shared/participant.rs",
];

/// All possible edits of a part, ordered by file and line.
pub fn all(part: Part) -> Result<Vec<Edit>, String> {
    let folder = workspace().join("ring/src");
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    let files = ring_files()?;
    let sites = Catalogue::read()?.sites;
    let ordered: Vec<String> = sites.into_iter().filter(|it| !it.weaker.is_empty()).map(|it| it.name).collect();
    let mut edits = Vec::new();
    for file in files.iter().map(String::as_str).filter(|name| !LEFT_OUT.contains(name)) {
        let text = fs::read_to_string(folder.join(file)).map_err(wrong)?;
        edits.extend(of_file(file, &text, &ordered)?.into_iter().filter(|edit| part.has(edit)));
    }
    Ok(edits)
}

fn of_file(file: &str, text: &str, ordered: &[String]) -> Result<Vec<Edit>, String> {
    let parsed = syn::parse_file(text).map_err(|error| format!("{file}: {error}"))?;
    let mut finder = Finder { file, text, ordered, functions: Vec::new(), edits: Vec::new() };
    finder.visit_file(&parsed);
    Ok(finder.edits)
}

/// Draws edits with a seed: first the kind, then one of that kind. Each edit comes once.
pub fn draw(mut edits: Vec<Edit>, seed: u64) -> impl Iterator<Item = Edit> {
    let mut state = seed;
    // splitmix64, written out here so that a seed always draws the same edits.
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    std::iter::from_fn(move || {
        while !edits.is_empty() {
            let kind = KINDS[(next() % KINDS.len() as u64) as usize];
            let of_kind: Vec<usize> = (0..edits.len()).filter(|index| edits[*index].kind == kind).collect();
            if !of_kind.is_empty() {
                return Some(edits.remove(of_kind[(next() % of_kind.len() as u64) as usize]));
            }
        }
        None
    })
}

/// Walks over a file and collects its possible edits.
struct Finder<'f> {
    file: &'f str,
    text: &'f str,
    ordered: &'f [String],
    functions: Vec<String>,
    edits: Vec<Edit>,
}

impl Finder<'_> {
    fn note(&mut self, kind: Kind, of: &impl Spanned, after: impl FnOnce(&str) -> String) {
        let Some(function) = self.functions.last().cloned() else { return };
        let (at, line) = (of.span().byte_range(), of.span().start().line);
        let before = self.text[at.clone()].to_owned();
        let after = after(&before);
        self.edits.push(Edit { file: self.file.to_owned(), function, line, kind, at, before, after });
    }

    fn within<T>(&mut self, function: &syn::Ident, inner: T, visit: impl FnOnce(&mut Self, T)) {
        self.functions.push(function.to_string());
        visit(self, inner);
        self.functions.pop();
    }
}

fn name_of(path: &ExprPath) -> String {
    path.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn fence_of(call: &ExprCall) -> Option<&'static str> {
    let Expr::Path(path) = &*call.func else { return None };
    match name_of(path).as_str() {
        "light_at" => Some("()"),
        "heavy_at" => Some("Ok::<(), crate::fence::Refused>(())"),
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_in_production(quote::ToTokens::to_token_stream(item)) {
            visit::visit_item(self, item);
        }
    }

    // Compile-time values, types and patterns cannot depend on a condition at run time.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if is_in_production(quote::ToTokens::to_token_stream(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if function.sig.constness.is_none() {
            self.within(&function.sig.ident, function, visit::visit_item_fn);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.sig.constness.is_none() {
            self.within(&function.sig.ident, function, visit::visit_impl_item_fn);
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        for statement in &block.stmts {
            if !is_in_production(quote::ToTokens::to_token_stream(statement)) {
                continue;
            }
            if let Stmt::Expr(Expr::Call(_) | Expr::MethodCall(_), Some(_)) = statement {
                let fence = matches!(statement, Stmt::Expr(Expr::Call(call), _) if fence_of(call).is_some());
                let fence =
                    fence || matches!(statement, Stmt::Expr(Expr::MethodCall(call), _) if call.method == "fence");
                if !fence {
                    self.note(Kind::DroppedCall, statement, |_| String::new());
                }
            }
            self.visit_stmt(statement);
        }
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        let other = match binary.op {
            BinOp::Lt(_) => Some("<="),
            BinOp::Le(_) => Some("<"),
            BinOp::Gt(_) => Some(">="),
            BinOp::Ge(_) => Some(">"),
            BinOp::Eq(_) => Some("!="),
            BinOp::Ne(_) => Some("=="),
            _ => None,
        };
        if let Some(other) = other {
            let (left, right) = (binary.left.span().byte_range(), binary.right.span().byte_range());
            let (left, right) = (self.text[left].to_owned(), self.text[right].to_owned());
            self.note(Kind::Comparison, binary, |_| format!("{left} {other} {right}"));
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_lit(&mut self, literal: &'ast ExprLit) {
        if let Lit::Int(number) = &literal.lit
            && let Ok(value) = number.base10_parse::<u64>()
        {
            for other in [value.checked_add(1), value.checked_sub(1)].into_iter().flatten() {
                self.note(Kind::OneMoreOrLess, literal, |_| format!("{other}{}", number.suffix()));
            }
        }
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Some(nothing) = fence_of(call) {
            return self.note(Kind::Fence, call, |_| nothing.to_owned());
        }
        // The arguments of `fault` are evaluated only in models.
        if !matches!(&*call.func, Expr::Path(path) if name_of(path) == "fault") {
            visit::visit_expr_call(self, call);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "fence" && call.args.is_empty() {
            return self.note(Kind::Fence, call, |_| "()".to_owned());
        }
        let offset = call.method == "wrapping_add" || call.method == "wrapping_sub";
        if let (true, Some(operand)) = (offset, call.args.first().filter(|operand| !matches!(operand, Expr::Lit(_)))) {
            for one in ["wrapping_add(1)", "wrapping_sub(1)"] {
                self.note(Kind::OneMoreOrLess, operand, |operand| format!("({operand}).{one}"));
            }
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_path(&mut self, path: &'ast ExprPath) {
        if self.ordered.contains(&name_of(path)) {
            self.note(Kind::Order, path, |_| "crate::ordering::COUNT".to_owned());
        }
    }
}

/// True if an item or a statement is compiled in production, according to its leading `cfg`s on Linux on x86-64.
fn is_in_production(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter();
    while let (Some(TokenTree::Punct(hash)), Some(TokenTree::Group(attribute))) = (tokens.next(), tokens.next()) {
        if hash.as_char() != '#' {
            break;
        }
        let meta = syn::parse2::<Meta>(attribute.stream());
        if let Ok(Meta::List(list)) = meta
            && list.path.is_ident("cfg")
            && !list.parse_args::<Meta>().is_ok_and(|condition| holds(&condition))
        {
            return false;
        }
    }
    true
}

fn holds(condition: &Meta) -> bool {
    match condition {
        Meta::Path(name) => name.is_ident("unix"),
        Meta::NameValue(_) => {
            let said = quote::ToTokens::to_token_stream(condition).to_string();
            ["target_os = \"linux\"", "target_arch = \"x86_64\"", "target_pointer_width = \"64\""]
                .contains(&said.as_str())
        }
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("all") => parts.iter().all(holds),
                Some("any") => parts.iter().any(holds),
                Some("not") => !parts.iter().any(holds),
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
        fn f(a: u64) -> bool {
            #[cfg(loom)]
            model(1);
            light_at(&HOLD_FENCE);
            bell.ring();
            let b = at.wrapping_add(len).load(&GATE);
            if fault(Fault::X) { return a >= 2; }
            LIGHT.fence();
        }
        #[cfg(all(test, not(any(loom, shuttle))))]
        mod tests { fn g() { ring(3); } }
        ";

    #[test]
    fn each_kind_is_found_in_production_code_alone() {
        let edits = of_file("x.rs", SOURCE, &["GATE".to_owned(), "HOLD_FENCE".to_owned()]).unwrap();
        let found: Vec<_> = edits.iter().map(|edit| (edit.kind, edit.before.as_str(), edit.after.as_str())).collect();
        let expected = [
            (Kind::Fence, "light_at(&HOLD_FENCE)", "()"),
            (Kind::DroppedCall, "bell.ring();", ""),
            (Kind::OneMoreOrLess, "len", "(len).wrapping_add(1)"),
            (Kind::OneMoreOrLess, "len", "(len).wrapping_sub(1)"),
            (Kind::Order, "GATE", "crate::ordering::COUNT"),
            (Kind::Comparison, "a >= 2", "a > 2"),
            (Kind::OneMoreOrLess, "2", "3"),
            (Kind::OneMoreOrLess, "2", "1"),
            (Kind::Fence, "LIGHT.fence()", "()"),
        ];
        assert_eq!(found, expected);
        assert!(edits.iter().all(|edit| edit.function == "f" && edit.line > 1));
    }

    #[test]
    fn the_code_that_ends_a_ring_is_where_the_list_says() {
        for (file, functions) in CLOSE {
            let text = fs::read_to_string(workspace().join("ring/src").join(file)).unwrap();
            for function in functions {
                let is_there = ["(", "<"].iter().any(|next| text.contains(&format!("fn {function}{next}")));
                assert!(is_there, "{file} has no function {function}");
            }
        }
    }

    #[test]
    fn an_edit_may_lie_in_another() {
        let edits = of_file("x.rs", "fn f() { while a < 7 { g(); } }", &[]).unwrap();
        let numbered: Vec<(usize, &Edit)> = edits.iter().enumerate().filter(|(number, _)| *number != 2).collect();
        let text = with("fn f() { while a < 7 { g(); } }", 0..31, &numbered);
        let seven = "(if crate::edited::is_on(1) { 8 } else { 7 })";
        let compared = format!("(if crate::edited::is_on(0) {{ a <= 7 }} else {{ a < {seven} }})");
        let call = "if crate::edited::is_on(3) {  } else { g(); }";
        assert_eq!(text, format!("fn f() {{ while {compared} {{ {call} }} }}"));
    }

    #[test]
    fn a_seed_draws_the_same_edits_each_once() {
        let edits = of_file("x.rs", SOURCE, &["GATE".to_owned()]).unwrap();
        let drawn: Vec<Edit> = draw(edits.clone(), 7).collect();
        assert_eq!(drawn, draw(edits.clone(), 7).collect::<Vec<_>>());
        assert_eq!(drawn.len(), edits.len());
        assert!(edits.iter().all(|edit| drawn.contains(edit)));
    }
}
