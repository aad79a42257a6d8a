//! A kernel file of unknown origin, loaded as `run` loads it: format by
//! content, then multiboot or linux-loader. The multiboot plan is held against
//! what it promises.

#![no_main]

use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use vmm_reference::boot::acpi::{Hardware, Tables};
use vmm_reference::boot::format::Format;
use vmm_reference::boot::{BootSource, EntryPoint, load, multiboot};
use vmm_reference::memory::ram::RamLayout;

const RAM: u64 = 4 << 20;

fn planned(image: &[u8], header: usize) {
    let taken = [(0x500..0x528, "GDT"), (0xe_0000..0xe_1000, "tables")];
    let Ok(plan) = multiboot::plan(image, image.len() as u64, header, RAM, &taken) else {
        return;
    };
    let mut entry_inside = false;
    for s in &plan.segments {
        assert!(s.offset + s.file_bytes <= image.len() as u64);
        assert!(s.file_bytes <= s.memory_bytes);
        assert!(s.gpa + s.memory_bytes <= plan.end);
        for (range, _) in &taken {
            assert!(s.gpa >= range.end || s.gpa + s.memory_bytes <= range.start);
        }
        entry_inside |= (s.gpa..s.gpa + s.memory_bytes).contains(&u64::from(plan.entry));
    }
    assert!(entry_inside && plan.end <= RAM);
}

fuzz_target!(|image: &[u8]| {
    let format = Format::of(image);
    match format {
        Ok(Format::Multiboot(header)) => planned(image, header),
        _ => planned(image, image.first().map_or(0, |b| usize::from(*b))),
    }
    let mut file: std::fs::File = memfd_create("kernel", MemfdFlags::CLOEXEC)
        .expect("a file in memory")
        .into();
    file.write_all(image).expect("written");
    file.rewind().expect("rewound");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let source = BootSource {
        kernel: path.clone().into(),
        // The same bytes once more: a module, or an initrd.
        initrd: (image.len() % 2 == 0).then(|| path.into()),
        cmdline: "console=ttyS0".to_string(),
    };
    let layout = RamLayout::new(RAM);
    let memory = layout.allocate().expect("4 MiB");
    let tables = Tables::new(&[0, 1], Hardware::Full);
    match load(&source, &memory, layout, &tables) {
        Ok((entry, as_format)) => {
            assert_eq!(Ok(as_format), format);
            match entry {
                EntryPoint::Bits32 { .. } => assert_ne!(as_format, Format::BzImage),
                EntryPoint::Bits64 { .. } => assert!(!matches!(as_format, Format::Multiboot(_))),
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
});
