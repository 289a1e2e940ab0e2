//! What imports what: the paths of a library, followed to the files that define what they name.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One name that a file uses and another one defines.
pub struct Import {
    pub from: String,
    pub to: String,
    pub name: String,
}

pub struct Library {
    /// Paths in `src`, of what is not for tests alone.
    pub files: BTreeSet<String>,
    pub imports: Vec<Import>,
}

/// A module with a file of its own, by its path in the crate.
struct Module {
    file: String,
    /// Names that `use` brings in here, with the path of each.
    brought: BTreeMap<String, Vec<String>>,
    /// Names of other crates that `use` brings in here.
    foreign: BTreeSet<String>,
    /// Names that are brought in for others to see.
    shown: BTreeSet<String>,
    /// Modules in files of their own below this one.
    children: BTreeSet<String>,
    /// Paths that stand in the code, from `crate` on or from a name that was brought in.
    paths: Vec<Vec<String>>,
    /// Words of the code, without those of `use`.
    words: BTreeSet<String>,
}

impl Library {
    /// Reads the library in this folder of the package.
    pub fn read(folder: &str) -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut modules = BTreeMap::new();
        read_module(&src, Vec::new(), "lib.rs".to_owned(), &mut modules);
        let mut imports = Vec::new();
        for (at, module) in &modules {
            let uses = module.brought.iter().filter(|(name, path)| {
                // What a module shows of its own children it need not use itself.
                let is_own = path.len() > at.len() && path[..at.len()] == at[..];
                !(module.shown.contains(*name) && is_own) || module.words.contains(*name)
            });
            let uses = uses.map(|(_, path)| path);
            for path in uses.chain(&module.paths) {
                if let Some((to, name)) = follow(&modules, path, 0) {
                    imports.push(Import { from: module.file.clone(), to: modules[&to].file.clone(), name });
                }
            }
        }
        Self { files: modules.into_values().map(|module| module.file).collect(), imports }
    }
}

/// The module that defines what `path` names, and the name. None if another crate does.
fn follow(modules: &BTreeMap<Vec<String>, Module>, path: &[String], depth: usize) -> Option<(Vec<String>, String)> {
    assert!(depth < 20, "{path:?} is brought in in a circle");
    let mut at = Vec::new();
    for (index, segment) in path.iter().enumerate() {
        let module = &modules[&at];
        if module.children.contains(segment) {
            at.push(segment.clone());
        } else if let Some(brought) = module.brought.get(segment).filter(|_| segment != "*") {
            let onward: Vec<String> = brought.iter().chain(&path[index + 1..]).cloned().collect();
            return follow(modules, &onward, depth + 1);
        } else {
            return (!module.foreign.contains(segment)).then(|| (at, segment.clone()));
        }
    }
    Some((at, "the module".to_owned()))
}

fn read_module(src: &Path, at: Vec<String>, file: String, modules: &mut BTreeMap<Vec<String>, Module>) {
    let text = std::fs::read_to_string(src.join(&file)).unwrap_or_else(|cause| panic!("{file}: {cause}"));
    let tokens: TokenStream = text.parse().unwrap_or_else(|cause| panic!("{file}: {cause}"));
    let mut found = Found::default();
    found.read(tokens, 0);
    // The name of a module is what its path begins with, or what a `use` has brought in.
    let absolute = |path: &[String], depth: usize| -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&at[..], rest].concat()),
            "super" => {
                // Modules within the file are no files of their own.
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let base = &at[..at.len() - ups.saturating_sub(depth)];
                Some([base, &path[ups..]].concat())
            }
            _ if found.children.contains(first) => Some([&at[..], path].concat()),
            _ => None,
        }
    };
    let mut brought = BTreeMap::new();
    let (mut shown, mut foreign) = (BTreeSet::new(), BTreeSet::new());
    for (name, path, depth, is_shown) in &found.uses {
        let Some(path) = absolute(path, *depth) else {
            foreign.insert(name.clone());
            continue;
        };
        if *is_shown {
            shown.insert(name.clone());
        }
        // One name may stand for two things, under different conditions: both count.
        let name = if brought.contains_key(name) { format!("{name} ") } else { name.clone() };
        brought.insert(name, path);
    }
    let paths: Vec<_> = found.paths.iter().filter_map(|(path, depth)| absolute(path, *depth)).collect();
    let folder = match file.as_str() {
        "lib.rs" => String::new(),
        _ => file.strip_suffix("mod.rs").map_or_else(|| file.replace(".rs", "/"), str::to_owned),
    };
    for child in &found.children {
        let own = format!("{folder}{child}.rs");
        let file = if src.join(&own).exists() { own } else { format!("{folder}{child}/mod.rs") };
        read_module(src, [&at[..], std::slice::from_ref(child)].concat(), file, modules);
    }
    let Found { children, words, .. } = found;
    modules.insert(at, Module { file, brought, foreign, shown, children, paths, words });
}

#[derive(Default)]
struct Found {
    children: BTreeSet<String>,
    /// Name, path, how many inline modules deep, whether others see it.
    uses: Vec<(String, Vec<String>, usize, bool)>,
    paths: Vec<(Vec<String>, usize)>,
    words: BTreeSet<String>,
}

pub fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(word)) => Some(word.to_string()),
        _ => None,
    }
}

pub fn is(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

pub fn is_group(token: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter)
}

/// True for `cfg(test)`, alone or as one of several conditions that must all hold.
pub fn is_for_tests(attribute: TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text.starts_with("cfg(test") || text.starts_with("cfg(all(test")
}

impl Found {
    fn read(&mut self, tokens: TokenStream, depth: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut is_shown = false;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    let inner = usize::from(is(tokens.get(at + 1), '!'));
                    let Some(TokenTree::Group(attribute)) = tokens.get(at + 1 + inner) else {
                        at += 1;
                        continue;
                    };
                    at += 2 + inner;
                    if inner == 0 && is_for_tests(attribute.stream()) {
                        at = behind_item(&tokens, at);
                    }
                }
                TokenTree::Ident(first) => match first.to_string().as_str() {
                    "pub" => {
                        is_shown = true;
                        at += 1;
                        if tokens.get(at).is_some_and(|token| is_group(token, Delimiter::Parenthesis)) {
                            at += 1;
                        }
                        continue;
                    }
                    // `use<..>` in a type says what it captures.
                    "use" if !is(tokens.get(at + 1), '<') => {
                        let end = (at..tokens.len()).find(|&end| is(tokens.get(end), ';')).unwrap_or(tokens.len());
                        self.read_use(&tokens[at + 1..end], &[], depth, is_shown);
                        at = end + 1;
                    }
                    "mod" if is(tokens.get(at + 2), ';') => {
                        self.children.extend(word(tokens.get(at + 1)));
                        at += 3;
                    }
                    "mod" => match tokens.get(at + 2) {
                        Some(TokenTree::Group(body)) => {
                            self.read(body.stream(), depth + 1);
                            at += 3;
                        }
                        _ => at += 1,
                    },
                    first => {
                        let mut path = vec![first.to_owned()];
                        at += 1;
                        while is(tokens.get(at), ':') && is(tokens.get(at + 1), ':') {
                            let Some(next) = word(tokens.get(at + 2)) else { break };
                            path.push(next);
                            at += 3;
                        }
                        self.words.insert(path[0].clone());
                        if path.len() > 1 {
                            self.paths.push((path, depth));
                        }
                    }
                },
                TokenTree::Group(group) => {
                    self.read(group.stream(), depth);
                    at += 1;
                }
                _ => at += 1,
            }
            is_shown = false;
        }
    }

    fn read_use(&mut self, tokens: &[TokenTree], before: &[String], depth: usize, is_shown: bool) {
        for part in tokens.split(|token| is(Some(token), ',')) {
            let mut path = before.to_vec();
            let mut name = None;
            let mut tokens = part.iter();
            while let Some(token) = tokens.next() {
                match token {
                    TokenTree::Ident(word) if *word == "as" => name = tokens.next().map(ToString::to_string),
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Group(group) => {
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        self.read_use(&inner, &path, depth, is_shown);
                        path.clear();
                    }
                    TokenTree::Punct(mark) if mark.as_char() == '*' => path.push("*".to_owned()),
                    _ => {}
                }
            }
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            if let Some(last) = path.last().cloned() {
                self.uses.push((name.unwrap_or(last), path, depth, is_shown));
            }
        }
    }
}

/// Where what comes next ends: an item with its attributes, a field, or a statement.
pub fn behind_item(tokens: &[TokenTree], mut at: usize) -> usize {
    const ITEMS: [&str; 13] = [
        "pub",
        "mod",
        "use",
        "fn",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "type",
        "trait",
        "unsafe",
        "macro_rules",
    ];
    while is(tokens.get(at), '#') {
        at += 2;
    }
    let is_item = word(tokens.get(at)).is_some_and(|word| ITEMS.contains(&word.as_str()));
    while let Some(token) = tokens.get(at) {
        at += 1;
        if is(Some(token), ';') || is_group(token, Delimiter::Brace) || (!is_item && is(Some(token), ',')) {
            break;
        }
    }
    at
}
