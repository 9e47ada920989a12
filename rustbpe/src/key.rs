//! Chunks of up to 15 bytes as two machine words: compared and hashed without following a pointer.

/// Bytes of the longest chunk that fits; the last byte of a key is the chunk's length.
pub const MAX_LEN: usize = 15;

/// A chunk of 1 to `MAX_LEN` bytes. No chunk has the key `EMPTY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Key {
    low: u64,
    high: u64,
}

pub const EMPTY: Key = Key { low: 0, high: 0 };

/// The first bytes of a word, by how many they are; of more than `MAX_LEN`, none.
const MASKS: [u128; MAX_LEN + 2] = {
    let (mut masks, mut len) = ([0; MAX_LEN + 2], 0);
    while len <= MAX_LEN {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

/// The last bytes of a text, fewer than sixteen.
#[cold]
fn last_bytes(rest: &[u8]) -> u128 {
    let mut sixteen = [0; 16];
    sixteen[..rest.len()].copy_from_slice(rest);
    u128::from_le_bytes(sixteen)
}

impl Key {
    /// The key of `text[start..end]`; of more than `MAX_LEN` bytes, one that no other chunk has.
    #[inline(always)]
    pub fn new(text: &[u8], start: usize, end: usize) -> Self {
        let len = (end - start).min(MAX_LEN + 1);
        let bytes = match text.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
            Some(sixteen) => u128::from_le_bytes(*sixteen),
            None => last_bytes(&text[start..]),
        };
        let bytes = bytes & MASKS[len];
        Self { low: bytes as u64, high: (bytes >> 64) as u64 | (len as u64) << 56 }
    }

    /// Whether the chunk is too long to be in its key.
    #[inline(always)]
    pub fn is_long(self) -> bool {
        self.high >> 56 > MAX_LEN as u64
    }

    pub fn is_empty(self) -> bool {
        self.high == 0
    }

    /// The chunk in the first bytes, and how many they are.
    pub fn bytes(self) -> ([u8; 16], usize) {
        let all = u128::from(self.low) | u128::from(self.high) << 64;
        (all.to_le_bytes(), (self.high >> 56) as usize)
    }

    /// Good in all its bits. `seed` is different in every table, so that no text can be made to collide.
    #[inline(always)]
    pub fn hash(self, seed: u64) -> u64 {
        let product = u128::from(self.low ^ seed) * u128::from(self.high ^ 0x9E37_79B9_7F4A_7C15);
        (product as u64) ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_wherever_they_stand() {
        let text = b"0123456789abcdefghijklmnop";
        for start in 0..text.len() {
            for end in start + 1..=text.len().min(start + MAX_LEN) {
                let key = Key::new(text, start, end);
                let (bytes, len) = key.bytes();
                assert_eq!(&bytes[..len], &text[start..end]);
                assert_eq!(key, Key::new(&text[start..end], 0, end - start));
                assert!(!key.is_empty());
            }
        }
    }

    #[test]
    fn zero_bytes_are_not_nothing() {
        assert_ne!(Key::new(b"\0", 0, 1), EMPTY);
        assert_ne!(Key::new(b"\0", 0, 1), Key::new(b"\0\0", 0, 2));
    }
}
