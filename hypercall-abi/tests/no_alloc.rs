//! Decoding, dispatching and answering allocate nothing. Printing the table
//! does not either.

#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::hint::black_box;

use cpuid_features::KvmFeatures;
use hypercall_abi::{
    Document, Enforcement, Format, Hypercall, HypercallHandler, HypercallResult, KickCpu, Mode,
    RawHypercall, SendIpi, dispatch,
};

/// Counts what it passes on.
struct Counting;

thread_local! {
    /// Of this thread: the test harness allocates in its own. Constant and
    /// without a destructor, so that reaching it allocates nothing.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY: every method passes its arguments on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads every target, as a VMM does.
struct Handler(u64);

impl HypercallHandler for Handler {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        self.0 += u64::from(call.destination());
        Ok(0)
    }

    fn send_ipi(&mut self, call: SendIpi) -> HypercallResult {
        let count = call.check()?.targets().count();
        self.0 += count as u64;
        Ok(count as u64)
    }
}

struct Bytes(usize);

impl Write for Bytes {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[test]
fn nothing_is_allocated() {
    let mut handler = Handler(0);
    let mut bytes = Bytes(0);
    let before = allocations();

    for nr in 0..32 {
        for mode in [Mode::Bits64, Mode::Bits32] {
            for features in [
                Enforcement::NotEnforced,
                Enforcement::Enforced(KvmFeatures::empty()),
            ] {
                let raw = RawHypercall {
                    nr,
                    args: [u64::MAX, 3, 0, 0xfd],
                    mode,
                    cpl: 0,
                };
                let rax = dispatch(black_box(&raw), features, &mut handler);
                black_box(hypercall_abi::from_rax(rax, mode).is_err());
            }
        }
    }
    black_box(Hypercall::KickCpu(KickCpu::new(3)).encode(Mode::Bits64, 0));
    for format in Format::ALL {
        write!(bytes, "{}", Document::new(format)).unwrap();
    }

    let allocated = allocations() - before;
    assert_eq!(allocated, 0);
    assert!(handler.0 > 0 && bytes.0 > 0);
    // The counter counts.
    drop(black_box(Box::new(handler.0)));
    assert!(allocations() > before);
}
