//! The places in ring's source that name sites. Each place is a mutant of its own, so that a fence or ordering that is
//! too weak in one place is found.
//!
//! The places are those that models execute: ring prints them, see `ring/src/ordering.rs`. A place is named by its file
//! and function, with a number if functions of that name name the site more than once. So the name survives most edits.

use crate::build::workspace;
use crate::run::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A use of a site: an access or a fence that has the site's ordering.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The site's name.
    pub site: String,
    /// `file.rs:function`, followed by `#2` for the second use in functions of that name.
    pub at: String,
    /// The present place in the source.
    pub place: Place,
    /// The models that execute the place.
    pub models: BTreeSet<String>,
}

impl Use {
    /// The name in the documentation.
    pub fn name(&self) -> String {
        format!("{}@{}", self.site, self.at)
    }

    /// The value of `SLIPRING_MUTANT` that weakens this use.
    pub fn variable(&self, weaker: &str) -> String {
        format!("{}@{}:{}=>{weaker}", self.site, self.place.file, self.place.line)
    }
}

/// Names the places that models executed. The numbers in the names follow the order of lines; the result is sorted by
/// site.
pub fn name(seen: &BTreeMap<Place, BTreeSet<String>>) -> Result<Vec<Use>, String> {
    let mut functions: BTreeMap<&str, Vec<Function>> = BTreeMap::new();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut uses = Vec::new();
    for (place, models) in seen {
        if !functions.contains_key(place.file.as_str()) {
            functions.insert(&place.file, functions_of(&place.file)?);
        }
        let around = functions[place.file.as_str()].iter().filter(|it| it.first <= place.line && place.line <= it.last);
        let function = around.min_by_key(|it| it.last - it.first);
        let function = function.ok_or_else(|| format!("{place:?} lies in no function"))?;
        let mut at = format!("{}:{}", place.file, function.name);
        // Functions of one name in a file are numbered as if they were one function.
        let before = count.entry(format!("{}@{at}", place.site)).or_default();
        *before += 1;
        if *before > 1 {
            at.push_str(&format!("#{before}"));
        }
        uses.push(Use { site: place.site.clone(), at, place: place.clone(), models: models.clone() });
    }
    uses.sort();
    Ok(uses)
}

/// A function, and its first and last line.
struct Function {
    name: String,
    first: usize,
    last: usize,
    /// True if the function is `track_caller`, so that its callers are the places.
    passes_on: bool,
    /// The last segments of the paths in its body.
    paths: BTreeSet<String>,
}

fn functions_of(file: &str) -> Result<Vec<Function>, String> {
    let path = workspace().join("ring/src").join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut found = Functions::default();
    found.visit_file(&syn::parse_file(&text).map_err(|error| format!("{file}: {error}"))?);
    Ok(found.0)
}

#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn note(&mut self, attributes: &[syn::Attribute], name: &syn::Ident, block: &syn::Block) {
        let said = |it: &syn::Attribute| quote::ToTokens::to_token_stream(it).to_string();
        let passes_on = attributes.iter().map(said).any(|it| it.contains("track_caller"));
        let (first, last) = (name.span().start().line, block.span().end().line);
        let mut paths = Paths::default();
        paths.visit_block(block);
        self.0.push(Function { name: name.to_string(), first, last, passes_on, paths: paths.0 });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.attrs, &function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.attrs, &function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

#[derive(Default)]
struct Paths(BTreeSet<String>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        self.0.extend(path.path.segments.last().map(|segment| segment.ident.to_string()));
    }

    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

/// A source file of ring with its functions, parsed once.
pub struct SourceFile {
    name: String,
    functions: Vec<Function>,
}

impl SourceFile {
    /// Reads a file of `ring/src`.
    pub fn read(name: &str) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), functions: functions_of(name)? })
    }

    /// The functions that name `site`, as `file.rs:function`, each with true if its callers are the places instead.
    pub fn functions_that_name(&self, site: &str) -> impl Iterator<Item = (String, bool)> {
        let functions = self.functions.iter().filter(move |function| function.paths.contains(site));
        functions.map(|function| (format!("{}:{}", self.name, function.name), function.passes_on))
    }
}
