//! A study's files: the report, the data as JSON and as CSV, in one folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::dataset::{Dataset, csv};
use super::report;

/// Name of the report in its folder.
pub const REPORT: &str = "report.html";
/// Name of the data.
pub const JSON: &str = "data.json";
/// Name of the data for a spreadsheet.
pub const CSV: &str = "data.csv";

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {}: {source}", path.display())]
pub struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// A folder that files can be written to.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it if need be, and tries it: a study that can't be kept is not
    /// begun.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        let error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OutputError { path, source }
        };
        // One level only: a slip in a path makes no tree.
        if !path.is_dir() {
            fs::create_dir(path).map_err(error(path))?;
        }
        let trial = path.join(format!(".{JSON}.trial"));
        File::create(&trial).map_err(error(path))?;
        // Left behind it would be empty, and is written over the next time.
        let _ = fs::remove_file(&trial);
        Ok(Self(path.to_path_buf()))
    }

    /// Writes all three; the data first, as the others can be made from it.
    pub fn write(&self, data: &Dataset) -> Result<PathBuf, OutputError> {
        let json = || data.to_json().map_err(io::Error::other);
        self.file(JSON, |file| file.write_all(json()?.as_bytes()))?;
        self.file(CSV, |file| csv::write(data, file))?;
        self.file(REPORT, |file| file.write_all(report::html(data).as_bytes()))
    }

    /// Beside its place first: a file that is there is whole.
    fn file(
        &self,
        name: &str,
        write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
    ) -> Result<PathBuf, OutputError> {
        let (path, beside) = (self.0.join(name), self.0.join(format!(".{name}.part")));
        let written = File::create(&beside).and_then(|file| {
            let mut file = io::BufWriter::new(file);
            write(&mut file)?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?;
            fs::rename(&beside, &path)
        });
        match written {
            Ok(()) => Ok(path),
            Err(source) => {
                // Half a file is no use to anybody.
                let _ = fs::remove_file(&beside);
                Err(OutputError { path, source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn three_files_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("study-output-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let data = sample::dataset();
        let folder = Folder::open(&path).unwrap();
        let report = folder.write(&data).unwrap();
        assert_eq!(report, path.join(REPORT));
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [CSV, JSON, REPORT]);
        assert_eq!(Dataset::read(&path.join(JSON)).unwrap(), data);
        // Once more into the same folder.
        Folder::open(&path).unwrap().write(&data).unwrap();
        fs::remove_dir_all(&path).unwrap();
        let error = folder.write(&data).unwrap_err().to_string();
        assert!(
            error.contains(JSON) && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_can_not_be_is_told_before_a_study() {
        for (path, says) in [
            (
                "/nowhere/at/all",
                "can't write /nowhere/at/all: No such file",
            ),
            ("/proc/study", "can't write /proc/study: No such file"),
            ("/dev/null", "can't write /dev/null: File exists"),
        ] {
            let error = Folder::open(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    /// /dev/full is what a full disk is, one file large.
    #[test]
    fn a_full_disk_is_one_line() {
        let path = std::env::temp_dir().join(format!("study-full-{}", std::process::id()));
        let folder = Folder::open(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", path.join(format!(".{JSON}.part"))).unwrap();
        let error = folder.write(&sample::dataset()).unwrap_err().to_string();
        assert!(
            error.ends_with("No space left on device (os error 28)"),
            "{error}"
        );
        assert!(!path.join(JSON).exists());
        fs::remove_dir_all(&path).unwrap();
    }
}
