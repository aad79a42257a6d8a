//! Where a vCPU starts: register states, one function each.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment};

use super::BackendError;
use super::kvm::{KvmVcpu, ioctl};
use crate::boot::{Entry, GDT, GDT_BYTES};
use crate::memory::PAGE_TABLES;

pub(crate) const CR0_PE: u64 = 1 << 0;
pub(crate) const CR0_NE: u64 = 1 << 5;
pub(crate) const CR0_PG: u64 = 1 << 31;
pub(crate) const CR4_PAE: u64 = 1 << 5;
pub(crate) const EFER_LME: u64 = 1 << 8;
pub(crate) const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one; IF stays clear: a waiter of the seed's
/// protocol halts with interrupts off.
pub(crate) const RFLAGS_RESERVED: u64 = 1 << 1;

/// 64-bit mode, CPL 0, IF = 0, the page tables at `cr3`, `rip` and the two
/// arguments in RDI and RSI: the entry of the embedded guests.
pub fn long_mode(
    vcpu: &KvmVcpu,
    cr3: u64,
    rip: u64,
    rdi: u64,
    rsi: u64,
) -> Result<(), BackendError> {
    let fd = vcpu.fd();
    let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    let data = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 0b0011,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        selector: 0x08,
        type_: 0b1011,
        db: 0,
        l: 1,
        ..data
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.cr0 = CR0_PE | CR0_NE | CR0_PG;
    sregs.cr3 = cr3;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
    let regs = kvm_regs {
        rip,
        rdi,
        rsi,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))?;
    // With an in-kernel irqchip all vCPUs but the first wait for INIT and SIPI.
    let runnable = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    fd.set_mp_state(runnable).map_err(ioctl("KVM_SET_MP_STATE"))
}

/// A flat segment, by the GDT that `boot` writes.
fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    }
}

/// The first vCPU of a booted guest, as its boot protocol has it.
pub fn boot(vcpu: &KvmVcpu, entry: Entry) -> Result<(), BackendError> {
    /// Read, write, accessed.
    const DATA: u8 = 0b0011;
    /// Execute, read, accessed.
    const CODE: u8 = 0b1011;
    let fd = vcpu.fd();
    let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    let data = flat(0x18, DATA);
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = GDT_BYTES - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    let mut regs = kvm_regs {
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    match entry {
        Entry::Bits64 { rip, rsi } => {
            sregs.cs = kvm_segment {
                db: 0,
                l: 1,
                ..flat(0x10, CODE)
            };
            sregs.cr0 = CR0_PE | CR0_NE | CR0_PG;
            sregs.cr3 = PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            (regs.rip, regs.rsi) = (rip, rsi);
        }
        Entry::Bits32 { eip, eax, ebx } => {
            sregs.cs = flat(0x20, CODE);
            sregs.cr0 = CR0_PE | CR0_NE;
            (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
            (regs.rip, regs.rax, regs.rbx) = (eip.into(), eax.into(), ebx.into());
        }
    }
    fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
    fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))
}
