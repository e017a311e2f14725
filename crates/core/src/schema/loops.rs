//! Schemas that lead back to themselves without going deeper into the payload: judging by one has no end, and the library that judges stops there with a yes, so that it would judge nothing.
use std::collections::{BTreeMap, HashMap, HashSet};

/// Which schemas judge the very value that others judge.
#[derive(Default)]
pub struct Loops {
    /// The schema around one, by the places of both.
    around: HashMap<String, String>,
    /// Where references of each schema lead, with where they stand.
    leading: BTreeMap<String, Vec<(String, String)>>,
}

impl Loops {
    /// The schema at `place` judges what the one at `around` judges.
    pub fn note_same(&mut self, place: &str, around: &str) {
        self.around.insert(place.to_owned(), around.to_owned());
    }

    /// The reference at `pointer` of the schema at `place` leads to the schema at `to`.
    pub fn note_reference(&mut self, place: &str, pointer: &str, to: &str) {
        let mut of = Some(place);
        // Whoever comes to a schema around it comes to it, too.
        while let Some(schema) = of {
            self.leading.entry(schema.to_owned()).or_default().push((to.to_owned(), pointer.to_owned()));
            of = self.around.get(schema).map(String::as_str);
        }
    }

    /// A reference that closes a circle.
    pub fn find(&self) -> Option<&str> {
        let mut done = HashSet::new();
        self.leading.keys().find_map(|start| self.circle(start, &mut done))
    }

    /// Depth first, without a stack of calls: there may be thousands.
    fn circle<'l>(&'l self, start: &'l str, done: &mut HashSet<&'l str>) -> Option<&'l str> {
        let leading = |schema: &str| self.leading.get(schema).map_or(&[][..], Vec::as_slice).iter();
        let (mut path, mut on_path) = (vec![(start, leading(start))], HashSet::from([start]));
        while let Some((schema, left)) = path.last_mut() {
            let schema = *schema;
            match left.next() {
                Some((to, pointer)) if on_path.contains(to.as_str()) => return Some(pointer),
                Some((to, _)) if !done.contains(to.as_str()) => {
                    on_path.insert(to);
                    path.push((to, leading(to)));
                }
                Some(_) => {}
                None => {
                    path.pop();
                    on_path.remove(schema);
                    done.insert(schema);
                }
            }
        }
        None
    }
}
