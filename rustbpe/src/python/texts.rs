//! Texts that Python owns, readable while other Python threads run.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

enum Text<'py> {
    /// ASCII is UTF-8 as it stands.
    Ascii(Bound<'py, PyString>),
    /// A copy: asked for its UTF-8, a Python string would keep one for as long as it lives.
    Utf8(Bound<'py, PyBytes>),
}

/// Some texts, to be worked on together.
#[derive(Default)]
pub struct Texts<'py> {
    texts: Vec<Text<'py>>,
    bytes: usize,
}

impl<'py> Texts<'py> {
    pub fn of(items: Vec<Bound<'py, PyAny>>) -> PyResult<Self> {
        let mut texts = Self::default();
        items.into_iter().try_for_each(|item| texts.push(item, "the list", 0))?;
        Ok(texts)
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a text; `whole` and `place`, what it is from and how many came before these texts, are for the message.
    pub fn push(&mut self, item: Bound<'py, PyAny>, whole: &str, place: usize) -> PyResult<()> {
        let text = item.cast_into::<PyString>().map_err(|error| {
            let (item, kind) = (place + self.texts.len(), error.into_inner().get_type());
            PyTypeError::new_err(format!("item {item} of {whole} is not a string: {kind}"))
        })?;
        let text = if text.call_method0("isascii")?.is_truthy()? {
            self.bytes += text.len()?;
            Text::Ascii(text)
        } else {
            let bytes = text.encode_utf8()?;
            self.bytes += bytes.as_bytes().len();
            Text::Utf8(bytes)
        };
        self.texts.push(text);
        Ok(())
    }

    pub fn strs<'a>(&'a self) -> PyResult<Vec<&'a str>> {
        let str_of = |text: &'a Text<'py>| match text {
            Text::Ascii(text) => text.to_str(),
            Text::Utf8(bytes) => Ok(std::str::from_utf8(bytes.as_bytes())?),
        };
        self.texts.iter().map(str_of).collect()
    }
}
