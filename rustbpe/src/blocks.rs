//! Reads a text file in blocks, so that a file of any size takes little memory.
//!
//! A block ends where a line ends and the next one begins with a visible ASCII character: no split pattern that we scan
//! has a chunk across such a place, so blocks count like the whole file.

use std::fmt;
use std::io::{self, Read};

/// Bytes read before a block is cut off.
const BLOCK: usize = 1 << 20;
/// A file without line breaks is cut between two characters at this size.
const LONGEST: usize = 64 << 20;

#[derive(Debug)]
pub enum BlockError {
    Io(io::Error),
    /// Where in the file the first byte is that is no UTF-8.
    Utf8(u64),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Utf8(offset) => write!(f, "invalid UTF-8 at byte {offset}"),
        }
    }
}

/// The blocks of a text, in order. Invalid UTF-8 is an error, or U+FFFD if `replace` says so.
pub struct Blocks<R> {
    reader: R,
    replace: bool,
    /// Read, and not handed out yet.
    rest: Vec<u8>,
    /// Bytes handed out.
    offset: u64,
}

impl<R: Read> Blocks<R> {
    pub fn new(reader: R, replace: bool) -> Self {
        Self { reader, replace, rest: Vec::new(), offset: 0 }
    }

    fn read_block(&mut self) -> Result<Option<String>, BlockError> {
        let mut want = BLOCK;
        loop {
            let missing = want.saturating_sub(self.rest.len()) as u64;
            let read = self.reader.by_ref().take(missing).read_to_end(&mut self.rest).map_err(BlockError::Io)?;
            let at_end = (read as u64) < missing;
            let cut = if at_end { Some(self.rest.len()) } else { last_cut(&self.rest) };
            match cut {
                Some(0) => return Ok(None),
                Some(cut) => return self.take(cut).map(Some),
                None if want < LONGEST => want *= 2,
                None => return self.take(last_boundary(&self.rest)).map(Some),
            }
        }
    }

    fn take(&mut self, cut: usize) -> Result<String, BlockError> {
        let rest = self.rest.split_off(cut);
        let block = std::mem::replace(&mut self.rest, rest);
        let start = self.offset;
        self.offset += cut as u64;
        decode(block, start, self.replace)
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = Result<String, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_block().transpose()
    }
}

/// `bytes` as text; they stand at byte `start` of their file.
pub fn decode(bytes: Vec<u8>, start: u64, replace: bool) -> Result<String, BlockError> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if replace => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(error) => Err(BlockError::Utf8(start + error.utf8_error().valid_up_to() as u64)),
    }
}

fn last_cut(bytes: &[u8]) -> Option<usize> {
    let found = bytes.windows(2).rposition(|two| two[0] == b'\n' && two[1].is_ascii_graphic())?;
    Some(found + 1)
}

/// The start of the last character; the whole if there is none near the end.
fn last_boundary(bytes: &[u8]) -> usize {
    let near = bytes.len().saturating_sub(4);
    let found = bytes[near..].iter().rposition(|byte| byte & 0xC0 != 0x80);
    found.map(|at| near + at).filter(|&at| at > 0).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(bytes: &[u8], replace: bool) -> Result<Vec<String>, BlockError> {
        Blocks::new(bytes, replace).collect()
    }

    #[test]
    fn blocks_are_the_file_cut_at_lines() {
        let text: String = (0..300_000).map(|i| format!("line é {i}\n\n")).collect();
        let found = blocks(text.as_bytes(), false).unwrap();
        assert!(found.len() > 3);
        assert!(found.iter().all(|block| block.starts_with("line") && block.ends_with('\n')));
        assert_eq!(found.concat(), text);
        assert!(blocks(b"", false).unwrap().is_empty());
    }

    #[test]
    fn a_file_without_lines_is_cut_between_characters() {
        let text = "日".repeat(LONGEST / 3 + 1000);
        let found = blocks(text.as_bytes(), false).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found.concat(), text);
    }

    #[test]
    fn says_where_the_text_is_no_utf8_or_replaces_it() {
        let mut bytes = "a line\n".repeat(400_000).into_bytes();
        bytes[2_345_678] = 0xFF;
        assert!(matches!(blocks(&bytes, false), Err(BlockError::Utf8(2_345_678))));
        assert_eq!(blocks(&bytes, true).unwrap().concat().matches('\u{FFFD}').count(), 1);
    }
}
