//! A keyed permutation of `[0, n)` in constant memory, with random access.
//!
//! An alternating Feistel network over Z_a × Z_b, a = ⌈√n⌉, b = ⌈n/a⌉ (Black and Rogaway, "Ciphers with
//! arbitrary finite domains", 2002). With x = l·b + r, round i adds a keyed BLAKE3 of the other half:
//!
//! ```text
//! even i:  l ← (l + F(i, r)) mod a        odd i:  r ← (r + F(i, l)) mod b
//! F(i, v) = first 8 bytes, little-endian, of BLAKE3_key(i as u8 ‖ v as u64 LE)
//! ```
//!
//! Results outside `[0, n)` are put in again (cycle-walking); as a·b < n + 2√n + 1 that is rare.
//! Invariant: a pure function of (key, n, index); the same on every machine, for ever.

/// Rounds of the network; ten, as in the format-preserving mode FF1, because the domain may be small.
const ROUNDS: u8 = 10;

/// A bijection of `[0, n)` chosen by a 32-byte key.
#[derive(Clone, Debug)]
pub struct Permutation {
    key: [u8; 32],
    n: u64,
    a: u64,
    b: u64,
}

impl Permutation {
    /// The permutation of `[0, n)` that `key` chooses. An `n` of 0 is taken as 1.
    pub fn new(key: [u8; 32], n: u64) -> Self {
        let n = n.max(1);
        let root = n.isqrt();
        let a = if root * root == n { root } else { root + 1 };
        Self { key, n, a, b: n.div_ceil(a) }
    }

    /// The number of elements n.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Never true: a permutation has at least one element.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The element at position `index mod n`.
    pub fn at(&self, index: u64) -> u64 {
        let mut x = index % self.n;
        loop {
            x = self.once(x);
            if x < self.n {
                return x;
            }
        }
    }

    /// One pass through the network, a bijection of `[0, a·b)`.
    fn once(&self, x: u64) -> u64 {
        let (mut l, mut r) = (x / self.b, x % self.b);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                l = add_mod(l, self.prf(round, r), self.a);
            } else {
                r = add_mod(r, self.prf(round, l), self.b);
            }
        }
        l * self.b + r
    }

    /// F(i, v) of the module header.
    fn prf(&self, round: u8, value: u64) -> u64 {
        let mut input = [0u8; 9];
        input[0] = round;
        input[1..].copy_from_slice(&value.to_le_bytes());
        let hash = blake3::keyed_hash(&self.key, &input);
        let mut first = [0u8; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// (x + y) mod m for x < m ≤ 2³²+1, without overflow for any y.
fn add_mod(x: u64, y: u64, m: u64) -> u64 {
    (x + y % m) % m
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_element_once(n in 1u64..700, key in any::<[u8; 32]>()) {
            let p = Permutation::new(key, n);
            let mut seen = vec![false; usize::try_from(n).unwrap()];
            for i in 0..n {
                let x = usize::try_from(p.at(i)).unwrap();
                prop_assert!(!seen[x]);
                seen[x] = true;
            }
        }

        #[test]
        fn large_domains_stay_inside(n in 1u64.., i in any::<u64>()) {
            let p = Permutation::new([7; 32], n);
            prop_assert!(p.at(i) < n);
        }
    }

    #[test]
    fn positions_of_an_element_are_uniform() {
        // Chi-square over 16 places and 4,096 keys: mean 15, standard deviation √30; 15 + 6·√30 ≈ 48.
        let mut counts = [0f64; 16];
        for k in 0u32..4096 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&k.to_le_bytes());
            counts[usize::try_from(Permutation::new(key, 16).at(3)).unwrap()] += 1.0;
        }
        let chi: f64 = counts.iter().map(|c| (c - 256.0).powi(2) / 256.0).sum();
        assert!(chi < 48.0, "chi-square {chi}");
    }
}
