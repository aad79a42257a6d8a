//! A study's report from its data, or from the sample that nobody measured:
//!
//! ```text
//! cargo run -p vmm-reference --example study_report -- OUT.html [data.json]
//! ```

use std::path::Path;

use vmm_reference::study::dataset::Dataset;
use vmm_reference::study::{report, sample};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let to = arguments
        .next()
        .ok_or("usage: study_report OUT.html [data.json]")?;
    let data = match arguments.next() {
        Some(from) => Dataset::read(Path::new(&from))?,
        None => sample::dataset(),
    };
    Ok(std::fs::write(to, report::html(&data))?)
}
