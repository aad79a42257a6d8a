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
/// Written as signed names with separators between them: commas, or `;`, `:`
/// and `/` for programs whose options are separated by commas themselves, or
/// white space. Names are those of [`KvmFeatures::by_name`] and
/// [`KvmHints::by_name`]. [`Display`](fmt::Display) prints the list that reads
/// back the same; with the feature `serde` it serialises as that string.
///
/// ```
/// use cpuid_features::{KvmFeatures, KvmHints, Selection};
///
/// let wanted: Selection = "+pv-unhalt,-steal-time,+realtime".parse()?;
/// assert_eq!(wanted.on, KvmFeatures::PV_UNHALT);
/// assert_eq!(wanted.off, KvmFeatures::STEAL_TIME);
/// assert_eq!(wanted.hints_on, KvmHints::REALTIME);
/// assert_eq!("+pv-unhalt:-steal-time:+realtime".parse(), Ok(wanted));
/// assert_eq!(wanted.to_string(), "-steal-time,+pv-unhalt,+realtime");
/// # Ok::<(), cpuid_features::ParseSelectionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Features that the guest must get: one that it cannot get is an error.
    pub on: KvmFeatures,
    /// Features the guest must not be shown.
    pub off: KvmFeatures,
    /// Hints that the guest must get.
    pub hints_on: KvmHints,
    /// Hints that the guest must not be shown.
    pub hints_off: KvmHints,
}

/// What may stand between two words, beside white space.
const SEPARATORS: [char; 4] = [',', ';', ':', '/'];

impl FromStr for Selection {
    type Err = ParseSelectionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut selection = Self::default();
        if list.trim().is_empty() {
            return Ok(selection);
        }
        for part in list.split(SEPARATORS) {
            // Nothing between two separators is a word that is missing.
            if part.trim().is_empty() {
                selection.add("")?;
            }
            for word in part.split_whitespace() {
                selection.add(word)?;
            }
        }
        Ok(selection)
    }
}

impl Selection {
    /// Adds one signed word, as a program does whose options come one at a
    /// time.
    ///
    /// ```
    /// use cpuid_features::{KvmFeatures, Selection};
    ///
    /// let mut wanted = Selection::default();
    /// for word in ["+pv-unhalt", "-pv-eoi"] {
    ///     wanted.add(word)?;
    /// }
    /// assert_eq!(wanted.off, KvmFeatures::PV_EOI);
    /// assert!(wanted.add("-pv-unhalt").is_err());
    /// # Ok::<(), cpuid_features::ParseSelectionError>(())
    /// ```
    ///
    /// # Errors
    /// The word has no sign, or no feature and no hint is called that, or an
    /// earlier word asks for the opposite; the selection is then as it was.
    pub fn add(&mut self, word: &str) -> Result<(), ParseSelectionError> {
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

/// The list, off before on, features before hints. A selection that has a bit
/// both on and off prints it twice and does not read back.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut word = |f: &mut fmt::Formatter<'_>, sign, name: &dyn fmt::Display| {
            write!(f, "{}{sign}{name}", core::mem::replace(&mut comma, ","))
        };
        for bit in self.off.singles() {
            word(f, '-', &bit)?;
        }
        for bit in self.on.singles() {
            word(f, '+', &bit)?;
        }
        for bit in self.hints_off.singles() {
            word(f, '-', &bit)?;
        }
        for bit in self.hints_on.singles() {
            word(f, '+', &bit)?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Selection {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Selection {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl serde::de::Visitor<'_> for List {
            type Value = Selection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list such as \"+pv-unhalt,-steal-time\"")
            }

            fn visit_str<E: serde::de::Error>(self, list: &str) -> Result<Selection, E> {
                list.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(List)
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

/// Why a list could not be read, with the word at fault.
///
/// ```
/// use cpuid_features::{Selection, SelectionFault};
///
/// let error = "+pv-eoi,steal-time".parse::<Selection>().unwrap_err();
/// assert_eq!(error.fault, SelectionFault::NoSign);
/// assert_eq!(error.token.as_str(), "steal-time");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSelectionError {
    /// What is wrong with the word.
    pub fault: SelectionFault,
    /// The word that is wrong, with its sign if it has one.
    pub token: Token,
}

/// What can be wrong with a word of the list. See [`ParseSelectionError`] for
/// an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

/// The start of a word, copied; in a [`ParseSelectionError`]. The error outlives the list, and there is no
/// allocator here.
///
/// See [`ParseSelectionError`] for an example.
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
