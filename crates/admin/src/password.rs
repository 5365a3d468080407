//! Generated passwords.

use base::env::Entropy;

/// Draws a password of 120 bits.
pub fn generate(entropy: &dyn Entropy) -> String {
    /// Crockford's: no letter looks like a digit. 32 of them, so that five bits choose one.
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    const LETTERS: usize = 24;
    let mut bytes = [0; LETTERS];
    entropy.fill(&mut bytes);
    let letters = bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)]);
    letters.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_long_and_differ() {
        let entropy = base::env::Env::real().entropy;
        let one = generate(&*entropy);
        assert_eq!(one.len(), 24);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, generate(&*entropy));
    }
}
