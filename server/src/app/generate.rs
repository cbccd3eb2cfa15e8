//! Values that the manager draws itself, so that nobody ever has to know them.

use aws_lc_rs::rand;
use secretfs_wire::SecretBytes;
use zeroize::Zeroizing;

use crate::error::Error;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// The largest multiple of 62 that a byte reaches. Bytes from here on are thrown away: folding them
/// would draw the first letters more often than the others.
const FAIR_BELOW: u8 = 248;

/// How many characters to generate: 16 (95 bits) to 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length(usize);

impl Length {
    pub(crate) fn new(characters: usize) -> Option<Self> {
        (16..=1024).contains(&characters).then_some(Self(characters))
    }
}

/// Letters and digits, each as likely as any other.
pub(super) fn generate(Length(length): Length) -> Result<SecretBytes, Error> {
    let mut value = Zeroizing::new(Vec::with_capacity(length));
    let mut random = Zeroizing::new([0; 256]);
    while value.len() < length {
        rand::fill(random.as_mut()).map_err(|_| Error::internal("the system's random source failed"))?;
        let fair = random.iter().filter(|byte| **byte < FAIR_BELOW);
        let room = length - value.len();
        value.extend(fair.take(room).map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    }
    SecretBytes::new(std::mem::take(&mut *value)).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_asked_and_every_character_as_likely() {
        assert!(Length::new(15).is_none() && Length::new(1025).is_none());
        let mut counts = [0u32; 256];
        for _ in 0..62 {
            let value = generate(Length::new(1000).expect("a length")).expect("a value");
            assert_eq!(value.len(), 1000);
            value.expose_secret().iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        }
        // 1000 of each on average with a deviation of 31; folding would make some 1211 of eight.
        assert!(ALPHABET.iter().all(|c| (810..1190).contains(&counts[usize::from(*c)])), "{counts:?}");
        assert_eq!(counts.iter().sum::<u32>(), 62_000, "and nothing outside the alphabet");
        assert_eq!(ALPHABET.iter().map(|c| counts[usize::from(*c)]).sum::<u32>(), 62_000);
    }
}
