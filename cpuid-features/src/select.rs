//! The user's list: `+pv-unhalt,-steal-time`.

use core::error::Error;
use core::fmt;
use core::str::FromStr;

use bitflags::Flags;

use crate::bits::{KvmFeatures, KvmHints};
use crate::table::{FEATURES, HINTS};

/// What a user wants on and off; the rest is left to
/// [`negotiate`](crate::negotiate).
///
/// Written as signed names joined by commas. Names are those of
/// [`KvmFeatures::by_name`] and [`KvmHints::by_name`].
///
/// ```
/// use cpuid_features::{KvmFeatures, KvmHints, Selection};
///
/// let wanted: Selection = "+pv-unhalt,-steal-time,+realtime".parse()?;
/// assert_eq!(wanted.on, KvmFeatures::PV_UNHALT);
/// assert_eq!(wanted.off, KvmFeatures::STEAL_TIME);
/// assert_eq!(wanted.hints_on, KvmHints::REALTIME);
/// # Ok::<(), cpuid_features::ParseSelectionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Features that must be had: what cannot be is an error.
    pub on: KvmFeatures,
    /// Features the guest must not be shown.
    pub off: KvmFeatures,
    /// Hints to give.
    pub hints_on: KvmHints,
    /// Hints not to give.
    pub hints_off: KvmHints,
}

impl FromStr for Selection {
    type Err = ParseSelectionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut selection = Self::default();
        if list.trim().is_empty() {
            return Ok(selection);
        }
        for word in list.split(',').map(str::trim) {
            selection.apply(word)?;
        }
        Ok(selection)
    }
}

impl Selection {
    fn apply(&mut self, word: &str) -> Result<(), ParseSelectionError> {
        let fault = |fault| ParseSelectionError {
            fault,
            token: Token::new(word),
        };
        let (on, name) = if let Some(name) = word.strip_prefix('+') {
            (true, name)
        } else if let Some(name) = word.strip_prefix('-') {
            (false, name)
        } else {
            return Err(fault(SelectionFault::NoSign));
        };
        let added = if let Some(features) = KvmFeatures::by_name(name) {
            add(features, &mut self.on, &mut self.off, on)
        } else if let Some(hints) = KvmHints::by_name(name) {
            add(hints, &mut self.hints_on, &mut self.hints_off, on)
        } else {
            Err(SelectionFault::UnknownName)
        };
        added.map_err(fault)
    }
}

/// Adds `bits` to one of two sets that must not meet.
fn add<F: Flags + Copy>(
    bits: F,
    on: &mut F,
    off: &mut F,
    turn_on: bool,
) -> Result<(), SelectionFault> {
    let (set, opposite) = if turn_on { (on, off) } else { (off, on) };
    if opposite.intersects(bits) {
        return Err(SelectionFault::OnAndOff);
    }
    set.insert(bits);
    Ok(())
}

/// A list that is not one, with the word at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSelectionError {
    /// What is wrong with the word.
    pub fault: SelectionFault,
    /// The word, sign included.
    pub token: Token,
}

/// What can be wrong with a word of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionFault {
    /// It starts with neither `+` nor `-`.
    NoSign,
    /// No feature and no hint is called that.
    UnknownName,
    /// An earlier word asks for the opposite.
    OnAndOff,
}

impl fmt::Display for ParseSelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token;
        match self.fault {
            SelectionFault::NoSign => write!(f, "`{token}` starts with neither + nor -"),
            SelectionFault::OnAndOff => write!(f, "`{token}` contradicts an earlier word"),
            SelectionFault::UnknownName => {
                write!(f, "`{token}` names no feature and no hint; known are ")?;
                for row in FEATURES {
                    write!(f, "{}, ", row.name)?;
                }
                for row in HINTS {
                    write!(f, "{}, ", row.name)?;
                }
                f.write_str("bit0 to bit31, hint0 to hint31")
            }
        }
    }
}

impl Error for ParseSelectionError {}

/// The start of a word, copied: the error outlives the list, and there is no
/// allocator here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    bytes: [u8; Self::CAPACITY],
    len: usize,
    cut: bool,
}

impl Token {
    const CAPACITY: usize = 40;

    fn new(word: &str) -> Self {
        let mut token = Self {
            bytes: [0; Self::CAPACITY],
            len: 0,
            cut: false,
        };
        for c in word.chars() {
            let end = token.len + c.len_utf8();
            let Some(room) = token.bytes.get_mut(token.len..end) else {
                token.cut = true;
                break;
            };
            c.encode_utf8(room);
            token.len = end;
        }
        token
    }

    /// What was kept of the word, at most 40 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Whole characters were copied, so neither can fail.
        let kept = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(kept).unwrap_or_default()
    }
}

/// The word, with `...` where it was cut; control characters are escaped.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.as_str().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        f.write_str(if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
