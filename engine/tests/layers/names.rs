//! The types that a library's modules define, by their names.

use crate::imports::{behind_item, is, is_for_tests, is_group, word};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The names of the types, traits and aliases that a file's text defines, without those inside of functions and those of tests.
pub fn defined(text: &str) -> Vec<String> {
    let tokens: TokenStream = text.parse().unwrap_or_else(|cause| panic!("{cause}: {text}"));
    let mut names = Vec::new();
    read(tokens, &mut names);
    names
}

fn read(tokens: TokenStream, names: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is(tokens.get(at), '#') {
            let inner = usize::from(is(tokens.get(at + 1), '!'));
            let Some(TokenTree::Group(attribute)) = tokens.get(at + 1 + inner) else { break };
            at += 2 + inner;
            if inner == 0 && is_for_tests(attribute.stream()) {
                at = behind_item(&tokens, at);
            }
            continue;
        }
        match word(tokens.get(at)).as_deref() {
            Some("mod") => {
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2).filter(|body| is_group(body, Delimiter::Brace))
                {
                    read(body.stream(), names);
                }
                at = behind_item(&tokens, at);
            }
            Some("struct" | "enum" | "union" | "trait" | "type") => {
                names.extend(word(tokens.get(at + 1)));
                at = behind_item(&tokens, at);
            }
            Some("fn" | "impl" | "const" | "static" | "use" | "macro_rules") => at = behind_item(&tokens, at),
            _ => at += 1,
        }
    }
}
