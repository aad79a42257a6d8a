//! What a kernel file is, by its content.

/// Magic of a multiboot 1 header, within the first 8 KiB, on a 4-byte boundary.
pub const MULTIBOOT_MAGIC: u32 = 0x1bad_b002;
/// How far a multiboot header may be from the start of its file.
pub const MULTIBOOT_SEARCH: usize = 8192;
/// As much of a file as [`Format::of`] wants to see.
pub const HEAD: usize = MULTIBOOT_SEARCH;

/// A kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Linux, compressed, with its setup header.
    BzImage,
    /// A 64-bit x86 ELF file without a multiboot header: Linux' vmlinux.
    Elf,
    /// Multiboot 1, with its header at this offset.
    Multiboot(usize),
}

/// What a file that can't be booted looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbootable {
    /// It has no byte.
    #[error("is empty")]
    Empty,
    /// An ELF file of another kind.
    #[error("is an ELF file, but neither 64-bit x86 nor with a multiboot header")]
    OtherElf,
    /// A compressed file or archive.
    #[error("is {0} data: unpack it first")]
    Packed(&'static str),
    /// Something else that has a name.
    #[error("is {0}")]
    Other(&'static str),
    /// It begins like no kernel.
    #[error(
        "has no known format: it starts with {0:02x?}, and there is no Linux setup header, no ELF \
         header and no multiboot header in it"
    )]
    Unknown([u8; 4]),
}

/// The little-endian word at `offset`.
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// The little-endian half word at `offset`.
pub fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

/// Offset of a multiboot header, known by its magic and its checksum.
pub fn multiboot_header(head: &[u8]) -> Option<usize> {
    let end = head.len().min(MULTIBOOT_SEARCH);
    (0..end).step_by(4).find(|&offset| {
        let field = |i: usize| word(head, offset + 4 * i).filter(|_| offset + 4 * i + 4 <= end);
        let (Some(magic), Some(flags), Some(checksum)) = (field(0), field(1), field(2)) else {
            return false;
        };
        magic == MULTIBOOT_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
    })
}

/// Names for what starts with these bytes.
const OTHERS: &[(&[u8], Unbootable)] = &[
    (b"\x1f\x8b", Unbootable::Packed("gzip")),
    (b"\xfd7zXZ\0", Unbootable::Packed("xz")),
    (b"\x28\xb5\x2f\xfd", Unbootable::Packed("zstd")),
    (b"BZh", Unbootable::Packed("bzip2")),
    (b"\x02\x21\x4c\x18", Unbootable::Packed("lz4")),
    (b"!<arch>\n", Unbootable::Packed("ar (a Debian package?)")),
    (
        b"070701",
        Unbootable::Other("a cpio archive: an initrd, not a kernel"),
    ),
    (b"#!", Unbootable::Other("a script")),
    (
        b"MZ",
        Unbootable::Other("an EFI or DOS program without a Linux setup header"),
    ),
];

impl Format {
    /// Decides by the first [`HEAD`] bytes of a file, or all if it has fewer.
    pub fn of(head: &[u8]) -> Result<Self, Unbootable> {
        if let Some(offset) = multiboot_header(head) {
            return Ok(Self::Multiboot(offset));
        }
        // Documentation/arch/x86/boot.rst: boot_flag and header.
        if half(head, 0x1fe) == Some(0xaa55) && head.get(0x202..0x206) == Some(b"HdrS") {
            return Ok(Self::BzImage);
        }
        if head.starts_with(b"\x7fELF") {
            // EI_CLASS 64-bit, EI_DATA little-endian, e_machine x86-64.
            let x86_64 = head.get(4..6) == Some(&[2, 1]) && half(head, 18) == Some(62);
            return if x86_64 {
                Ok(Self::Elf)
            } else {
                Err(Unbootable::OtherElf)
            };
        }
        if head.is_empty() {
            return Err(Unbootable::Empty);
        }
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(*what);
        }
        let mut start = [0; 4];
        for (to, from) in start.iter_mut().zip(head) {
            *to = *from;
        }
        Err(Unbootable::Unknown(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiboot_header_counts_only_whole_aligned_and_with_its_checksum() {
        let flags = 3u32;
        let sum = 0u32.wrapping_sub(MULTIBOOT_MAGIC).wrapping_sub(flags);
        let mut header = Vec::new();
        for word in [MULTIBOOT_MAGIC, flags, sum] {
            header.extend(word.to_le_bytes());
        }
        let at = |offset: usize| {
            let mut file = vec![0u8; offset];
            file.extend(&header);
            file
        };
        for offset in [0, 4, 8180] {
            assert_eq!(Format::of(&at(offset)), Ok(Format::Multiboot(offset)));
        }
        for offset in [1, 2, 8184, 8192] {
            assert!(Format::of(&at(offset)).is_err(), "at {offset}");
        }
        let mut wrong = at(4);
        wrong[8] ^= 1;
        assert!(Format::of(&wrong).is_err());
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let name = |bytes: &[u8]| Format::of(bytes).unwrap_err().to_string();
        assert!(name(b"").contains("empty"));
        assert!(name(b"\x1f\x8b\x08").contains("gzip"));
        assert!(name(b"#!/bin/sh\n").contains("script"));
        assert!(name(b"\x7fELF\x01\x01\x01").contains("ELF"));
        assert!(
            name(b"abc").contains("[61, 62, 63, 00]"),
            "{}",
            name(b"abc")
        );
    }
}
