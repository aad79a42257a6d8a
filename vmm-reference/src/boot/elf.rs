//! ELF files: their segments, by the program headers of either class.

use super::format::{half, word};

/// Headers are looked for in this much of a file: all the program headers that
/// there can be, 65,535 of 56 bytes, and what usually comes before them.
pub(super) const HEADERS: usize = 4 << 20;

const ELF_PT_LOAD: u32 = 1;
const ELF_PT_NOTE: u32 = 4;
/// Linux has two segments of notes, of a few hundred bytes. They are read note by
/// note.
const NOTE_SEGMENTS: usize = 16;
const NOTE_BYTES: u64 = 64 << 10;
const ELF_MACHINE_386: u16 = 3;
const ELF_MACHINE_X86_64: u16 = 62;

/// What is wrong with an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Another file, or for another machine.
    #[error("it is no ELF file for x86")]
    NotX86,
    /// It is shorter than its header.
    #[error("the file ends in its ELF header")]
    Header,
    /// They are not where this looks for them.
    #[error("its program headers are not in the file, or not in its first {} MiB", HEADERS >> 20)]
    ProgramHeaders,
    /// Too much to look through.
    #[error(
        "it has {segments} segments of notes with {bytes} bytes, and {NOTE_SEGMENTS} with \
         {NOTE_BYTES} are the most"
    )]
    Notes {
        /// Number of PT_NOTE segments.
        segments: usize,
        /// Bytes of the file in them.
        bytes: u64,
    },
    /// More bytes in the file than in memory.
    #[error("a segment of it is larger than its place in memory")]
    Segment,
}

/// A part of the file and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes of memory, at least `file_bytes`: the rest is zero.
    pub memory_bytes: u64,
}

impl Segment {
    /// Behind its last byte of memory.
    pub(super) fn end(&self) -> u64 {
        self.gpa.saturating_add(self.memory_bytes)
    }
}

/// Bytes of the file in all of these; one that is in several counts as often.
pub(super) fn file_bytes(segments: &[Segment]) -> u64 {
    let bytes = segments.iter().map(|segment| segment.file_bytes);
    bytes.fold(0, u64::saturating_add)
}

/// What of an ELF program header matters.
struct ProgramHeader {
    kind: u32,
    segment: Segment,
    virtual_address: u64,
}

/// The program headers of the 32-bit or 64-bit x86 ELF file that begins with
/// `image`, and its entry point.
fn headers(image: &[u8]) -> Result<(Vec<ProgramHeader>, u64), ElfError> {
    let machine = half(image, 18);
    let wide = match (image.get(..6), machine) {
        (Some(b"\x7fELF\x01\x01"), Some(ELF_MACHINE_386)) => false,
        (Some(b"\x7fELF\x02\x01"), Some(ELF_MACHINE_X86_64)) => true,
        _ => return Err(ElfError::NotX86),
    };
    let (entry, table, size, count) = if wide {
        (
            double(image, 24),
            double(image, 32),
            half(image, 54),
            half(image, 56),
        )
    } else {
        let wide_word = |offset| word(image, offset).map(u64::from);
        (
            wide_word(24),
            wide_word(28),
            half(image, 42),
            half(image, 44),
        )
    };
    let (Some(entry), Some(table), Some(size), Some(count)) = (entry, table, size, count) else {
        return Err(ElfError::Header);
    };
    let header = |i| {
        u64::from(size)
            .checked_mul(i)
            .and_then(|offset| table.checked_add(offset))
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|offset| program_header(image, offset, wide))
            .ok_or(ElfError::ProgramHeaders)
    };
    let headers = (0..u64::from(count)).map(header);
    Ok((headers.collect::<Result<_, _>>()?, entry))
}

/// The segments of the 32-bit or 64-bit x86 ELF file that begins with `image`,
/// and its entry point's GPA.
pub(super) fn read(image: &[u8]) -> Result<(Vec<Segment>, u64), ElfError> {
    let (headers, entry) = headers(image)?;
    let mut segments = Vec::new();
    let mut physical_entry = entry;
    for header in headers {
        let segment = header.segment;
        if header.kind != ELF_PT_LOAD || segment.memory_bytes == 0 {
            continue;
        }
        if segment.memory_bytes < segment.file_bytes {
            return Err(ElfError::Segment);
        }
        // An entry point is a virtual address; there is no paging yet.
        if let Some(offset) = entry.checked_sub(header.virtual_address)
            && offset < segment.memory_bytes
        {
            physical_entry = segment.gpa.saturating_add(offset);
        }
        segments.push(segment);
    }
    Ok((segments, physical_entry))
}

/// An error if there are more notes than anybody has a use for.
pub(super) fn check_notes(image: &[u8]) -> Result<(), ElfError> {
    let (headers, _) = headers(image)?;
    let notes = headers.iter().filter(|header| header.kind == ELF_PT_NOTE);
    let notes: Vec<Segment> = notes.map(|header| header.segment).collect();
    let (segments, bytes) = (notes.len(), file_bytes(&notes));
    if segments > NOTE_SEGMENTS || bytes > NOTE_BYTES {
        return Err(ElfError::Notes { segments, bytes });
    }
    Ok(())
}

fn program_header(image: &[u8], at: usize, wide: bool) -> Option<ProgramHeader> {
    let wide_word = |offset| word(image, at.checked_add(offset)?).map(u64::from);
    let double = |offset| double(image, at.checked_add(offset)?);
    let kind = word(image, at)?;
    Some(if wide {
        ProgramHeader {
            kind,
            virtual_address: double(16)?,
            segment: Segment {
                offset: double(8)?,
                gpa: double(24)?,
                file_bytes: double(32)?,
                memory_bytes: double(40)?,
            },
        }
    } else {
        ProgramHeader {
            kind,
            virtual_address: wide_word(8)?,
            segment: Segment {
                offset: wide_word(4)?,
                gpa: wide_word(12)?,
                file_bytes: wide_word(16)?,
                memory_bytes: wide_word(20)?,
            },
        }
    })
}

fn double(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit ELF header that names `count` program headers of `size` bytes
    /// behind it, and one of them: `segment`, linked at its GPA.
    fn image(count: u16, size: u16, segment: Segment) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(120, 0);
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(18, &ELF_MACHINE_X86_64.to_le_bytes());
        put(24, &segment.gpa.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(54, &size.to_le_bytes());
        put(56, &count.to_le_bytes());
        put(64, &ELF_PT_LOAD.to_le_bytes());
        let fields = [segment.offset, segment.gpa, segment.gpa, segment.file_bytes];
        for (at, field) in (72..).step_by(8).zip(fields) {
            put(at, &field.to_le_bytes());
        }
        put(104, &segment.memory_bytes.to_le_bytes());
        image
    }

    const SEGMENT: Segment = Segment {
        offset: 0x1000,
        file_bytes: 0x2000,
        gpa: 0x10_0000,
        memory_bytes: 0x3000,
    };

    #[test]
    fn a_segment_and_an_entry_point() {
        let (segments, entry) = read(&image(1, 56, SEGMENT)).unwrap();
        assert_eq!(
            (segments.as_slice(), entry),
            ([SEGMENT].as_slice(), 0x10_0000)
        );
    }

    #[test]
    fn a_segment_named_often_counts_as_often() {
        // Headers of no size are all the same one.
        let (segments, _) = read(&image(u16::MAX, 0, SEGMENT)).unwrap();
        assert_eq!(segments.len(), 65_535);
        assert_eq!(file_bytes(&segments), 65_535 * 0x2000);
        let all = Segment {
            file_bytes: u64::MAX,
            memory_bytes: u64::MAX,
            ..SEGMENT
        };
        let (segments, _) = read(&image(2, 0, all)).unwrap();
        assert_eq!(file_bytes(&segments), u64::MAX);
    }

    #[test]
    fn notes_are_bounded_in_number_and_bytes() {
        let notes = |count: u16, bytes| {
            // Headers of no size are all the same one.
            let mut image = image(count, 0, SEGMENT);
            image[64] = 4;
            image[96..104].copy_from_slice(&u64::to_le_bytes(bytes));
            check_notes(&image)
        };
        assert_eq!(notes(2, 500), Ok(()));
        assert_eq!(notes(1, 64 << 10), Ok(()));
        let (segments, bytes) = (1, 64 << 20);
        assert_eq!(notes(1, 64 << 20), Err(ElfError::Notes { segments, bytes }));
        let (segments, bytes) = (17, 17);
        assert_eq!(notes(17, 1), Err(ElfError::Notes { segments, bytes }));
        assert!(notes(2, u64::MAX).is_err());
        assert_eq!(check_notes(&image(100, 0, SEGMENT)), Ok(()), "no notes");
    }

    #[test]
    fn headers_that_are_not_there_are_named() {
        assert_eq!(read(b"\x7fELF"), Err(ElfError::NotX86));
        let whole = image(1, 56, SEGMENT);
        assert_eq!(read(&whole[..30]), Err(ElfError::Header));
        assert_eq!(read(&whole[..100]), Err(ElfError::ProgramHeaders));
        assert_eq!(read(&image(2, 56, SEGMENT)), Err(ElfError::ProgramHeaders));
        let narrow = Segment {
            memory_bytes: 0x1fff,
            ..SEGMENT
        };
        assert_eq!(read(&image(1, 56, narrow)), Err(ElfError::Segment));
    }
}
