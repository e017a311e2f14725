//! Pages: where the answer to a query goes on. A page is a position and a seal over it: HMAC-SHA-256 (RFC 2104) under a key that never leaves the database, over the query,
//! who asks, and where. Whoever has a page can go on with the query that it is of, in no other way, and has learnt a position that he was shown anyway.
//!
//! Promises: what is no page of exactly this query is none, wherever one bit of it is another; to compare two seals takes the same time wherever they differ.

use crate::hash::{Hash, Uuid};
use sha2::{Digest, Sha256};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Characters of a page: 16 digits of its position, and 64 of its seal.
const PAGE_CHARACTERS: usize = 80;
/// What a hash of SHA-256 takes in at a time, in bytes.
const BLOCK: usize = 64;

const QUERY_DOMAIN: &[u8] = b"eventstream/query/1\0";
const PAGE_DOMAIN: &[u8] = b"eventstream/page/1\0";
const KEY_DOMAIN: &[u8] = b"eventstream/page-key/1\0";

/// HMAC-SHA-256 of the parts, one after the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> Hash {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

/// The key of a tenant that has not changed its own, from the database's.
#[must_use]
pub fn first_key(of_database: &[u8], tenant_uuid: &Uuid) -> Hash {
    hmac(of_database, &[KEY_DOMAIN, tenant_uuid])
}

/// What a page is of.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Server and database.
    pub place: &'a [u8],
    /// The log's, and the tenant's.
    pub log_id: &'a Uuid,
    #[allow(missing_docs)]
    pub tenant_uuid: &'a Uuid,
    /// The categories that the role may read; None: all.
    pub scope: Option<&'a [String]>,
    /// As PostgreSQL prints them.
    pub criteria: &'a [u8],
    /// What their times mean, in microseconds.
    pub times: &'a [i64],
    #[allow(missing_docs)]
    pub is_backward: bool,
}

impl Query<'_> {
    /// All of it, each part with its length before it: no two queries are the same bytes.
    fn framed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut frame = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        frame(self.place);
        frame(self.log_id);
        frame(self.tenant_uuid);
        frame(&[u8::from(self.scope.is_some()), u8::from(self.is_backward)]);
        let scope = self.scope.unwrap_or_default();
        frame(&(scope.len() as u64).to_be_bytes());
        scope.iter().for_each(|category| frame(category.as_bytes()));
        self.times.iter().for_each(|time| frame(&time.to_be_bytes()));
        frame(self.criteria);
        bytes
    }
}

/// What seals the pages of one query.
#[derive(Debug, Clone)]
pub struct Sealer(Hash);

impl Sealer {
    /// Under a key.
    #[must_use]
    pub fn new(key: &[u8], query: &Query) -> Self {
        Self(hmac(key, &[QUERY_DOMAIN, &query.framed()]))
    }

    fn seal(&self, position: i64) -> Hash {
        hmac(&self.0, &[PAGE_DOMAIN, &position.to_be_bytes()])
    }

    /// The page that goes on after an event.
    #[must_use]
    pub fn page(&self, position: i64) -> String {
        use std::fmt::Write;
        let mut page = format!("{position:016x}");
        for byte in self.seal(position) {
            let _ = write!(page, "{byte:02x}");
        }
        page
    }
}

/// The position that a page goes on after; None where none of these sealers made it.
#[must_use]
pub fn open(page: &str, sealers: &[Sealer]) -> Option<i64> {
    let page = page.as_bytes();
    if page.len() != PAGE_CHARACTERS || !page.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let digits = |from: usize, to: usize| std::str::from_utf8(&page[from..to]).unwrap_or_default();
    let position = i64::try_from(u64::from_str_radix(digits(0, 16), 16).ok()?).ok()?;
    let mut given = [0; 32];
    for (place, byte) in given.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits(16 + 2 * place, 18 + 2 * place), 16).ok()?;
    }
    let is_one = sealers.iter().fold(false, |is_one, sealer| is_same(&sealer.seal(position), &given) | is_one);
    is_one.then_some(position)
}

/// Looks at every byte, wherever they differ.
fn is_same(a: &Hash, b: &Hash) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(hash: Hash) -> String {
        hash.map(|byte| format!("{byte:02x}")).concat()
    }

    /// Test cases 1, 2, 3 and 6 of RFC 4231.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let cases: [(&[u8], &[u8], &str); 4] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, expected) in cases {
            assert_eq!(text(hmac(key, &[data])), expected);
            let (first, second) = data.split_at(3);
            assert_eq!(text(hmac(key, &[first, second])), expected);
        }
    }

    fn sealer(key: u8, scope: Option<&[String]>, criteria: &str, is_backward: bool) -> Sealer {
        let query = Query {
            place: b"1/2",
            log_id: &[1; 16],
            tenant_uuid: &[2; 16],
            scope,
            criteria: criteria.as_bytes(),
            times: &[0, 1],
            is_backward,
        };
        Sealer::new(&[key; KEY_BYTES], &query)
    }

    #[test]
    fn a_page_is_of_its_query_and_of_nothing_else() {
        let own = sealer(1, None, "{}", false);
        let page = own.page(77);
        assert_eq!(page.len(), PAGE_CHARACTERS);
        assert_eq!(open(&page, std::slice::from_ref(&own)), Some(77));
        let (a, ab) = (["a".to_owned()], ["ab".to_owned()]);
        for other in [
            sealer(2, None, "{}", false),
            sealer(1, Some(&[]), "{}", false),
            sealer(1, Some(&a), "{}", false),
            sealer(1, None, "{} ", false),
            sealer(1, None, "{}", true),
        ] {
            assert_eq!(open(&page, std::slice::from_ref(&other)), None);
            assert_eq!(open(&page, &[other.clone(), own.clone()]), Some(77));
            assert_eq!(open(&page, &[own.clone(), other]), Some(77));
        }
        assert_ne!(sealer(1, Some(&a), "b{}", false).0, sealer(1, Some(&ab), "{}", false).0);
        assert_ne!(sealer(1, Some(&a), "{}", false).0, sealer(1, Some(&ab), "{}", false).0);
    }

    #[test]
    fn a_bit_elsewhere_makes_it_none() {
        let own = sealer(1, None, "{}", false);
        let page = own.page(0x0123_4567_89ab_cdef);
        for place in 0..page.len() {
            for bit in 0..7 {
                let mut bytes = page.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let other = String::from_utf8(bytes).unwrap_or_default();
                assert_eq!(open(&other, std::slice::from_ref(&own)), None, "{other}");
            }
        }
        for wrong in ["", "é", &page[1..], &format!("{page}0"), &page.to_uppercase(), &format!("+{}", &page[1..])] {
            assert_eq!(open(wrong, std::slice::from_ref(&own)), None, "{wrong}");
        }
    }
}
