//! Cuts a text into chunks by a pattern; merges never cross a chunk.
//!
//! The patterns of GPT-4 and nanochat are scanned by hand (`scan`); any other goes to a regex engine.

use std::fmt;

use fancy_regex::Regex;

use crate::batch::{BATCH, Chunks};
use crate::scan::Scanner;

/// What GPT-4 splits by; used when the caller gives no pattern.
pub const GPT4_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
);

/// The patterns that `scan` knows: GPT-4's, with chunks of one, two (nanochat's) or three digits.
const SCANNED: [(&str, usize); 3] = [
    (
        concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,1}",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        1,
    ),
    (
        concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
        2,
    ),
    (GPT4_PATTERN, 3),
];

/// Why a text could not be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitError {
    /// The pattern is no regular expression.
    Pattern(String),
    /// The pattern gave up on a text: a million steps back.
    Text(String),
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(why) => write!(f, "the split pattern is not a valid regular expression: {why}"),
            Self::Text(why) => write!(f, "the split pattern failed on a text: {why}"),
        }
    }
}

impl std::error::Error for SplitError {}

/// A split pattern, ready for use. Clones are cheap and share no scratch memory, so each thread takes one.
#[derive(Debug, Clone)]
pub struct Splitter {
    pattern: String,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Scan(Box<Scanner>),
    Search(Regex),
}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Self, SplitError> {
        let known = SCANNED.iter().find(|(known, _)| *known == pattern);
        match known.and_then(|&(_, digits)| Scanner::new(digits)) {
            Some(scanner) => Ok(Self { pattern: pattern.to_owned(), how: How::Scan(Box::new(scanner)) }),
            None => Self::searching(pattern),
        }
    }

    /// A splitter that leaves even a known pattern to the regex engine.
    pub fn searching(pattern: &str) -> Result<Self, SplitError> {
        let regex = Regex::new(pattern).map_err(|e| SplitError::Pattern(e.to_string()))?;
        Ok(Self { pattern: pattern.to_owned(), how: How::Search(regex) })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Gives `visit` every chunk in order, many at a time. Text between two matches belongs to no chunk;
    /// the patterns that we use match everything.
    pub fn for_each_batch(&self, text: &str, mut visit: impl FnMut(Chunks<'_>)) -> Result<(), SplitError> {
        match &self.how {
            How::Scan(scanner) => scanner.for_each_batch(text, visit),
            How::Search(regex) => {
                let (mut start, mut ends) = (0, Vec::with_capacity(BATCH));
                for found in regex.find_iter(text) {
                    let found = found.map_err(|e| SplitError::Text(e.to_string()))?;
                    let gap = found.start() != ends.last().copied().unwrap_or(start);
                    if gap || ends.len() == BATCH {
                        visit(Chunks { start, ends: &ends });
                        ends.clear();
                        start = found.start();
                    }
                    if found.start() < found.end() {
                        ends.push(found.end());
                    }
                }
                visit(Chunks { start, ends: &ends });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks_by<'t>(splitter: &Splitter, text: &'t str) -> Vec<&'t str> {
        let mut found = Vec::new();
        splitter
            .for_each_batch(text, |chunks| found.extend(chunks.spans().map(|(start, end)| &text[start..end])))
            .unwrap();
        found
    }

    fn chunks<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        chunks_by(&Splitter::new(pattern).unwrap(), text)
    }

    /// xorshift: the same numbers on every machine.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as usize
    }

    #[test]
    fn known_patterns_are_scanned_and_others_searched() {
        for (pattern, _) in SCANNED {
            assert!(matches!(Splitter::new(pattern).unwrap().how, How::Scan(_)));
        }
        assert!(matches!(Splitter::new(r"\w+").unwrap().how, How::Search(_)));
    }

    #[test]
    fn scanning_equals_searching_on_texts_of_every_class() {
        const PIECES: [&str; 56] = [
            "a",
            "b",
            "s",
            "S",
            "ſ",
            "t",
            "T",
            "d",
            "M",
            "l",
            "L",
            "ll",
            "LL",
            "v",
            "V",
            "e",
            "E",
            "re",
            "Re",
            "K",
            "'",
            "'",
            "'",
            "’",
            " ",
            " ",
            " ",
            "  ",
            "\t",
            "\r",
            "\n",
            "\r\n",
            "\u{b}",
            "\u{c}",
            "\u{1c}",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{3000}",
            "\u{200b}",
            "0",
            "9",
            "42",
            "٣",
            "½",
            "Ⅷ",
            "²",
            "é",
            "日",
            "𝒳",
            "🙂",
            "\u{301}",
            "_",
            ".",
            "word",
            "longerword",
        ];
        let mut state = 88_172_645_463_325_252;
        for (pattern, _) in SCANNED {
            let (scan, search) = (Splitter::new(pattern).unwrap(), Splitter::searching(pattern).unwrap());
            for _ in 0..10_000 {
                let text: String = (0..random(&mut state) % 14).map(|_| PIECES[random(&mut state) % 56]).collect();
                assert_eq!(chunks_by(&scan, &text), chunks_by(&search, &text), "{text:?}");
            }
        }
    }

    #[test]
    fn scanning_equals_searching_around_every_character() {
        let (scan, search) = (Splitter::new(GPT4_PATTERN).unwrap(), Splitter::searching(GPT4_PATTERN).unwrap());
        // Planes 4 to 13 are empty: a sample of them is enough.
        let empty = |&c: &char| ('\u{32400}'..'\u{E0000}').contains(&c) && !(c as u32).is_multiple_of(97);
        let characters: Vec<char> = ('\0'..'\u{F0000}').filter(|c| !empty(c)).collect();
        for some in characters.chunks(4096) {
            let text: String = some.iter().flat_map(|&c| [c, 'a', c, '1', ' ', c, '.', '\n', c, c, '\'', c]).collect();
            assert_eq!(chunks_by(&scan, &text), chunks_by(&search, &text), "from {:?}", some[0]);
        }
    }

    #[test]
    fn splits_as_gpt4_does() {
        let text = "Hello world's 1234567 naïve\r\n\n  if (x){};\n\tTheY'LL end  ";
        let expected = [
            "Hello", " world", "'s", " ", "123", "456", "7", " naïve", "\r\n\n", " ", " if", " (", "x", "){};\n",
            "\tTheY", "'LL", " end", "  ",
        ];
        assert_eq!(chunks(GPT4_PATTERN, text), expected);
    }

    #[test]
    fn nothing_is_lost() {
        for text in ["", " ", "\u{2028}\u{3000}x", "٣٤٥٦ ½ Ⅷ ß ſ", "'ſ 'S", "\u{1F468}\u{200D}\u{1F469} e\u{301}", "\0"]
        {
            assert_eq!(chunks(GPT4_PATTERN, text).concat(), text);
        }
    }

    #[test]
    fn skips_what_the_pattern_leaves_out_and_empty_matches() {
        assert_eq!(chunks(r"[a-z]*", "ab 12 c"), ["ab", "c"]);
    }

    #[test]
    fn names_a_bad_pattern() {
        assert!(matches!(Splitter::new("(["), Err(SplitError::Pattern(_))));
    }

    #[test]
    fn a_long_run_takes_one_pass() {
        for run in [" ", "\n", "\u{3000}", "a", "'", "7"] {
            let text = run.repeat(4_000_000 / run.len()) + "x";
            assert_eq!(chunks(GPT4_PATTERN, &text).concat(), text);
        }
    }

    #[test]
    fn a_runaway_pattern_is_an_error() {
        let splitter = Splitter::new(r"(?:(?=a)a|a)*b(?<=c)").unwrap();
        let outcome = splitter.for_each_batch(&"a".repeat(40_000), |_| {});
        assert!(matches!(outcome, Err(SplitError::Text(_))));
    }
}
