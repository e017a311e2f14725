//! What looks like personal data in a name: an e-mail address, a telephone number, the number of a payment card. Names are kept for ever, stand in
//! indexes and are told in errors, so a category may refuse such ones. It is a guess by the form: what is neither international, nor in brackets, nor in the groups of a number that is dialled within a country, nor called a
//! telephone number is taken for a number of something else, and identifiers (UUIDs, ULIDs, dates, IBANs, numbers of orders) pass.

use std::fmt;

/// What a name looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the values are what their names say
pub enum Looks {
    EMail,
    Telephone,
    Card,
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::EMail => "an e-mail address",
            Self::Telephone => "a telephone number",
            Self::Card => "the number of a payment card",
        })
    }
}

/// What a text, or a part of it, looks like; None where it may be anything.
#[must_use]
pub fn looks_like(text: &str) -> Option<Looks> {
    if is_email(text) {
        return Some(Looks::EMail);
    }
    // Most names are words.
    if text.bytes().filter(u8::is_ascii_digit).count() < *DIGITS.start() {
        return None;
    }
    if is_card(text) {
        Some(Looks::Card)
    } else if is_telephone(text) {
        Some(Looks::Telephone)
    } else {
        None
    }
}

/// The sign of an address, also as it is written small, in full width, and in URLs.
const AT_SIGNS: [&str; 4] = ["@", "\u{FE6B}", "\u{FF20}", "%40"];

/// Something before a sign, and after it a domain with a point in it.
fn is_email(text: &str) -> bool {
    let is_local = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-\"".contains(c);
    AT_SIGNS.iter().any(|sign| {
        text.match_indices(sign).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + sign.len()..]);
            let end = after.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.')).unwrap_or(after.len());
            let domain = after[..end].trim_end_matches(['.', '-']);
            let is_domain = domain.rsplit_once('.').is_some_and(|(rest, top)| {
                rest.starts_with(char::is_alphanumeric)
                    && top.chars().count() > 1
                    && top.starts_with(char::is_alphabetic)
            });
            before.chars().next_back().is_some_and(is_local) && is_domain
        })
    })
}

/// Letters and digits that stand together, and what stands before them.
struct Word<'a> {
    before: &'a str,
    text: &'a str,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let (mut words, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find(char::is_alphanumeric) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_alphanumeric()).unwrap_or(from.len());
        let (text, after) = from.split_at(end);
        words.push(Word { before, text });
        rest = after;
    }
    words
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// How the numbers of cards are written in groups.
const GROUPS: [&[usize]; 5] = [&[4, 4, 4, 4], &[4, 4, 4, 4, 3], &[4, 4, 4, 4, 2], &[4, 6, 5], &[4, 6, 4]];

/// A number of an issuer's range and length with a right check digit (ISO/IEC 7812), in one piece, or in the groups that are usual.
fn is_card(text: &str) -> bool {
    let words = words(text);
    if words.iter().any(|word| is_card_number(word.text)) {
        return true;
    }
    (0..words.len()).any(|first| {
        // Behind the head of an IBAN comes an account.
        let is_of_iban = first.checked_sub(1).and_then(|before| words.get(before)).is_some_and(|before| {
            let mut head = before.text.bytes();
            before.text.len() == 4
                && head.by_ref().take(2).all(|byte| byte.is_ascii_alphabetic())
                && head.all(|byte| byte.is_ascii_digit())
        });
        !is_of_iban
            && GROUPS.iter().any(|groups| {
                let Some(found) = words.get(first..first + groups.len()) else { return false };
                let is_grouped = found.iter().zip(*groups).all(|(word, &length)| word.text.len() == length)
                    && found.iter().skip(1).all(|word| matches!(word.before, " " | "-" | "." | "\u{A0}"));
                is_grouped && is_card_number(&found.iter().map(|word| word.text).collect::<String>())
            })
    })
}

fn is_card_number(number: &str) -> bool {
    is_digits(number) && is_of_an_issuer(number) && has_check_digit(number)
}

fn is_of_an_issuer(number: &str) -> bool {
    let length = number.len();
    let head = |digits: usize| number.get(..digits).and_then(|head| head.parse::<u32>().ok()).unwrap_or(0);
    match (head(1), head(2), head(3), head(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 34 | 37, ..) => length == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => length == 14,
        (_, 51..=55, ..) | (_, _, _, 2221..=2720 | 3528..=3589) => length == 16,
        (_, 62 | 64 | 65, ..) | (_, _, _, 6011) => (16..=19).contains(&length),
        (_, 50 | 56..=58 | 63 | 67..=69, ..) => (16..=19).contains(&length),
        _ => false,
    }
}

/// Luhn's formula.
fn has_check_digit(number: &str) -> bool {
    let sum: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit.wrapping_sub(b'0'));
            if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// What stands before a number that is one of a telephone.
const CALLED: [&str; 6] = ["tel", "telephone", "telefon", "phone", "mobile", "fax"];
/// As many digits as a number of a telephone has, with the code of the country or without.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// In the international form (+43 664 1234567), as (555) 123-4567, or behind a word that calls it one.
fn is_telephone(text: &str) -> bool {
    let words = words(text);
    words.iter().enumerate().any(|(first, word)| {
        let rest = words.get(first..).unwrap_or_default();
        let follows = |next: &Word| is_digits(next.text) && is_between_digits(next.before);
        let run = 1 + rest.iter().skip(1).take_while(|next| follows(next)).count();
        let digits: usize = rest.iter().take(run).map(|word| word.text.len()).sum();
        let is_called = first
            .checked_sub(1)
            .and_then(|before| words.get(before))
            .is_some_and(|before| CALLED.contains(&before.text.to_lowercase().as_str()))
            && !word.before.contains(['-', '_']);
        let is_bracketed = word.before.ends_with('(')
            && word.text.len() == 3
            && rest.get(1).is_some_and(|next| next.before.starts_with(')') && next.text.len() == 3)
            && rest.get(2).is_some_and(|next| next.text.len() == 4);
        // Not within a word, as a+1234567.
        let is_sign = word.before.ends_with('+') && (first == 0 || word.before.len() > 1);
        let is_international = is_sign && !word.text.starts_with('0');
        let is_national = is_national(words.get(..first).unwrap_or_default(), rest.get(..run).unwrap_or_default());
        is_digits(word.text)
            && DIGITS.contains(&digits)
            && (is_called || is_bracketed || is_international || is_national)
    })
}

/// As many digits as a number has that is dialled within a country.
const NATIONAL: std::ops::RangeInclusive<usize> = 9..=13;

/// As 0664 1234567, 0664/1234567 or 06 12 34 56 78: one 0 before a code that a blank or a slash ends. Hyphens and points stand in dates and in numbers of accounts and orders, two zeros before
/// what was filled up, and more groups before it are those of an IBAN.
fn is_national(before: &[Word], groups: &[Word]) -> bool {
    let [code, rest @ ..] = groups else { return false };
    let has_one_zero = code.text.starts_with('0') && !code.text.starts_with("00");
    let is_behind_digits = before.last().is_some_and(|word| word.text.bytes().any(|byte| byte.is_ascii_digit()));
    let digits = groups.iter().map(|word| word.text.len()).sum();
    let is_coded = (3..=5).contains(&code.text.len())
        && rest.first().is_some_and(|word| matches!(word.before, " " | "/" | "\u{A0}") && word.text.len() > 2);
    let is_in_pairs = groups.len() == 5
        && groups.iter().all(|word| word.text.len() == 2)
        && rest.iter().all(|word| matches!(word.before, " " | "\u{A0}"));
    has_one_zero && !is_behind_digits && NATIONAL.contains(&digits) && (is_coded || is_in_pairs)
}

fn is_between_digits(between: &str) -> bool {
    between.chars().count() <= 3 && between.chars().all(|c| " -./()\u{A0}".contains(c))
}
