//! Which bytes of 64 are letters, digits, white space: a bit for each byte, found for many bytes in one step.

/// Bytes looked at together.
pub const BLOCK: usize = 64;

/// One bit per byte, the lowest for the first. Bytes of 0x80 and above are in `high` and nowhere else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Masks {
    pub letter: u64,
    pub digit: u64,
    /// `\s`, line breaks included.
    pub white: u64,
    /// Carriage return and line feed.
    pub newline: u64,
    pub blank: u64,
    pub apostrophe: u64,
    pub high: u64,
}

#[cfg(target_arch = "x86_64")]
pub use avx512::masks as masks_avx512;
#[cfg(target_arch = "x86_64")]
pub use sse::masks;
#[cfg(not(target_arch = "x86_64"))]
pub use words::masks;

/// All bytes in one step.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, __mmask64, _mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_movepi8_mask, _mm512_or_si512,
        _mm512_set_epi64, _mm512_set1_epi8, _mm512_sub_epi8,
    };

    use super::{BLOCK, Masks};

    #[inline]
    #[target_feature(enable = "avx512bw,avx512f")]
    pub fn masks(block: &[u8; BLOCK]) -> Masks {
        let (words, _) = block.as_chunks::<8>();
        let word = |i: usize| i64::from_le_bytes(words[i]);
        let bytes = _mm512_set_epi64(word(7), word(6), word(5), word(4), word(3), word(2), word(1), word(0));
        let blank = is(bytes, b' ');
        Masks {
            letter: from(_mm512_or_si512(bytes, _mm512_set1_epi8(0x20)), b'a', 26),
            digit: from(bytes, b'0', 10),
            white: from(bytes, b'\t', 5) | blank,
            newline: is(bytes, b'\n') | is(bytes, b'\r'),
            blank,
            apostrophe: is(bytes, b'\''),
            high: _mm512_movepi8_mask(bytes),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512f")]
    fn is(bytes: __m512i, byte: u8) -> __mmask64 {
        _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte as i8))
    }

    /// Whether each byte is one of the `count` from `first` on.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512f")]
    fn from(bytes: __m512i, first: u8, count: u8) -> __mmask64 {
        let offset = _mm512_sub_epi8(bytes, _mm512_set1_epi8(first as i8));
        _mm512_cmplt_epu8_mask(offset, _mm512_set1_epi8(count as i8))
    }
}

/// Sixteen bytes in one step: every x86-64 processor can.
#[cfg(target_arch = "x86_64")]
mod sse {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8,
    };

    use super::{BLOCK, Masks};

    #[inline(always)]
    pub fn masks(block: &[u8; BLOCK]) -> Masks {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { sse2_masks(block) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn sse2_masks(block: &[u8; BLOCK]) -> Masks {
        let mut found = Masks::default();
        let (quarters, _) = block.as_chunks::<16>();
        for (i, quarter) in quarters.iter().enumerate() {
            add(&mut found, load(quarter), 16 * i);
        }
        found
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        let all = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((all >> 64) as i64, all as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(found: &mut Masks, bytes: __m128i, shift: usize) {
        let bits = |which: __m128i| u64::from(_mm_movemask_epi8(which) as u16) << shift;
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        let blank = is(b' ');
        let newline = _mm_or_si128(is(b'\n'), is(b'\r'));
        let lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        found.letter |= bits(from(lower, b'a', 26));
        found.digit |= bits(from(bytes, b'0', 10));
        found.white |= bits(_mm_or_si128(from(bytes, b'\t', 5), blank));
        found.newline |= bits(newline);
        found.blank |= bits(blank);
        found.apostrophe |= bits(is(b'\''));
        found.high |= bits(bytes);
    }

    /// Whether each byte is one of the `count` from `first` on.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn from(bytes: __m128i, first: u8, count: u8) -> __m128i {
        let offset = _mm_add_epi8(bytes, _mm_set1_epi8(first.wrapping_neg() as i8));
        _mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(count as i8 - 1)), offset)
    }
}

/// Eight bytes in one step, in an ordinary machine word.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod words {
    use super::{BLOCK, Masks};

    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;

    #[inline(always)]
    pub fn masks(block: &[u8; BLOCK]) -> Masks {
        let mut found = Masks::default();
        let (words, _) = block.as_chunks::<8>();
        for (i, word) in words.iter().enumerate() {
            add(&mut found, u64::from_le_bytes(*word), 8 * i);
        }
        found
    }

    #[inline(always)]
    fn add(found: &mut Masks, bytes: u64, shift: usize) {
        let bits = |which: u64| ((which >> 7 & ONES).wrapping_mul(0x0102_0408_1020_4080) >> 56) << shift;
        let is = |byte: u8| from(bytes, byte, 1);
        let blank = is(b' ');
        found.letter |= bits(from(bytes | (ONES * 0x20), b'a', 26) & !bytes);
        found.digit |= bits(from(bytes, b'0', 10));
        found.white |= bits(from(bytes, b'\t', 5) | blank);
        found.newline |= bits(is(b'\n') | is(b'\r'));
        found.blank |= bits(blank);
        found.apostrophe |= bits(is(b'\''));
        found.high |= bits(bytes);
    }

    /// The high bit of each byte that is one of the `count` from `first` on, all below 0x80.
    #[inline(always)]
    fn from(bytes: u64, first: u8, count: u8) -> u64 {
        let low = bytes & !HIGH;
        let at_least = low + ONES * u64::from(0x80 - first);
        let above = low + ONES * u64::from(0x80 - first - count);
        at_least & !above & !bytes & HIGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowly(block: &[u8; BLOCK]) -> Masks {
        let bits = |is: fn(u8) -> bool| block.iter().rev().fold(0, |bits, &byte| (bits << 1) | u64::from(is(byte)));
        Masks {
            letter: bits(|byte| byte.is_ascii_alphabetic()),
            digit: bits(|byte| byte.is_ascii_digit()),
            white: bits(|byte| matches!(byte, b'\t'..=b'\r' | b' ')),
            newline: bits(|byte| matches!(byte, b'\n' | b'\r')),
            blank: bits(|byte| byte == b' '),
            apostrophe: bits(|byte| byte == b'\''),
            high: bits(|byte| byte >= 0x80),
        }
    }

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..BLOCK {
                let mut block = [byte.wrapping_mul(37).wrapping_add(at as u8); BLOCK];
                block[at] = byte;
                assert_eq!(masks(&block), slowly(&block));
                assert_eq!(words::masks(&block), slowly(&block));
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx512bw") {
                    // SAFETY: just looked.
                    assert_eq!(unsafe { masks_avx512(&block) }, slowly(&block));
                }
            }
        }
    }
}
