//! Schemas that lead back to themselves without going deeper into the payload: judging by one has no end, and the library that judges stops there with a yes.

/// Which schemas judge the very value that others judge. Schemas and references go by their numbers.
#[derive(Default)]
pub struct Loops {
    /// Where each schema leads.
    steps: Vec<Vec<Step>>,
}

struct Step {
    to: usize,
    /// The reference that leads there; None: that schema stands within.
    by: Option<usize>,
}

/// What is known of a schema while circles are looked for.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    No,
    OnPath,
    Done,
}

impl Loops {
    /// The number of one more schema.
    pub fn add(&mut self) -> usize {
        self.steps.push(Vec::new());
        self.steps.len() - 1
    }

    /// The schema `inner` stands within that one, and judges what it judges.
    pub fn note_same(&mut self, schema: usize, inner: usize) {
        self.steps[schema].push(Step { to: inner, by: None });
    }

    /// That reference of that schema leads to the schema `to`.
    pub fn note_reference(&mut self, schema: usize, reference: usize, to: usize) {
        self.steps[schema].push(Step { to, by: Some(reference) });
    }

    /// A reference that a circle is closed by.
    pub fn find(&self) -> Option<usize> {
        let mut seen = vec![Seen::No; self.steps.len()];
        (0..self.steps.len()).find_map(|start| self.circle(start, &mut seen))
    }

    /// Depth first, each step once, and without a stack of calls: there may be thousands.
    fn circle(&self, start: usize, seen: &mut [Seen]) -> Option<usize> {
        if seen[start] == Seen::Done {
            return None;
        }
        seen[start] = Seen::OnPath;
        let mut path = vec![(start, None, self.steps[start].iter())];
        while let Some((schema, _, left)) = path.last_mut() {
            let schema = *schema;
            match left.next() {
                // No circle is of schemas within schemas alone: so the last reference before such a step is in it.
                Some(step) if seen[step.to] == Seen::OnPath => {
                    return step.by.or_else(|| path.iter().rev().find_map(|(_, by, _)| *by));
                }
                Some(step) if seen[step.to] == Seen::No => {
                    seen[step.to] = Seen::OnPath;
                    path.push((step.to, step.by, self.steps[step.to].iter()));
                }
                Some(_) => {}
                None => {
                    path.pop();
                    seen[schema] = Seen::Done;
                }
            }
        }
        None
    }

    #[cfg(test)]
    pub fn count_steps(&self) -> usize {
        self.steps.iter().map(Vec::len).sum()
    }
}
