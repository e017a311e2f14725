//! Pointers as one tree, in which each value of a document is met by one node at most.
use crate::rules::{Pointer, Token};

/// The most nodes.
const MOST_NODES: usize = 4096;

/// Where pointers lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways(Option<Node>);

/// What is said of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// A pointer ends here; none that goes on counts.
    pub(super) is_end: bool,
    /// Members, by their keys.
    members: Vec<(String, Node)>,
    /// Some of these are no elements: the value may be an object, whatever its keys are.
    has_names: bool,
    /// Elements, by their places, with all that is said of any.
    places: Vec<(usize, Node)>,
    /// Any other element.
    every: Option<Box<Node>>,
}

impl Ways {
    pub(super) fn new(pointers: &[Pointer]) -> Result<Self, String> {
        let rests: Vec<Vec<&Token>> = pointers.iter().map(|pointer| pointer.tokens().collect()).collect();
        let rests: Vec<&[&Token]> = rests.iter().map(Vec::as_slice).collect();
        let mut left = MOST_NODES;
        let root = if rests.is_empty() { None } else { Some(Node::new(&rests, &mut left)?) };
        Ok(Self(root))
    }

    pub(super) fn is_nowhere(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn root(&self) -> Option<&Node> {
        self.0.as_ref()
    }

    /// How a way through a document meets them: where it leads through an array, or an object, whatever it turns out to be. A step that is None is any member's key: `is_any` says whether one
    /// that they name is looked for, else one that they do not.
    pub(super) fn meet<'s>(&self, mut steps: impl Iterator<Item = Option<&'s Token>>, is_any: bool) -> Met {
        let mut at: Vec<&Node> = self.root().into_iter().collect();
        loop {
            if at.iter().any(|node| node.is_end) {
                return Met::End;
            }
            at = match (at.is_empty(), steps.next()) {
                (true, _) => return Met::Nowhere,
                (_, None) => return Met::GoOn,
                (_, Some(Some(token))) => at.into_iter().flat_map(|node| node.step(token)).collect(),
                (_, Some(None)) if is_any => at.into_iter().flat_map(Node::each_member).collect(),
                (_, Some(None)) => return Met::Nowhere,
            };
        }
    }
}

/// What a way through a document meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// One of them ends on it, or where it leads to.
    End,
    /// One of them goes on from there.
    GoOn,
    /// None leads there.
    Nowhere,
}

impl Node {
    /// Of what is left of pointers behind the value.
    fn new(rests: &[&[&Token]], left: &mut usize) -> Result<Self, String> {
        *left = left.checked_sub(1).ok_or("must not lead so many ways: * and numbers meet in too many places")?;
        if rests.iter().any(|rest| rest.is_empty()) {
            return Ok(Self { is_end: true, ..Self::default() });
        }
        let firsts: Vec<(&Token, &[&Token])> =
            rests.iter().filter_map(|rest| rest.split_first().map(|(first, rest)| (*first, rest))).collect();
        let mut node = Self::default();
        for &(first, _) in &firsts {
            if node.members.iter().all(|(key, _)| key != first.as_str()) {
                let same: Vec<_> =
                    firsts.iter().filter(|(token, _)| token.as_str() == first.as_str()).map(|of| of.1).collect();
                node.members.push((first.as_str().to_owned(), Self::new(&same, left)?));
            }
            node.has_names |= !is_any(first) && first.index().is_none();
            if let Some(place) = first.index()
                && node.places.iter().all(|(known, _)| *known != place)
            {
                let met = firsts.iter().filter(|(token, _)| is_any(token) || token.index() == Some(place));
                let met: Vec<_> = met.map(|of| of.1).collect();
                node.places.push((place, Self::new(&met, left)?));
            }
        }
        let any: Vec<_> = firsts.iter().filter(|(token, _)| is_any(token)).map(|of| of.1).collect();
        if !any.is_empty() {
            node.every = Some(Box::new(Self::new(&any, left)?));
        }
        Ok(node)
    }

    /// Of an object, and of an array.
    fn step(&self, token: &Token) -> impl Iterator<Item = &Self> {
        self.member(token.as_str().as_bytes()).into_iter().chain(token.index().and_then(|place| self.element(place)))
    }

    fn each_member(&self) -> impl Iterator<Item = &Self> {
        self.members.iter().map(|(_, node)| node)
    }

    pub(super) fn member(&self, key: &[u8]) -> Option<&Self> {
        self.members.iter().find(|(known, _)| known.as_bytes() == key).map(|(_, node)| node)
    }

    pub(super) fn element(&self, place: usize) -> Option<&Self> {
        self.places.iter().find(|(known, _)| *known == place).map(|(_, node)| node).or(self.every.as_deref())
    }

    /// Whether each way goes on through an object with these keys: a key that none of them names must be none that a step through an array could have meant.
    pub(super) fn leads_through_object<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        if !self.leads_through_array() {
            return self.has_names;
        }
        let mut leads = self.has_names;
        for key in keys {
            if self.member(key).is_some() {
                leads = true;
            } else if self.every.is_some() || !self.places.is_empty() && key.iter().all(u8::is_ascii_digit) {
                return false;
            }
        }
        leads
    }

    /// Whether a way goes on through an array.
    pub(super) fn leads_through_array(&self) -> bool {
        self.every.is_some() || !self.places.is_empty()
    }
}

fn is_any(token: &Token) -> bool {
    token.as_str() == "*"
}
