//! The start state of the embedded guests.

use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment};

use super::backend_error::{BackendError, ioctl};
use super::kvm::KvmVcpu;
use super::x86::{CR0_NE, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_RESERVED};

/// 64-bit mode, CPL 0, IF = 0, the page tables at `cr3`, `rip` and the two
/// arguments in RDI and RSI.
pub fn set(vcpu: &KvmVcpu, cr3: u64, rip: u64, rdi: u64, rsi: u64) -> Result<(), BackendError> {
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
