//! What a study measured, as it is kept in a file.
//!
//! - [`load`]: what the guest does; [`series`]: how it waits for its lock;
//! - [`cell`]: what was measured: a [`CellKey`] and its repetitions;
//! - [`repetition`]: what one of them measured;
//! - [`waits`]: how long the lock was waited for, as a histogram;
//! - [`host`]: the host, its noise and what disturbed it;
//! - [`timeline`]: the vCPUs around the worst wait;
//! - [`csv`]: one line a repetition, for a spreadsheet.
//!
//! The JSON file is the truth: report, comparison and CSV derive from it.

pub mod cell;
pub mod csv;
pub mod host;
pub mod load;
pub mod repetition;
pub mod series;
pub mod timeline;
pub mod waits;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cell::{Cell, CellKey};
pub use host::{Disturbance, Host, Noise};
pub use load::Load;
pub use repetition::{Beside, Repetition, Role};
pub use series::{Halts, Series, Transport, Waiter};
pub use timeline::Timeline;
pub use waits::Waits;

use super::finite::Finite;

/// Version of the file's format: a file of another one is refused.
pub const FORMAT: u32 = 1;

/// How long, and by which rules, a study measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Seconds a repetition runs.
    pub seconds: Finite,
    /// Seconds that the whole study may take.
    pub budget: Finite,
    /// Seed of the order of cells and of every resampling.
    pub seed: u64,
    /// Microseconds that a waiter spins before it halts.
    pub spin_us: u64,
    /// What stands in for a directed yield behind a kick.
    pub yielding: String,
}

/// How a study ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Every interval became as narrow as was wanted.
    Narrow,
    /// The budget was spent.
    Budget,
    /// A signal.
    Interrupted,
}

/// A study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// [`FORMAT`].
    pub format: u32,
    /// Program and version.
    pub tool: String,
    /// When it began, UTC, RFC 3339.
    pub began: String,
    /// Seconds it took.
    pub took: Finite,
    /// How it ended.
    pub end: End,
    /// Where it ran.
    pub host: Host,
    /// By which rules.
    pub settings: Settings,
    /// What was measured, in the order of the report.
    pub cells: Vec<Cell>,
    /// The vCPUs around the worst waits.
    pub timelines: Vec<Timeline>,
}

/// Why a file is not a dataset.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// It can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no JSON, or not this one.
    #[error("{}: not a study's data: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("{}: format {found}, where this program reads format {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// As the file says.
        found: u32,
    },
}

impl Dataset {
    /// The JSON text.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a file that [`Dataset::to_json`] wrote.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        /// The one key that every version has.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let file = |source| DatasetError::File {
            path: path.to_path_buf(),
            source,
        };
        let json = |source| DatasetError::Json {
            path: path.to_path_buf(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(file)?;
        let Version { format } = serde_json::from_str(&text).map_err(json)?;
        if format != FORMAT {
            return Err(DatasetError::Format {
                path: path.to_path_buf(),
                found: format,
            });
        }
        serde_json::from_str(&text).map_err(json)
    }

    /// The cell of `key`.
    pub fn cell(&self, key: &CellKey) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.key == *key)
    }

    /// vCPUs of all VMs of `key`, a pCPU.
    pub fn ratio(&self, key: &CellKey) -> Finite {
        key.ratio(self.host.cpus)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn json_round_trip() {
        let data = super::super::sample::dataset();
        let text = data.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Dataset>(&text).unwrap(), data);
        assert!(!text.contains("NaN") && !text.contains("null,\n      \"rate"));
    }

    #[test]
    fn a_file_that_is_none_is_told_in_one_line() {
        let dir = std::env::temp_dir().join(format!("study-dataset-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("data.json");
        for (text, says) in [
            ("", "not a study's data"),
            ("{\"format\": 7}", "format 7, where this program reads"),
            ("{\"format\": 1}", "missing field"),
            ("[1, 2]", "not a study's data"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Dataset::read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        let error = Dataset::read(&path).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
