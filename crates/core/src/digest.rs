//! A digest over a set, whatever the order in which its members come: how many they are, and the sum of their hashes modulo 2^256. Owns the bytes that
//! are hashed. Called by conditions, and by verification, which compares two ways to the same set.
//!
//! Two sets of which neither was made for it have the same digest as rarely as two hashes are the same. Who could choose the members freely might look for a
//! set with a given sum; nobody can: an event's chain hash covers a salt that the server draws, and what a position is, the sequence says.

use crate::hash::Hash;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

const EVENT_DOMAIN: &[u8] = b"eventstream/condition/1\0";
const TAG_DOMAIN: &[u8] = b"eventstream/tag/1\0";

/// The digest of a set, of which nothing else is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    count: u64,
    /// Least significant first.
    sum: [u64; 4],
}

impl Digest {
    /// Of members that are counted already, and their sum as [`Digest::sum`] writes it; None where it is none.
    #[must_use]
    pub fn of(count: u64, sum: &str) -> Option<Self> {
        let is_hex = sum.len() == 64 && sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let part = |place: usize| u64::from_str_radix(sum.get(place * 16..place * 16 + 16)?, 16).ok();
        if !is_hex {
            return None;
        }
        Some(Self { count, sum: [part(3)?, part(2)?, part(1)?, part(0)?] })
    }

    /// Members.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum, as 64 hexadecimal digits.
    #[must_use]
    pub fn sum(&self) -> String {
        self.sum.iter().rev().fold(String::new(), |mut text, part| {
            let _ = write!(text, "{part:016x}");
            text
        })
    }

    /// One member more: the event at this position, with this chain hash.
    pub fn add_event(&mut self, position: i64, chain_hash: &Hash) {
        let mut hasher = Sha256::new();
        hasher.update(EVENT_DOMAIN);
        hasher.update(position.to_be_bytes());
        hasher.update(chain_hash);
        self.add(hasher.finalize().into());
    }

    /// One member more: a tag of the event at this position.
    pub fn add_tag(&mut self, tenant_id: i64, position: i64, tag: &str) {
        let mut hasher = Sha256::new();
        hasher.update(TAG_DOMAIN);
        hasher.update(tenant_id.to_be_bytes());
        hasher.update(position.to_be_bytes());
        hasher.update(tag.as_bytes());
        self.add(hasher.finalize().into());
    }

    fn add(&mut self, hash: Hash) {
        self.count = self.count.wrapping_add(1);
        let mut carry = false;
        for (part, bytes) in self.sum.iter_mut().zip(hash.rchunks_exact(8)) {
            let more = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
            let (with_more, first) = part.overflowing_add(more);
            let (with_carry, second) = with_more.overflowing_add(u64::from(carry));
            (*part, carry) = (with_carry, first || second);
        }
    }
}
