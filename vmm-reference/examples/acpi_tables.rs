//! Writes the ACPI tables of a guest with so many vCPUs into a directory, a
//! file a table, for a look at them with tools that are not ours; with a third
//! argument `reduced` those for the interrupt controllers of this process:
//!
//! ```sh
//! cargo run -p vmm-reference --example acpi_tables -- 64 /tmp/tables
//! iasl -d /tmp/tables/APIC.aml
//! ```

use std::error::Error;
use std::path::Path;

use vmm_reference::boot::acpi::{Hardware, Tables};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (vcpus, directory, hardware) = match arguments.as_slice() {
        [vcpus, directory] => (vcpus, directory, Hardware::Full),
        [vcpus, directory, reduced] if reduced == "reduced" => {
            (vcpus, directory, Hardware::Reduced)
        }
        _ => return Err("usage: acpi_tables VCPUS DIRECTORY [reduced]".into()),
    };
    let ids: Vec<u32> = (0..vcpus.parse()?).collect();
    for (gpa, table) in Tables::new(&ids, hardware).parts() {
        let signature = table.get(..4).unwrap_or_default();
        // The root has a signature of eight characters, of which four are a name.
        let name = match signature {
            b"RSD " => "RSDP".into(),
            signature => String::from_utf8_lossy(signature),
        };
        let path = Path::new(directory).join(format!("{name}.aml"));
        std::fs::write(&path, table)?;
        println!("{gpa:#x} {} bytes: {}", table.len(), path.display());
    }
    Ok(())
}
