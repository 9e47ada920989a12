//! Cuts a text into chunks by a pattern; merges never cross a chunk.

use std::fmt;

use fancy_regex::Regex;

/// What GPT-4 splits by; used when the caller gives no pattern.
pub const GPT4_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
);

/// Why a text could not be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitError {
    /// The pattern is no regular expression.
    Pattern(String),
    /// The pattern gave up on a text: a million steps back, as in a run of a million spaces.
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

/// A compiled split pattern. Clones are cheap and share no scratch memory, so each thread takes one.
#[derive(Debug, Clone)]
pub struct Splitter {
    regex: Regex,
}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Self, SplitError> {
        Regex::new(pattern).map(|regex| Self { regex }).map_err(|e| SplitError::Pattern(e.to_string()))
    }

    pub fn pattern(&self) -> &str {
        self.regex.as_str()
    }

    /// Calls `visit` with every chunk in order. Text between two matches belongs to no chunk; the patterns that we
    /// use match everything.
    pub fn for_each_chunk<'t>(&self, text: &'t str, mut visit: impl FnMut(&'t str)) -> Result<(), SplitError> {
        for found in self.regex.find_iter(text) {
            let chunk = found.map_err(|e| SplitError::Text(e.to_string()))?.as_str();
            if !chunk.is_empty() {
                visit(chunk);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        let mut found = Vec::new();
        Splitter::new(pattern).unwrap().for_each_chunk(text, |c| found.push(c)).unwrap();
        found
    }

    #[test]
    fn splits_as_gpt4_does() {
        let text = "I'll pay $12345,\n  ok?";
        let expected = ["I", "'ll", " pay", " $", "123", "45", ",\n", " ", " ok", "?"];
        assert_eq!(chunks(GPT4_PATTERN, text), expected);
    }

    #[test]
    fn the_default_pattern_covers_every_text() {
        for text in ["", " ", "\r\n\t\u{3000}x", "٣४７", "e\u{301}'S 'ſ", "\u{0}\u{10FFFF}\u{FFFD}", "日本語。"]
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
    fn a_long_run_of_spaces_is_split_or_an_error() {
        assert_eq!(chunks(GPT4_PATTERN, &format!("{}x", " ".repeat(400_000))).len(), 2);
        let outcome = Splitter::new(GPT4_PATTERN).unwrap().for_each_chunk(&" ".repeat(4_000_000), |_| {});
        assert!(matches!(outcome, Ok(()) | Err(SplitError::Text(_))));
    }

    #[test]
    fn a_runaway_pattern_is_an_error() {
        let splitter = Splitter::new(r"(?:(?=a)a|a)*b(?<=c)").unwrap();
        let outcome = splitter.for_each_chunk(&"a".repeat(40_000), |_| {});
        assert!(matches!(outcome, Err(SplitError::Text(_))));
    }
}
