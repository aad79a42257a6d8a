//! The first page of a snapshot: what it is, and where its state lies.
//!
//! | offset | |
//! |---|---|
//! | 0 | magic, 8 bytes |
//! | 8 | version, u32 |
//! | 12 | checksum of the state, u32 |
//! | 16 | offset of the state, u64 |
//! | 24 | length of the state, u64; with it the file ends |
//! | 4092 | checksum of all before, u32 |
//!
//! Little-endian; checksums are CRC-32 (IEEE 802.3). Magic and version have their
//! place for all time, so that a program can say that a file is too new for it.

use super::error::Fault;

/// Bytes of the preamble; guest memory begins behind it.
pub(super) const LEN: usize = 4096;
/// The version of the format that this program writes and reads. A change of any
/// type in a [`SavedVm`](super::SavedVm) is another version.
pub const VERSION: u32 = 2;
/// More than any state has: a thousand vCPUs are some 20 MiB.
const STATE_MAX: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"KVMPVVM\x1a";
const CHECKSUM: usize = LEN - 4;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    /// Where the state begins.
    pub(super) state_at: u64,
    /// Its length, in bytes.
    pub(super) state_len: u64,
    /// Its checksum.
    pub(super) state_crc: u32,
}

impl Preamble {
    /// Its bytes.
    pub(super) fn encode(self) -> [u8; LEN] {
        let mut page = [0; LEN];
        let fields = [
            (0, MAGIC.as_slice()),
            (8, &VERSION.to_le_bytes()),
            (12, &self.state_crc.to_le_bytes()),
            (16, &self.state_at.to_le_bytes()),
            (24, &self.state_len.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            put(&mut page, at, bytes);
        }
        let crc = crc32fast::hash(page.get(..CHECKSUM).unwrap_or_default());
        put(&mut page, CHECKSUM, &crc.to_le_bytes());
        page
    }

    /// From a file's first bytes; the file has `file_len` of them.
    pub(super) fn decode(page: &[u8], file_len: u64) -> Result<Self, Fault> {
        if get(page, 0) != Some(*MAGIC) {
            return Err(Fault::NoSnapshot);
        }
        let number = |at| get(page, at).map(u32::from_le_bytes);
        let word = |at| get(page, at).map(u64::from_le_bytes);
        let (Some(version), Some(crc)) = (number(8), number(CHECKSUM)) else {
            return Err(Fault::Length {
                found: file_len,
                wanted: LEN as u64,
            });
        };
        let intact = page.get(..CHECKSUM).map(crc32fast::hash) == Some(crc);
        match version {
            VERSION if intact => {}
            // A version whose checksum may be elsewhere.
            VERSION => return Err(Fault::Preamble),
            found => {
                return Err(Fault::Version {
                    found,
                    known: VERSION,
                });
            }
        }
        let (Some(state_crc), Some(state_at), Some(state_len)) = (number(12), word(16), word(24))
        else {
            return Err(Fault::Preamble);
        };
        let end = state_at.checked_add(state_len);
        let end = end.filter(|_| state_at >= LEN as u64 && state_len <= STATE_MAX);
        match end {
            None => Err(Fault::Inconsistent("the place of its state")),
            Some(wanted) if wanted != file_len => Err(Fault::Length {
                found: file_len,
                wanted,
            }),
            Some(_) => Ok(Self {
                state_at,
                state_len,
                state_crc,
            }),
        }
    }
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    let places = page.iter_mut().skip(at);
    places.zip(bytes).for_each(|(place, &byte)| *place = byte);
}

fn get<const N: usize>(page: &[u8], at: usize) -> Option<[u8; N]> {
    page.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Preamble = Preamble {
        state_at: 0x5000,
        state_len: 0x123,
        state_crc: 0xdead_beef,
    };
    const FILE_LEN: u64 = 0x5123;

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(Preamble::decode(&SOME.encode(), FILE_LEN), Ok(SOME));
    }

    #[test]
    fn every_bit_counts() {
        let page = SOME.encode();
        for bit in 0..LEN * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            let fault = Preamble::decode(&page, FILE_LEN).unwrap_err();
            match bit / 8 {
                0..8 => assert_eq!(fault, Fault::NoSnapshot),
                8..12 => assert!(matches!(fault, Fault::Version { known: VERSION, .. })),
                _ => assert_eq!(fault, Fault::Preamble),
            }
        }
    }

    #[test]
    fn every_cut_is_one() {
        let page = SOME.encode();
        for len in 0..LEN {
            assert!(Preamble::decode(&page[..len], len as u64).is_err());
        }
        for found in [0x5122, 0x5124, u64::MAX] {
            let wanted = FILE_LEN;
            let fault = Preamble::decode(&page, found).unwrap_err();
            assert_eq!(fault, Fault::Length { found, wanted });
        }
    }

    #[test]
    fn no_place_of_the_state_overflows() {
        for (state_at, state_len) in [(u64::MAX, 2), (0, 0x5123), (0x5000, u64::MAX)] {
            let state_crc = 0;
            let page = Preamble {
                state_at,
                state_len,
                state_crc,
            };
            let fault = Preamble::decode(&page.encode(), FILE_LEN).unwrap_err();
            assert!(matches!(fault, Fault::Inconsistent(_)), "{fault}");
        }
    }
}
