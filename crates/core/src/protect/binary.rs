//! Documents as PostgreSQL holds them (utils/jsonb.h), and their residuals in the same form: a value is left out where it lies, and nothing else is taken apart.
//!
//! A container is a header (count and kind), an entry a value (in an object first all keys, then all values: kind and length, of each 32nd the end instead), and the values. Numbers and containers begin at
//! multiples of four bytes, and what lies before them counts as theirs. The same document has the same bytes, whoever has put it together.
use super::mask::Mask;
use super::ways::Node;

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const KIND: u32 = 0x7000_0000;
const IS_END: u32 = 0x8000_0000;
const STRING: u32 = 0;
const NUMBER: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
/// So many entries apart are those that say where they end.
const STRIDE: usize = 32;

/// What a document shows.
#[derive(Debug, PartialEq, Eq)]
pub struct Residual {
    /// None: all of it, because nothing that is protected is there.
    pub document: Option<Vec<u8>>,
    /// The first value that stands in the way of a pointer.
    pub stray: Option<Stray>,
}

/// A value that stands in the way of a pointer, and is none that the way could lead through.
#[derive(Debug, PartialEq, Eq)]
pub struct Stray {
    /// JSON Pointer of it.
    pub pointer: String,
    /// What it is: "a string".
    pub kind: &'static str,
}

/// The residual of a document: of the bytes behind its length. None: they are no document.
#[must_use]
pub fn residual(document: &[u8], mask: &Mask) -> Option<Residual> {
    let (root, is_shown) = match mask {
        Mask::Listed(ways) => (ways.root(), true),
        Mask::AllBut(ways) => (ways.root(), false),
    };
    let mut writer =
        Writer { is_shown, into: Vec::with_capacity(document.len()), is_less: false, way: Vec::new(), stray: None };
    let container = Container::read(document)?;
    let value = if container.is_scalar { container.value(0)? } else { Value { kind: CONTAINER, bytes: document } };
    match writer.judge(root, &value)? {
        Fate::Shown => {}
        Fate::Hidden => writer.into.extend([SCALAR | ARRAY | 1, NULL | IS_END].map(u32::to_ne_bytes).as_flattened()),
        Fate::Within(node) => writer.container(&container, node)?,
    }
    Some(Residual { document: writer.is_less.then_some(writer.into), stray: writer.stray })
}

/// A value within a container, without what lies before it.
struct Value<'a> {
    kind: u32,
    bytes: &'a [u8],
}

impl Value<'_> {
    fn what(&self) -> &'static str {
        match self.kind {
            STRING => "a string",
            NUMBER => "a number",
            FALSE | TRUE => "a boolean",
            NULL => "null",
            _ if Container::read(self.bytes).is_some_and(|container| container.is_object) => "an object",
            _ => "an array",
        }
    }
}

/// A container as it lies there.
struct Container<'a> {
    header: u32,
    /// Of members, or elements.
    count: usize,
    is_object: bool,
    is_scalar: bool,
    entries: &'a [u8],
    values: &'a [u8],
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    let bytes = bytes.get(place * 4..place * 4 + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

impl<'a> Container<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = word(bytes, 0)?;
        let (count, is_object) = ((header & COUNT) as usize, header & OBJECT != 0);
        let entries = if is_object { count * 2 } else { count };
        let (entries, values) = bytes.get(4..)?.split_at_checked(entries * 4)?;
        Some(Self { header, count, is_object, is_scalar: header & SCALAR != 0, entries, values })
    }

    fn entries(&self) -> usize {
        if self.is_object { self.count * 2 } else { self.count }
    }

    /// Where a value ends that begins there.
    fn end_from(&self, place: usize, begin: usize) -> Option<usize> {
        let entry = word(self.entries, place)?;
        Some((entry & LENGTH) as usize + if entry & IS_END == 0 { begin } else { 0 })
    }

    fn end(&self, place: usize) -> Option<usize> {
        let mut end = 0;
        for place in (0..=place).rev() {
            let entry = word(self.entries, place)?;
            end += (entry & LENGTH) as usize;
            if entry & IS_END != 0 {
                break;
            }
        }
        Some(end)
    }

    /// By its entry.
    fn value(&self, place: usize) -> Option<Value<'a>> {
        let begin = if place == 0 { 0 } else { self.end(place - 1)? };
        self.between(place, begin, self.end(place)?)
    }

    fn between(&self, place: usize, begin: usize, end: usize) -> Option<Value<'a>> {
        let kind = word(self.entries, place)? & KIND;
        let begin = if is_aligned(kind) { begin.next_multiple_of(4) } else { begin };
        Some(Value { kind, bytes: self.values.get(begin..end)? })
    }

    fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut begin = 0;
        (0..self.count).map_while(move |place| {
            let end = self.end_from(place, begin)?;
            let key = self.values.get(begin..end);
            begin = end;
            key
        })
    }
}

fn is_aligned(kind: u32) -> bool {
    matches!(kind, NUMBER | CONTAINER)
}

/// What becomes of a value.
enum Fate<'t> {
    Shown,
    Hidden,
    Within(&'t Node),
}

enum Step<'d> {
    Member(&'d [u8]),
    Element(usize),
}

struct Writer<'d> {
    /// Whether what no pointer names is shown.
    is_shown: bool,
    into: Vec<u8>,
    /// Something was left out.
    is_less: bool,
    /// To the value that is looked at.
    way: Vec<Step<'d>>,
    stray: Option<Stray>,
}

impl<'d> Writer<'d> {
    fn judge<'t>(&mut self, node: Option<&'t Node>, value: &Value) -> Option<Fate<'t>> {
        let fate = match node {
            None if self.is_shown => Fate::Shown,
            None => Fate::Hidden,
            Some(node) if node.is_end => {
                if self.is_shown {
                    Fate::Hidden
                } else {
                    Fate::Shown
                }
            }
            Some(_) if value.kind == NULL => Fate::Shown,
            Some(node) if value.kind == CONTAINER => {
                let container = Container::read(value.bytes)?;
                let leads = container.count == 0
                    || if container.is_object {
                        node.leads_through_object(container.keys())
                    } else {
                        node.leads_through_array()
                    };
                if leads { Fate::Within(node) } else { self.stray(value) }
            }
            Some(_) => self.stray(value),
        };
        self.is_less |= matches!(fate, Fate::Hidden);
        Some(fate)
    }

    fn stray<'t>(&mut self, value: &Value) -> Fate<'t> {
        if self.stray.is_none() {
            let step = |step: &Step| match step {
                Step::Member(key) => {
                    format!("/{}", String::from_utf8_lossy(key).replace('~', "~0").replace('/', "~1"))
                }
                Step::Element(place) => format!("/{place}"),
            };
            let pointer = self.way.iter().map(step).collect();
            self.stray = Some(Stray { pointer, kind: value.what() });
        }
        Fate::Hidden
    }

    /// Writes what is shown of a container. No deeper than the ways are long.
    fn container(&mut self, container: &Container<'d>, node: &Node) -> Option<()> {
        self.into.extend(container.header.to_ne_bytes());
        let entries = self.into.len();
        self.into.resize(entries + container.entries() * 4, 0);
        let values = self.into.len();
        let (mut begin, mut key_begin, mut first) = (0, 0, 0);
        if container.is_object && container.count > 0 {
            // Keys are shown as they are, and lie before all values.
            (first, begin) = (container.count, container.end(container.count - 1)?);
            self.into.get_mut(entries..entries + first * 4)?.copy_from_slice(container.entries.get(..first * 4)?);
            self.into.extend(container.values.get(..begin)?);
        }
        for place in first..container.entries() {
            let end = container.end_from(place, begin)?;
            let value = container.between(place, begin, end)?;
            begin = end;
            let before = self.into.len();
            let kind = if container.is_object {
                let key_end = container.end_from(place - container.count, key_begin)?;
                let key = container.values.get(key_begin..key_end)?;
                key_begin = key_end;
                self.value(Step::Member(key), node.member(key), &value)?
            } else {
                self.value(Step::Element(place), node.element(place), &value)?
            };
            let length = if place % STRIDE == 0 {
                (self.into.len() - values) as u32 | IS_END
            } else {
                (self.into.len() - before) as u32
            };
            self.into
                .get_mut(entries + place * 4..entries + place * 4 + 4)?
                .copy_from_slice(&(kind | length).to_ne_bytes());
        }
        Some(())
    }

    /// Writes a value, and says of which kind it is by then.
    fn value(&mut self, step: Step<'d>, node: Option<&Node>, value: &Value<'d>) -> Option<u32> {
        self.way.push(step);
        let fate = self.judge(node, value)?;
        if !matches!(fate, Fate::Hidden) && is_aligned(value.kind) {
            self.into.resize(self.into.len().next_multiple_of(4), 0);
        }
        match fate {
            Fate::Hidden => {}
            Fate::Shown => self.into.extend(value.bytes),
            Fate::Within(node) => self.container(&Container::read(value.bytes)?, node)?,
        }
        self.way.pop();
        Some(if matches!(fate, Fate::Hidden) { NULL } else { value.kind })
    }
}
