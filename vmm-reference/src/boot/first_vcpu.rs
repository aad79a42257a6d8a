//! The registers of the first vCPU of a booted guest.

use kvm_bindings::{kvm_regs, kvm_segment};

use super::{EntryPoint, GDT, GDT_BYTES};
use crate::backend::kvm::KvmVcpu;
use crate::backend::x86::{CR0_NE, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_RESERVED};
use crate::backend::{BackendError, ioctl};
use crate::memory::PAGE_TABLES;

/// A flat segment, by the GDT that [`super::load`] writes.
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

/// Sets them as the boot protocol has it.
pub(super) fn set(vcpu: &KvmVcpu, entry: EntryPoint) -> Result<(), BackendError> {
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
        EntryPoint::Bits64 { rip, rsi } => {
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
        EntryPoint::Bits32 { eip, eax, ebx } => {
            sregs.cs = flat(0x20, CODE);
            sregs.cr0 = CR0_PE | CR0_NE;
            (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
            (regs.rip, regs.rax, regs.rbx) = (eip.into(), eax.into(), ebx.into());
        }
    }
    fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
    fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))
}
