//! The chunks of a whole text, 64 bytes in a step: where chunks begin follows from a few sums over bit masks.
//!
//! The rules are those of `scan`, said for all places at once. Bit i of a mask is byte i of the block, so a shift to
//! the left asks for the byte before, and adding the first bit of a run to the run leaves a bit behind its end.
//! A chunk never depends on what is before it. So where the masks cannot say, which is at white space and numbers
//! beyond ASCII, the scanner takes over for a chunk or two, and the next block begins behind them.

use crate::batch::{BATCH, Batch, Chunks};
use crate::classes::{LETTER, NEWLINE, NUMBER, OTHER, SPACE};
#[cfg(target_arch = "x86_64")]
use crate::masks::masks_avx512;
use crate::masks::{BLOCK, Masks, masks};
use crate::scan::{Scanner, contraction};

/// What a block must know of the one before it. All zero where a chunk begins.
#[derive(Default)]
struct Carry {
    /// The class of the last byte: one bit each.
    letter: u64,
    newline: u64,
    white: u64,
    other: u64,
    blank: u64,
    /// Line breaks that began behind punctuation go on.
    absorbed: u64,
    /// The first character of a chunk of punctuation ended with the block.
    single: u64,
    /// Digits in the group that is not full yet.
    digits: usize,
    /// Class and remaining bytes of a character that the end of the block cut in two.
    cut: (u8, usize),
    /// Chunks begin here, in bytes of this block.
    begun: u64,
}

/// Character classes of a block, one bit per byte; all bytes of a character are alike.
struct Classes {
    letter: u64,
    digit: u64,
    white: u64,
    newline: u64,
    other: u64,
    blank: u64,
    apostrophe: u64,
    /// Bytes that are not the first of their character.
    inner: u64,
    /// Behind the end of the text.
    nothing: u64,
}

impl Scanner {
    /// Gives `visit` start and end of every chunk in order, many at a time.
    #[inline]
    pub fn for_each_batch(&self, text: &str, visit: impl FnMut(Chunks<'_>)) {
        #[cfg(target_arch = "x86_64")]
        {
            let has_bits = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
            if has_bits && is_x86_feature_detected!("avx512bw") {
                // SAFETY: the processor has what the function is compiled for.
                return unsafe { self.sweep_avx512(text, visit) };
            }
            if has_bits && is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { self.sweep_avx2(text, visit) };
            }
        }
        self.sweep(text, visit, masks);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx2,bmi1,bmi2")]
    fn sweep_avx512(&self, text: &str, visit: impl FnMut(Chunks<'_>)) {
        self.sweep(text, visit, |block| masks_avx512(block));
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn sweep_avx2(&self, text: &str, visit: impl FnMut(Chunks<'_>)) {
        self.sweep(text, visit, masks);
    }

    #[inline(always)]
    fn sweep(&self, text: &str, mut visit: impl FnMut(Chunks<'_>), masks: impl Fn(&[u8; BLOCK]) -> Masks) {
        let bytes = text.as_bytes();
        let mut batch = Batch::new();
        let (mut start, mut base) = (0, 0);
        let mut carry = Carry::default();
        while base < bytes.len() {
            let found = self.begins(bytes, base, &mut carry, &masks);
            let mut begins = found.unwrap_or(0) & !u64::from(base == start);
            while begins != 0 {
                start = base + begins.trailing_zeros() as usize;
                batch.push(start);
                begins &= begins - 1;
            }
            base += BLOCK;
            if found.is_none() {
                let behind = bytes.len().min(base);
                while start < behind {
                    start = self.chunk_end(text, start);
                    batch.push(start);
                }
                (base, carry) = (start, Carry::default());
            }
            if batch.len() >= BATCH {
                batch.hand_out(&mut visit);
            }
        }
        if start < bytes.len() {
            batch.push(bytes.len());
        }
        batch.hand_out(&mut visit);
    }

    /// Where in the block at `base` chunks begin; `None` if the masks cannot say.
    #[inline(always)]
    fn begins(
        &self,
        text: &[u8],
        base: usize,
        carry: &mut Carry,
        masks: &impl Fn(&[u8; BLOCK]) -> Masks,
    ) -> Option<u64> {
        let (found, valid) = match text.get(base..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
            Some(block) => (masks(block), u64::MAX),
            None => {
                let tail = text.get(base..)?;
                let mut block = [0; BLOCK];
                block[..tail.len()].copy_from_slice(tail);
                (masks(&block), (1 << tail.len()) - 1)
            }
        };
        let classes = if found.high == 0 && carry.cut.1 == 0 {
            Classes::of_ascii(&found, valid)
        } else {
            self.classes_of(&found, valid, text, base, carry)?
        };
        Some(self.chunks_begin(&classes, text, base, carry))
    }

    /// With the characters beyond ASCII among letters and others; `None` if one is a number or white space.
    #[cold]
    #[inline(never)]
    fn classes_of(&self, found: &Masks, valid: u64, text: &[u8], base: usize, carry: &mut Carry) -> Option<Classes> {
        let mut high = found.high & valid;
        let (mut letter, mut inner) = (0, 0);
        let (class, len) = std::mem::take(&mut carry.cut);
        if len > 0 {
            let bits = (1 << len) - 1;
            inner |= bits;
            high &= !bits;
            letter |= if class == LETTER { bits } else { 0 };
        }
        while high != 0 {
            let at = high.trailing_zeros() as usize;
            let (class, next) = self.class_at(text, base + at);
            let len = next - base - at;
            match class {
                LETTER | OTHER => {}
                _ => return None,
            }
            let bits = ((1 << len) - 1) << at;
            inner |= bits & (bits << 1);
            letter |= if class == LETTER { bits } else { 0 };
            high &= !bits;
            if at + len > BLOCK {
                carry.cut = (class, at + len - BLOCK);
            }
        }
        let mut classes = Classes::of_ascii(found, valid);
        classes.letter |= letter;
        classes.other &= !letter;
        classes.inner = inner;
        Some(classes)
    }

    #[inline(always)]
    fn chunks_begin(&self, is: &Classes, text: &[u8], base: usize, carry: &mut Carry) -> u64 {
        let space = is.white & !is.newline;
        let behind_letter = is.letter << 1 | carry.letter;
        let behind_newline = is.newline << 1 | carry.newline;
        let behind_white = is.white << 1 | carry.white;
        let behind_other = is.other << 1 | carry.other;
        let behind_blank = is.blank << 1 | carry.blank;

        // Line breaks behind punctuation belong to it.
        let (sum, overflow) = is.newline.overflowing_add(is.newline & behind_other | carry.absorbed);
        let behind_absorbed = sum & !is.newline;
        carry.absorbed = u64::from(overflow);

        let mut begins = std::mem::take(&mut carry.begun) | behind_absorbed;
        begins |= is.white & !behind_white & !(is.newline & behind_other);

        // The last white character before a word goes with it, or stands alone.
        let ends_in_white = space >> (BLOCK - 1) == 1 && self.is_white_or_end(text, base + BLOCK);
        begins |= space & !((is.white | is.nothing) >> 1 | u64::from(ends_in_white) << (BLOCK - 1));

        // Spaces behind a line break are a chunk of their own, unless another line break follows.
        let indents = space & behind_newline & !behind_absorbed;
        let (sum, overflow) = space.overflowing_add(indents);
        begins |=
            if overflow || sum & !space & is.newline != 0 { self.last_indents(indents, text, base) } else { indents };

        let others = is.other & !behind_other & !behind_blank;
        begins |= others;
        // A single other character goes with the letters behind it.
        let inner = is.other & is.inner;
        let (sum, overflow) = inner.overflowing_add(others << 1 | carry.single);
        let behind_single = sum & !inner;
        carry.single = others >> (BLOCK - 1) | u64::from(overflow);
        begins |= is.letter & !behind_letter & !(behind_white & !behind_newline) & !behind_single;

        let mut quotes = others & is.apostrophe;
        while quotes != 0 {
            let at = quotes.trailing_zeros() as usize;
            quotes &= quotes - 1;
            if let Some(end) = contraction(text, base + at + 1) {
                let mark = 1_u128 << (end - base);
                begins |= if end < text.len() { mark as u64 } else { 0 };
                carry.begun |= (mark >> BLOCK) as u64;
            }
        }
        begins |= self.numbers_begin(is.digit, carry);

        carry.letter = is.letter >> (BLOCK - 1);
        carry.newline = is.newline >> (BLOCK - 1);
        carry.white = is.white >> (BLOCK - 1);
        carry.other = is.other >> (BLOCK - 1);
        carry.blank = is.blank >> (BLOCK - 1);
        begins
    }

    /// A chunk begins with every run of digits and, in a run, when a group is full.
    #[inline(always)]
    fn numbers_begin(&self, digit: u64, carry: &mut Carry) -> u64 {
        let mut group = std::mem::take(&mut carry.digits);
        let too_long = (1..=self.digits).fold(digit, |run, by| run & digit << by);
        if too_long == 0 && (group == 0 || digit & 1 == 0) {
            carry.digits = (!digit).leading_zeros() as usize % self.digits;
            return digit & !(digit << 1);
        }
        let (mut rest, mut begins) = (digit, 0);
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            let len = (!(rest >> first)).trailing_zeros() as usize;
            group = if first == 0 { group } else { 0 };
            for at in first..first + len {
                begins |= u64::from(group == 0) << at;
                group = if group + 1 == self.digits { 0 } else { group + 1 };
            }
            if first + len == BLOCK {
                carry.digits = group;
                return begins;
            }
            rest &= u64::MAX << (first + len);
        }
        begins
    }

    /// The spaces of `indents` that no line break follows within their white space.
    #[cold]
    fn last_indents(&self, mut indents: u64, text: &[u8], base: usize) -> u64 {
        let mut last = 0;
        while indents != 0 {
            let mut at = base + indents.trailing_zeros() as usize;
            let (class, _) = loop {
                match self.class_at(text, at) {
                    (SPACE, next) => at = next,
                    other => break other,
                }
            };
            if class != NEWLINE {
                last |= indents & indents.wrapping_neg();
            }
            indents &= indents - 1;
        }
        last
    }

    #[inline(always)]
    fn is_white_or_end(&self, text: &[u8], at: usize) -> bool {
        !matches!(self.class_at(text, at).0, LETTER | NUMBER | OTHER)
    }
}

impl Classes {
    #[inline(always)]
    fn of_ascii(found: &Masks, valid: u64) -> Self {
        Self {
            letter: found.letter,
            digit: found.digit,
            white: found.white,
            newline: found.newline,
            other: !(found.letter | found.digit | found.white) & valid,
            blank: found.blank,
            apostrophe: found.apostrophe,
            inner: 0,
            nothing: !valid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: [&str; 40] = [
        "a",
        "word",
        "longerwordthanablockofsixtyfourbytesanditgoesonandonandonandonandon",
        "s",
        "'",
        "'s",
        "'ll",
        "'ſ",
        "ſ",
        "’",
        " ",
        " ",
        "  ",
        "                                                                   ",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "\n    ",
        "\n \n",
        "\u{a0}",
        "\u{85}",
        "\u{3000}",
        "0",
        "42",
        "123456789",
        "٣",
        "Ⅷ",
        "é",
        "naïve",
        "日本語",
        "𝒳",
        "🙂",
        "\u{301}",
        ".",
        ",",
        "...",
        "(){};",
        "—",
        "“",
    ];

    fn one_by_one(scanner: &Scanner, text: &str) -> Vec<(usize, usize)> {
        let (mut spans, mut start) = (Vec::new(), 0);
        while start < text.len() {
            let end = scanner.chunk_end(text, start);
            spans.push((start, end));
            start = end;
        }
        spans
    }

    #[test]
    fn equals_one_chunk_at_a_time_wherever_blocks_end() {
        let mut state = 7_u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % n) as usize
        };
        for round in 0..6000 {
            let scanner = Scanner::new(1 + round % 3).unwrap();
            let kinds = 1 + random(40) as u64;
            let first = random(40);
            let text: String = (0..random(120)).map(|_| PIECES[(first + random(kinds)) % 40]).collect();
            let expected = one_by_one(&scanner, &text);
            let (mut best, mut plain) = (Vec::new(), Vec::new());
            scanner.for_each_batch(&text, |chunks| best.extend(chunks.spans()));
            scanner.sweep(&text, |chunks| plain.extend(chunks.spans()), masks);
            assert_eq!(best, expected, "{text:?}");
            assert_eq!(plain, expected, "{text:?}");
        }
    }
}
