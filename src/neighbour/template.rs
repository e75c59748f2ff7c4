//! Texts with `${names}` in them, which stand for something else in each request.

/// A part of such a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<F> {
    /// What a name stands for.
    Field(F),
    /// What stands there itself, and is not empty.
    Text(Box<str>),
}

/// The parts of a text; `open` is what is wrong with one where a name does not end.
pub(crate) fn parts<F, E>(
    text: &str,
    open: E,
    named: impl Fn(&str) -> Result<F, E>,
) -> Result<Vec<Part<F>>, E> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { return Err(open) };
        parts.push(Part::Text(before.into()));
        parts.push(Part::Field(named(name)?));
        rest = after;
    }
    parts.push(Part::Text(rest.into()));
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    Ok(parts)
}
