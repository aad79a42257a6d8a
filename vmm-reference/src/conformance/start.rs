//! Where the vCPUs of the script guest start.

use kvm_bindings::kvm_dtable;

use super::case::{CodeKind, UPPER};
use crate::backend::kvm::KvmVcpu;
use crate::backend::x86::{APIC_BASE_X2APIC, CR0_NE, CR0_PE};
use crate::backend::{BackendError, ioctl};
use crate::memory::{self, GuestMemory, MemoryError, PAGE_TABLES};
use crate::payload::image::{self, CODE, PARAM_PAGE, result_page};
use crate::payload::script::{Op, VECTORS, script_code, script_page};

/// Null, 64-bit code at 0x08 and data at 0x10, as the vCPUs' selectors have it.
const GDT: u64 = PARAM_PAGE;
const GDT_ENTRIES: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// A gate at each of [`VECTORS`].
const IDT: u64 = PARAM_PAGE + 0x800;
const IDT_ENTRY: u64 = 16;
/// Present, 64-bit interrupt gate, code selector 0x08.
const GATE: u64 = 0x8e00_0000_0000 | (0x08 << 16);

const PAGE_USER: u64 = 1 << 2;
const RPL_USER: u16 = 3;
const IOPL_USER: u64 = 3 << 12;

/// What the guest finds in memory beside its code: the descriptor tables, and
/// pages that CPL 3 may touch.
pub fn prepare(memory: &GuestMemory, code: CodeKind) -> Result<(), MemoryError> {
    for (i, entry) in (0u64..).zip(GDT_ENTRIES) {
        memory::write_word(memory, GDT + 8 * i, entry)?;
    }
    let handler = CODE + script_code::interrupt_handler();
    // Offset 15:0, selector and type, offset 31:16; the upper half is zero.
    let low = (handler & 0xffff) | GATE | ((handler & 0xffff_0000) << 32);
    for vector in VECTORS {
        memory::write_word(memory, IDT + IDT_ENTRY * u64::from(vector), low)?;
    }
    if code == CodeKind::User64 {
        // PML4, PDPT, PD: whatever is present.
        for at in (PAGE_TABLES..PAGE_TABLES + 0x3000).step_by(8) {
            let entry = memory::read_word(memory, at)?;
            if entry & 1 != 0 {
                memory::write_word(memory, at, entry | PAGE_USER)?;
            }
        }
    }
    Ok(())
}

/// The registers of one vCPU. With `apics` it has a local APIC, and that is in x2APIC
/// mode.
pub fn set(
    vcpu: &KvmVcpu,
    index: u32,
    code: CodeKind,
    ops: &[Op],
    issue: u64,
    apics: bool,
) -> Result<(), BackendError> {
    image::set_registers(vcpu, index, script_page(index))?;
    let fd = vcpu.fd();
    let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
    let table = |base, entries: u64, size: u64| kvm_dtable {
        base,
        limit: u16::try_from(entries * size - 1).unwrap_or(u16::MAX),
        ..Default::default()
    };
    sregs.gdt = table(GDT, GDT_ENTRIES.len() as u64, 8);
    sregs.idt = table(IDT, u64::from(VECTORS.end), IDT_ENTRY);
    if apics {
        sregs.apic_base |= APIC_BASE_X2APIC;
    }
    let mut regs = fd.get_regs().map_err(ioctl("KVM_GET_REGS"))?;
    match code {
        CodeKind::Kernel64 => {}
        CodeKind::User64 => {
            for segment in [
                &mut sregs.cs,
                &mut sregs.ss,
                &mut sregs.ds,
                &mut sregs.es,
                &mut sregs.fs,
                &mut sregs.gs,
            ] {
                segment.dpl = 3;
                segment.selector |= RPL_USER;
            }
            regs.rflags |= IOPL_USER;
        }
        CodeKind::Kernel32 => {
            (sregs.cs.l, sregs.cs.db) = (0, 1);
            (sregs.cr0, sregs.cr4, sregs.efer) = (CR0_PE | CR0_NE, 0, 0);
            if let Some(&Op::Call { nr, args, .. }) = ops.first() {
                regs.rax = nr | UPPER;
                [regs.rbx, regs.rcx, regs.rdx, regs.rsi] = args.map(|arg| arg | UPPER);
            }
            regs.rdi = result_page(index) | UPPER;
            regs.rbp = issue;
        }
    }
    fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
    fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))
}
