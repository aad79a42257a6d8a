//! `--trace FILE`: the file is made before anything runs, and filled when all has
//! ended.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::{Collector, chrome};

/// Events of a vCPU that are kept, the last ones: half a megabyte.
const EVENTS: usize = 20_000;

/// A trace that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {}: {source}", path.display())]
pub struct TraceFileError {
    path: PathBuf,
    source: io::Error,
}

/// The file, and what is going to be in it.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
    collector: Collector,
}

impl TraceFile {
    /// Makes the file; one that is there is emptied.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(path: &Path) -> Result<Self, TraceFileError> {
        let file = File::create(path).map_err(|source| TraceFileError {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            collector: Collector::new(EVENTS),
        })
    }

    /// What the VMs record into.
    pub fn collector(&self) -> Collector {
        self.collector.clone()
    }

    /// Writes what was recorded.
    ///
    /// # Errors
    /// It can't be written; half of it may be.
    pub fn write(self) -> Result<(), TraceFileError> {
        let mut file = BufWriter::new(self.file);
        let trace = self.collector.take();
        chrome::write(&mut file, &trace)
            .and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error))
            .map(drop)
            .map_err(|source| TraceFileError {
                path: self.path,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_not_be_is_one_line() {
        let error = TraceFile::create(Path::new("/nowhere/trace.json")).unwrap_err();
        let says = "can't write /nowhere/trace.json: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), says);
        let full = TraceFile::create(Path::new("/dev/full")).unwrap();
        let error = full.write().unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
    }
}
