//! What kind of character each code point is, as the split patterns see it.
//!
//! The table is filled from the regex engine's own Unicode data when it is first used (under a millisecond), so the
//! hand-written scanner and the regex engine can never be of different Unicode versions.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// Neither white space nor a letter nor a number: `[^\s\p{L}\p{N}]`.
pub const OTHER: u8 = 0;
/// `\p{L}`
pub const LETTER: u8 = 1;
/// `\p{N}`
pub const NUMBER: u8 = 2;
/// `\s` without carriage return and line feed.
pub const SPACE: u8 = 3;
/// Carriage return or line feed.
pub const NEWLINE: u8 = 4;

const CODE_POINTS: usize = char::MAX as usize + 1;

/// The class of every code point, by its number; `None` if the regex engine has no Unicode data.
pub fn classes() -> Option<&'static [u8; CODE_POINTS]> {
    static TABLE: OnceLock<Option<Box<[u8; CODE_POINTS]>>> = OnceLock::new();
    TABLE.get_or_init(fill).as_deref()
}

fn fill() -> Option<Box<[u8; CODE_POINTS]>> {
    let mut table = vec![OTHER; CODE_POINTS];
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE), (r"[\r\n]", NEWLINE)] {
        let hir = regex_syntax::parse(pattern).ok()?;
        let HirKind::Class(Class::Unicode(set)) = hir.kind() else { return None };
        for range in set.ranges() {
            table.get_mut(range.start() as usize..=range.end() as usize)?.fill(class);
        }
    }
    table.into_boxed_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_each_class() {
        let table = classes().unwrap();
        let class = |c: char| table[c as usize];
        assert!("aZéß日ʰª".chars().all(|c| class(c) == LETTER));
        assert!("09٣½Ⅷ²".chars().all(|c| class(c) == NUMBER));
        assert!(" \t\u{b}\u{c}\u{85}\u{a0}\u{3000}".chars().all(|c| class(c) == SPACE));
        assert!("\r\n".chars().all(|c| class(c) == NEWLINE));
        assert!("'_\u{1c}\u{200b}\u{301}🙂\0\u{10ffff}".chars().all(|c| class(c) == OTHER));
    }
}
