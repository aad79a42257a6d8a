//! Links the no_std crates into a program that has no std; it is built, not
//! run.

#![no_std]
#![no_main]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

use cpuid_features::{Dump, KvmFeatures, KvmLeaf, Selection, VmmSupport, negotiate};
use hypercall_abi::guest::{Hypercalls, Transport};
use hypercall_abi::{
    Document, Enforcement, Format, HypercallHandler, Mode, RawHypercall, dispatch,
};
use pv_lock_host::{ApicId, SchedulerBuilder, Spin};

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
    hypercalls();
    scheduler();
    stop()
}

/// Both sides of a call, and the table printed.
fn hypercalls() {
    let call = core::hint::black_box(RawHypercall {
        nr: hypercall_abi::KVM_HC_KICK_CPU,
        args: [0, 3, 0, 0],
        mode: Mode::Bits64,
        cpl: 0,
    });
    core::hint::black_box(dispatch(&call, Enforcement::NotEnforced, &mut Nowhere));
    core::hint::black_box(core::fmt::write(
        &mut Nowhere,
        format_args!("{}", Document::new(Format::Json)),
    ))
    .ok();
    if let Some(transport) = Transport::detect() {
        // SAFETY: the program is built and not run.
        let hypercalls = unsafe { Hypercalls::new(transport) };
        core::hint::black_box(hypercalls.kick_cpu(3)).ok();
    }
}

/// A halt and a kick on the platform that only spins.
fn scheduler() {
    let builder = SchedulerBuilder::<Spin>::default();
    if let Ok((scheduler, mut parkers)) = builder.build(core::hint::black_box(&[ApicId(0)])) {
        core::hint::black_box(scheduler.kicker().kick_by_host(ApicId(0)));
        for parker in &mut parkers {
            core::hint::black_box(parker.halt());
        }
    }
}

/// Has no memory to give: the program is built and not run.
struct NoMemory;

// SAFETY: it gives null, which is the answer of an allocator that has nothing.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

struct Nowhere;

impl HypercallHandler for Nowhere {}

impl core::fmt::Write for Nowhere {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        core::hint::black_box(text);
        Ok(())
    }
}
