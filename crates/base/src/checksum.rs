//! The two checksums of our own formats.
//!
//! CRC-32C guards what is small or short-lived: a frame of a chunk, a row of the B-tree.
//! CRC-64/NVME guards headers that a recovery scan has to find among foreign bytes, where a chance
//! match in 2^32 would be too likely. Both run near memory speed.

use crc_fast::CrcAlgorithm;

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    narrow(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// CRC-32C of several pieces as if they were one.
pub fn crc32c_of(pieces: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    narrow(digest.finalize())
}

/// CRC-64/NVME (NVM Express NVM Command Set 1.0, section 5.2.1.3.4) of several pieces.
pub fn crc64_of(pieces: &[&[u8]]) -> u64 {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

fn narrow(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit CRC fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc64_of(&[b"123456789"]), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn pieces_are_one() {
        assert_eq!(crc32c_of(&[b"1234", b"", b"56789"]), crc32c(b"123456789"));
        assert_eq!(crc64_of(&[b"1", b"23456789"]), crc64_of(&[b"123456789"]));
    }
}
