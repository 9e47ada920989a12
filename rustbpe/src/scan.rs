//! The two split patterns that everybody uses, by hand, a chunk at a time: no regex engine, no step back. Nearly all of a
//! text is cut by `sweep`, by the same rules; what is here says them in full.
//!
//! ```text
//! '(?i:[sdmt]|ll|ve|re) | [^\r\n\p{L}\p{N}]?+\p{L}+ | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]++[\r\n]*
//!                       | \s*[\r\n] | \s+(?!\S) | \s+
//! ```
//!
//! Every character is of exactly one class of `classes`, and the first one or two of a chunk decide which alternative
//! takes it. A run of white space is the only place where the patterns look back: it ends behind its last line break;
//! without one it leaves its last character to the word behind it.

use crate::classes::{LETTER, NEWLINE, NUMBER, OTHER, SPACE, classes};

/// The class of a byte that begins a character of several bytes: look it up by its code point.
const LONG: u8 = 5;

#[derive(Debug, Clone)]
pub struct Scanner {
    /// By code point.
    classes: &'static [u8],
    /// By byte, `LONG` from 0x80 on.
    ascii: [u8; 256],
    /// Longest chunk of digits.
    pub(crate) digits: usize,
}

impl Scanner {
    pub fn new(digits: usize) -> Option<Self> {
        let classes = classes()?;
        let ascii = std::array::from_fn(|byte| if byte < 0x80 { classes[byte] } else { LONG });
        Some(Self { classes, ascii, digits })
    }

    /// Where the chunk that starts at `start` ends. `start` is the start of a character in `text`.
    #[inline(always)]
    pub fn chunk_end(&self, text: &str, start: usize) -> usize {
        let text = text.as_bytes();
        let (class, next) = self.class_at(text, start);
        match class {
            LETTER => self.letters(text, next),
            SPACE => match self.class_at(text, next) {
                (LETTER, after) => self.letters(text, after),
                (OTHER, after) if text[start] == b' ' => self.others(text, after),
                _ => self.white(text, start),
            },
            OTHER => {
                if text[start] == b'\''
                    && let Some(end) = contraction(text, next)
                {
                    return end;
                }
                match self.class_at(text, next) {
                    (LETTER, after) => self.letters(text, after),
                    _ => self.others(text, next),
                }
            }
            NUMBER => self.numbers(text, next),
            _ => self.white(text, start),
        }
    }

    /// Class of the character at `at`, and where the next one is. Behind the end: a class that is none.
    #[inline(always)]
    pub(crate) fn class_at(&self, text: &[u8], at: usize) -> (u8, usize) {
        match text.get(at) {
            None => (u8::MAX, at),
            Some(&byte) => match self.ascii[byte as usize] {
                LONG => self.long_class_at(text, at),
                class => (class, at + 1),
            },
        }
    }

    fn long_class_at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let byte = |i: usize| u32::from(text.get(at + i).copied().unwrap_or(0));
        let low = |i: usize| byte(i) & 0x3F;
        let (code, len) = match byte(0) {
            first @ ..0xE0 => ((first & 0x1F) << 6 | low(1), 2),
            first @ ..0xF0 => ((first & 0x0F) << 12 | low(1) << 6 | low(2), 3),
            first => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
        };
        (self.classes.get(code as usize).copied().unwrap_or(OTHER), at + len)
    }

    #[inline(always)]
    fn letters(&self, text: &[u8], mut at: usize) -> usize {
        while let (LETTER, next) = self.class_at(text, at) {
            at = next;
        }
        at
    }

    fn numbers(&self, text: &[u8], mut at: usize) -> usize {
        for _ in 1..self.digits {
            match self.class_at(text, at) {
                (NUMBER, next) => at = next,
                _ => break,
            }
        }
        at
    }

    #[inline(always)]
    fn others(&self, text: &[u8], mut at: usize) -> usize {
        while let (OTHER, next) = self.class_at(text, at) {
            at = next;
        }
        while let Some(b'\r' | b'\n') = text.get(at) {
            at += 1;
        }
        at
    }

    /// The run of white space from `start` on: up to its last line break, or all but its last character.
    fn white(&self, text: &[u8], start: usize) -> usize {
        let (mut at, mut last, mut behind_break) = (start, start, None);
        loop {
            match self.class_at(text, at) {
                (SPACE, next) => (last, at) = (at, next),
                (NEWLINE, next) => (behind_break, last, at) = (Some(next), at, next),
                _ => break,
            }
        }
        match behind_break {
            Some(end) => end,
            None if at == text.len() || last == start => at,
            None => last,
        }
    }
}

/// Where one of the endings of `'(?i:[sdmt]|ll|ve|re)` ends, if one starts at `at`. U+017F is a small s, too.
pub(crate) fn contraction(text: &[u8], at: usize) -> Option<usize> {
    let first = text.get(at)?;
    let second = text.get(at + 1).copied().unwrap_or(0);
    match (first | 0x20, second | 0x20) {
        (b's' | b'd' | b'm' | b't', _) if first.is_ascii_alphabetic() => Some(at + 1),
        (b'l', b'l') | (b'v' | b'r', b'e') if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
            Some(at + 2)
        }
        _ if (*first, second) == (0xC5, 0xBF) => Some(at + 2),
        _ => None,
    }
}
