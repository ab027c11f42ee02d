//! Token ids to text as they come, without ever showing half a character.
//!
//! A character may be spread over several tokens, and decoders turn what is incomplete into U+FFFD; so
//! trailing U+FFFD are held back until the next token completes them or the text ends. Ids are decoded in
//! windows that begin where a character ended: some decoders treat the first token of a text differently, so
//! a window keeps one shown token in front of what is new.

use anyhow::Result;
use gauntlet_data::Tokenizer;

/// Tokens in a window before a new one begins.
const WINDOW: usize = 32;

/// The text of a growing list of ids.
pub(crate) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    window: Vec<u32>,
    /// Bytes of the window's text that were shown.
    shown: usize,
}

impl<'a> TextStream<'a> {
    /// Continues the text of `ids`, which was shown already.
    pub(crate) fn after(tokenizer: &'a Tokenizer, ids: &[u32]) -> Result<Self> {
        let shown = tokenizer.decode(ids)?.len();
        Ok(Self { tokenizer, window: ids.to_vec(), shown })
    }

    /// The text that `id` completes; empty inside a character.
    pub(crate) fn push(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        let new = text.get(self.shown..whole).unwrap_or_default().to_owned();
        self.shown = self.shown.max(whole);
        if whole == text.len() && self.window.len() > WINDOW {
            let last = self.tokenizer.decode(&[id])?;
            if !last.contains(char::REPLACEMENT_CHARACTER) {
                (self.window, self.shown) = (vec![id], last.len());
            }
        }
        Ok(new)
    }

    /// What was held back, once no more ids come.
    pub(crate) fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        Ok(text.get(self.shown..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(prompt: &str, text: &[u8]) -> Vec<String> {
        let tokenizer = Tokenizer::bytes();
        let mut stream = TextStream::after(&tokenizer, &tokenizer.encode(prompt).unwrap()).unwrap();
        let mut pieces: Vec<String> =
            text.iter().map(|byte| stream.push(u32::from(*byte)).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn characters_come_whole() {
        assert_eq!(pieces("x", "a€b".as_bytes()), ["a", "", "", "€", "b", ""]);
        let long = "é𝄞 ".repeat(40);
        assert_eq!(pieces("é", long.as_bytes()).concat(), long);
    }

    #[test]
    fn broken_bytes_show_when_it_is_certain() {
        assert_eq!(pieces("", b"\xff\xe2\x82"), ["", "", "", "\u{fffd}\u{fffd}"]);
        assert_eq!(pieces("", b"\xff\xe2a"), ["", "", "\u{fffd}\u{fffd}a", ""]);
        let noise: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(97)).collect();
        assert_eq!(pieces("", &noise).concat(), String::from_utf8_lossy(&noise));
    }
}
