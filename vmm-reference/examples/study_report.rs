//! A study's report from its data, or from the sample that nobody measured:
//!
//! ```text
//! cargo run -p vmm-reference --example study_report -- OUT.html [data.json]
//! cargo run -p vmm-reference --example study_report -- OUT.svg data.json work-short-vcpus
//! ```
//!
//! The second takes one figure out of the report.

use std::path::Path;

use vmm_reference::study::dataset::Dataset;
use vmm_reference::study::{figures, report, sample};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let to = arguments
        .next()
        .ok_or("usage: study_report OUT.html [data.json]")?;
    let data = match arguments.next() {
        Some(from) => Dataset::read(Path::new(&from))?,
        None => sample::dataset(),
    };
    let text = match arguments.next() {
        None => report::html(&data),
        Some(id) => {
            let mut figures = figures::all(&data).into_iter();
            let figure = figures.find(|figure| id == figure.id.as_str());
            report::picture(&figure.ok_or("no such figure")?)
        }
    };
    Ok(std::fs::write(to, text)?)
}
