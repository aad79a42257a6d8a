//! The format of `KVM_GET_STATS_FD` (`Documentation/virt/kvm/api.rst`, section
//! 4.133, and `struct kvm_stats_header`, `struct kvm_stats_desc` in
//! `include/uapi/linux/kvm.h`):
//!
//! ```text
//! header   flags, name_size, num_desc, id_offset, desc_offset, data_offset: u32
//! desc     flags u32, exponent i16, size u16, offset u32, bucket_size u32,
//!          name [name_size]         num_desc of them, from desc_offset
//! data     size x u64               from data_offset + offset
//! ```
//!
//! Offsets are taken as what they are, numbers that may say anything.

use std::io;

use kvm_bindings as kvm;

const HEADER: usize = 24;
const DESC: usize = 16;
/// Statistics of one file that are decoded: KVM has about 60 of a vCPU.
pub const MAX_STATS: u32 = 4096;
/// Bytes of a file that are read: KVM's have about 5,000.
pub const MAX_IMAGE: usize = 1 << 20;
/// Bytes of a name, its NUL included: KVM's are 48.
const MAX_NAME: u32 = 256;

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// KVM_GET_STATS_FD.
    #[error("KVM_GET_STATS_FD: {0}")]
    Open(io::Error),
    /// The descriptor can't be read.
    #[error("can't read KVM's statistics: {0}")]
    Read(io::Error),
    /// More than [`MAX_IMAGE`] bytes.
    #[error("KVM's statistics have more than {MAX_IMAGE} bytes ({0} so far)")]
    TooLarge(usize),
    /// An offset or a size leads out of the file.
    #[error("KVM's statistics end at byte {have}, {what} ends at {need}")]
    Truncated {
        /// The part that leads out of it.
        what: &'static str,
        /// Offset of that part's end, in bytes.
        need: u64,
        /// Size of the file, in bytes.
        have: usize,
    },
    /// A count beyond [`MAX_STATS`], or a name's size beyond 256 or none.
    #[error("KVM's statistics have {what} {value}")]
    Absurd {
        /// The field's name.
        what: &'static str,
        /// Its value.
        value: u32,
    },
}

/// What a statistic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Cumulative,
    /// As of now.
    Instant,
    /// The highest there was.
    Peak,
    /// A histogram of buckets of this width.
    LinearHistogram(u32),
    /// A histogram of buckets that double.
    LogHistogram,
    /// A later kernel's.
    Unknown(u32),
}

/// What a statistic counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Events or objects, without a unit.
    None,
    /// Memory, in bytes.
    Bytes,
    /// Seconds; with exponent -9, nanoseconds.
    Seconds,
    /// Time, in clock cycles.
    Cycles,
    /// 0 or 1.
    Boolean,
    /// A later kernel's.
    Unknown(u32),
}

/// What the exponent is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// 10.
    Ten,
    /// 2.
    Two,
    /// A later kernel's.
    Unknown(u32),
}

/// One statistic and its values: one, or the buckets of a histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// KVM's name for it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it counts, in units of `base` to the power of `exponent`.
    pub unit: Unit,
    /// Base of the factor on the values; see `unit`.
    pub base: Base,
    /// Exponent of the factor on the values; see `unit`.
    pub exponent: i16,
    /// One value, or those of all buckets.
    pub values: Vec<u64>,
    /// Where the values begin, in bytes from the file's start.
    pub offset: u64,
}

/// All statistics of a file.
///
/// Total: whatever the bytes are, the answer is statistics or an error, in time
/// and space bounded by [`MAX_STATS`] and the length of the file.
///
/// # Errors
/// A header that is cut short or absurd, and anything that leads out of the
/// file.
pub fn decode(image: &[u8]) -> Result<Vec<Stat>, StatsError> {
    let header = Reader::at(image, "the header", 0, HEADER as u64)?;
    let [_flags, name_size, count, _id, descs, data] = [0, 4, 8, 12, 16, 20].map(|o| header.u32(o));
    if name_size == 0 || name_size > MAX_NAME {
        return Err(StatsError::Absurd {
            what: "a name size of",
            value: name_size,
        });
    }
    if count > MAX_STATS {
        return Err(StatsError::Absurd {
            what: "a number of descriptors of",
            value: count,
        });
    }
    // What all values together may take: each lies in the file, but many
    // descriptors can point at the same ones.
    let mut budget = image.len() as u64;
    let stride = DESC as u64 + u64::from(name_size);
    (0..u64::from(count))
        .map(|i| {
            let start = u64::from(descs) + i * stride;
            let desc = Reader::at(image, "a descriptor", start, stride)?;
            let (flags, bucket) = (desc.u32(0), desc.u32(12));
            let (size, offset) = (desc.u16(6), desc.u32(8));
            let start = u64::from(data) + u64::from(offset);
            let len = u64::from(size) * 8;
            budget = budget.checked_sub(len).ok_or(StatsError::Truncated {
                what: "the values of all statistics together",
                need: image.len() as u64 + len - budget,
                have: image.len(),
            })?;
            let values = Reader::at(image, "a statistic's values", start, len)?;
            Ok(Stat {
                name: desc.text(DESC),
                kind: kind(flags, bucket),
                unit: unit(flags),
                base: base(flags),
                exponent: desc.u16(4).cast_signed(),
                values: values.words(),
                offset: start,
            })
        })
        .collect()
}

fn kind(flags: u32, bucket: u32) -> Kind {
    match flags & kvm::KVM_STATS_TYPE_MASK {
        kvm::KVM_STATS_TYPE_CUMULATIVE => Kind::Cumulative,
        kvm::KVM_STATS_TYPE_INSTANT => Kind::Instant,
        kvm::KVM_STATS_TYPE_PEAK => Kind::Peak,
        kvm::KVM_STATS_TYPE_LINEAR_HIST => Kind::LinearHistogram(bucket),
        kvm::KVM_STATS_TYPE_LOG_HIST => Kind::LogHistogram,
        other => Kind::Unknown(other),
    }
}

fn unit(flags: u32) -> Unit {
    match flags & kvm::KVM_STATS_UNIT_MASK {
        kvm::KVM_STATS_UNIT_NONE => Unit::None,
        kvm::KVM_STATS_UNIT_BYTES => Unit::Bytes,
        kvm::KVM_STATS_UNIT_SECONDS => Unit::Seconds,
        kvm::KVM_STATS_UNIT_CYCLES => Unit::Cycles,
        kvm::KVM_STATS_UNIT_BOOLEAN => Unit::Boolean,
        other => Unit::Unknown(other),
    }
}

fn base(flags: u32) -> Base {
    match flags & kvm::KVM_STATS_BASE_MASK {
        kvm::KVM_STATS_BASE_POW10 => Base::Ten,
        kvm::KVM_STATS_BASE_POW2 => Base::Two,
        other => Base::Unknown(other),
    }
}

/// A part of the file that is known to be there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn at(image: &'a [u8], what: &'static str, start: u64, len: u64) -> Result<Self, StatsError> {
        // Both are sums of u32s and a few more: no overflow.
        let need = start + len;
        let part = usize::try_from(start)
            .ok()
            .zip(usize::try_from(need).ok())
            .and_then(|(start, end)| image.get(start..end));
        part.map(Self).ok_or(StatsError::Truncated {
            what,
            need,
            have: image.len(),
        })
    }

    /// Bytes beyond the part read as zero; there are none, by [`Reader::at`].
    fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let part = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        part.copied().unwrap_or([0; N])
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    fn words(&self) -> Vec<u64> {
        let words = self.0.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        words.collect()
    }

    /// A name: up to its NUL, or to the end.
    fn text(&self, offset: usize) -> String {
        let bytes = self.0.get(offset..).unwrap_or_default();
        let name = bytes.split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}
