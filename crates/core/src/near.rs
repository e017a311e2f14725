//! Which of several names somebody meant who wrote another one. A guess for hints: nothing depends on it.
//!
//! Promises: for one name it takes time that grows with its length, whatever it is compared with.

/// So many letters that are wrong, missing or too many are a slip; more are another name.
const MOST_SLIPS: usize = 3;

/// Puts those first that are few slips away from `name`, the nearest first; the others keep their order.
pub fn nearest_first(name: &str, names: &mut [String]) {
    names.sort_by_cached_key(|other| slips(name, other).unwrap_or(usize::MAX));
}

/// How many letters are wrong, missing or too many, capitals or not; None: more than a few. Levenshtein's distance, near the diagonal only.
fn slips(name: &str, other: &str) -> Option<usize> {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (name, other) = (letters(name), letters(other));
    if name.len().abs_diff(other.len()) > MOST_SLIPS {
        return None;
    }
    let far = MOST_SLIPS + 1;
    let mut above: Vec<usize> = (0..=other.len()).map(|column| column.min(far)).collect();
    for (row, letter) in name.iter().enumerate() {
        let mut here = vec![far; other.len() + 1];
        if let Some(first) = here.first_mut() {
            *first = (row + 1).min(far);
        }
        let (from, to) = ((row + 1).saturating_sub(MOST_SLIPS).max(1), (row + 1 + MOST_SLIPS).min(other.len()));
        for column in from..=to {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(far);
            let changed = at(&above, column - 1) + usize::from(other.get(column - 1) != Some(letter));
            let best = changed.min(at(&above, column) + 1).min(at(&here, column - 1) + 1);
            if let Some(cell) = here.get_mut(column) {
                *cell = best.min(far);
            }
        }
        above = here;
    }
    above.last().copied().filter(|&slips| slips <= MOST_SLIPS)
}
