//! A record on its way, written only as far as it differs from others.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::record::Record;

/// What becomes a record when it is sent. Copies of one session share what they begin with: it is not written, and not
/// read by another processor, once for each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draft {
    /// A record of its own.
    Whole(Record),
    /// What a record has for itself behind a beginning.
    Rest(Rest),
}

/// What one record has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    shared: Shared,
    /// What stands in the gaps, and what comes behind the beginning.
    own: Vec<u8>,
}

/// What it shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    beginning: Arc<Beginning>,
    /// The memory that it takes, for those who need not look at it otherwise: it may be in another processor's cache.
    memory: usize,
}

/// What records of a session begin with, but for gaps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    /// From the subject on.
    bytes: Vec<u8>,
    head_at: usize,
    payload_at: usize,
    /// Where records differ, in their order, all of them behind the subject.
    gaps: [Range<usize>; GAPS],
    /// The bytes that are the same in all of them, without the subject.
    shared_len: usize,
}

impl Draft {
    /// Where it goes.
    pub(super) fn subject(&self) -> &str {
        str::from_utf8(self.subject_bytes()).unwrap_or_default()
    }

    pub(super) fn subject_bytes(&self) -> &[u8] {
        match self {
            Self::Whole(record) => record.subject_bytes(),
            Self::Rest(rest) => rest.beginning().subject_bytes(),
        }
    }

    /// The bytes of the block of headers.
    pub(super) fn head_len(&self) -> usize {
        match self {
            Self::Whole(record) => record.head().len(),
            Self::Rest(rest) => rest.beginning().head_len(),
        }
    }

    /// The bytes of all but the subject.
    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::Whole(record) => record.body().len(),
            Self::Rest(rest) => rest.beginning().shared_len + rest.own.len(),
        }
    }

    /// Writes all but the subject.
    pub(super) fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Whole(record) => out.extend_from_slice(record.body()),
            Self::Rest(rest) => rest.write(rest.beginning().head_at, out),
        }
    }

    /// The whole record.
    pub fn record(&self) -> Cow<'_, Record> {
        match self {
            Self::Whole(record) => Cow::Borrowed(record),
            Self::Rest(rest) => {
                let mut bytes = Vec::new();
                rest.write(0, &mut bytes);
                let Beginning { head_at, payload_at, .. } = *rest.beginning();
                Cow::Owned(Record::begun(bytes, head_at, payload_at))
            }
        }
    }

    /// The memory that it takes, with all that it shares.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Whole(record) => record.capacity(),
            Self::Rest(Rest { shared, own }) => shared.memory + own.capacity(),
        }
    }

    /// Memory that it has for itself, for whoever has use for it.
    pub(super) fn into_room(self) -> Vec<u8> {
        match self {
            Self::Whole(record) => record.into_bytes(),
            Self::Rest(Rest { own, .. }) => own,
        }
    }
}

impl From<Record> for Draft {
    fn from(record: Record) -> Self {
        Self::Whole(record)
    }
}

impl Rest {
    /// Nothing yet but what stands in the gaps.
    pub(super) fn new(shared: Shared, mut room: Vec<u8>, gaps: [&[u8]; GAPS]) -> Self {
        gaps.iter().for_each(|text| room.extend_from_slice(text));
        Self { shared, own: room }
    }

    /// What is written behind this comes behind the beginning.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    fn beginning(&self) -> &Beginning {
        &self.shared.beginning
    }

    /// Writes all from a place on that comes before the gaps.
    fn write(&self, from: usize, out: &mut Vec<u8>) {
        let (beginning, mut own) = (self.beginning(), &self.own[..]);
        out.reserve(beginning.bytes.len() + own.len());
        let start = out.len();
        out.extend_from_slice(&beginning.bytes[from..]);
        for gap in &beginning.gaps {
            let (text, rest) = own.split_at(gap.len());
            out[start + gap.start - from..start + gap.end - from].copy_from_slice(text);
            own = rest;
        }
        out.extend_from_slice(own);
    }
}

impl Shared {
    /// What a record begins with, up to `end`.
    pub(super) fn new(record: &Record, end: usize, gaps: [Range<usize>; GAPS]) -> Self {
        let mut beginning = Beginning::default();
        beginning.set(record, end, gaps);
        let (memory, beginning) = (beginning.memory(), Arc::new(beginning));
        Self { beginning, memory }
    }

    /// The same of another record, if nobody else has it; says whether that is so.
    pub(super) fn set(&mut self, record: &Record, end: usize, gaps: [Range<usize>; GAPS]) -> bool {
        let Some(beginning) = Arc::get_mut(&mut self.beginning) else { return false };
        beginning.set(record, end, gaps);
        self.memory = beginning.memory();
        true
    }
}

impl Beginning {
    fn set(&mut self, record: &Record, end: usize, gaps: [Range<usize>; GAPS]) {
        let all = record.bytes();
        self.bytes.clear();
        self.bytes.reserve_exact(end);
        self.bytes.extend_from_slice(&all[..end]);
        (self.head_at, self.payload_at) = (record.subject_bytes().len(), all.len() - record.payload().len());
        self.shared_len = end - self.head_at - gaps.iter().map(Range::len).sum::<usize>();
        self.gaps = gaps;
    }

    fn subject_bytes(&self) -> &[u8] {
        &self.bytes[..self.head_at]
    }

    fn head_len(&self) -> usize {
        self.payload_at - self.head_at
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>() + COUNTS_BYTES
    }
}

/// The identifier, the time and the trace of a record.
const GAPS: usize = 3;
/// What comes with whatever is shared.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_written_as_the_whole_is() {
        let (one, two) = (record("1", "a", "[]", "one"), record("2", "b", "{}", "another"));
        let rest = rest(&shared(&one), &two);
        let written = |draft: &Draft| {
            let mut body = b"before".to_vec();
            draft.write_body(&mut body);
            body
        };
        let whole = Draft::Whole(two);
        assert_eq!(written(&rest), written(&whole));
        assert_eq!(
            (rest.subject(), rest.head_len(), rest.body_len()),
            (whole.subject(), whole.head_len(), whole.body_len())
        );
        assert_eq!(rest.record(), whole.record());
    }

    #[test]
    fn what_is_shared_counts_for_each() {
        let one = record("1", "a", "[]", "one");
        let shared = shared(&one);
        let drafts = [0, 1].map(|_| rest(&shared, &one));
        assert!(drafts.iter().all(|draft| draft.capacity() >= one.bytes().len()));
        assert!(drafts.map(Draft::into_room).iter().all(|room| room.len() < one.bytes().len()));
    }

    fn record(id: &str, time: &str, trace: &str, payload: &str) -> Record {
        let head = format!("NATS/1.0\r\nA: {id}\r\nB: {time}\r\nC: {trace}\r\n\r\n");
        Record::of_parts(b"a.b", head.as_bytes(), format!("p{payload}").as_bytes())
    }

    #[test]
    fn what_somebody_else_has_is_not_written_over() {
        let (one, two) = (record("1", "a", "[]", "one"), record("2", "b", "{}", "another"));
        let mut shared = shared(&one);
        let draft = rest(&shared, &one);
        assert!(!shared.set(&two, 10, Default::default()));
        assert_eq!(*draft.record(), one);
        drop(draft);
        assert!(shared.set(&two, 10, Default::default()));
    }

    /// All but what records differ in, and the first byte of the payload.
    fn shared(record: &Record) -> Shared {
        Shared::new(record, record.bytes().len() - record.payload().len() + 1, GAPS_OF_RECORD)
    }

    fn rest(shared: &Shared, record: &Record) -> Draft {
        let gaps = GAPS_OF_RECORD.map(|gap| &record.bytes()[gap]);
        let mut rest = Rest::new(shared.clone(), Vec::new(), gaps);
        rest.out().extend_from_slice(&record.payload()[1..]);
        Draft::Rest(rest)
    }

    const GAPS_OF_RECORD: [Range<usize>; GAPS] = [16..17, 22..23, 28..30];
}
