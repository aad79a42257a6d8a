//! Links the no_std crates into a program that has no std; it is built, not
//! run.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cpuid_features::{Dump, KvmFeatures, KvmLeaf, Selection, VmmSupport, negotiate};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    stop()
}

/// The precompiled `core` names it, though nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

fn stop() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Uses what the crates do, so that the linker keeps it: parsing, tables,
/// formatting and errors.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let input = core::hint::black_box("   0x40000000 0x00: eax=0x0 ebx=0x0 ecx=0x0 edx=0x0");
    let host = KvmLeaf::read(&Dump::new(input)).map_or(KvmFeatures::all(), |leaf| leaf.features);
    let want = Selection::default();
    if let Err(error) = negotiate(host, &VmmSupport::default(), &want) {
        core::hint::black_box(core::fmt::write(&mut Nowhere, format_args!("{error}"))).ok();
    }
    stop()
}

struct Nowhere;

impl core::fmt::Write for Nowhere {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        core::hint::black_box(text);
        Ok(())
    }
}
