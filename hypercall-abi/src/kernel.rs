//! Constants under the kernel's exact names, for code that is compared with the
//! kernel's headers.
//!
//! ```
//! use hypercall_abi::kernel::{KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE_ENCRYPTED};
//!
//! assert_eq!(KVM_HC_MAP_GPA_RANGE, 12);
//! assert_eq!(KVM_MAP_GPA_RANGE_ENCRYPTED, 1 << 4);
//! ```
//!
//! Numbers are those of the table; the rest stands in
//! `arch/x86/include/uapi/asm/kvm_para.h` and `asm/kvm.h`.

use crate::arch::Arch;
use crate::call::{ClockPairing, MapGpaRange, PageSize};
use crate::table::number_of;

pub use crate::errno::{KVM_E2BIG, KVM_EFAULT, KVM_EINVAL, KVM_ENOSYS, KVM_EOPNOTSUPP, KVM_EPERM};
pub use crate::nr::{
    KVM_HC_CLOCK_PAIRING, KVM_HC_FEATURES, KVM_HC_KICK_CPU, KVM_HC_MAP_GPA_RANGE,
    KVM_HC_MIPS_CONSOLE_OUTPUT, KVM_HC_MIPS_EXIT_VM, KVM_HC_MIPS_GET_CLOCK_FREQ, KVM_HC_MMU_OP,
    KVM_HC_PPC_MAP_MAGIC_PAGE, KVM_HC_SCHED_YIELD, KVM_HC_SEND_IPI, KVM_HC_VAPIC_POLL_IRQ,
};

/// The only clock of `KVM_HC_CLOCK_PAIRING`.
pub const KVM_CLOCK_PAIRING_WALLCLOCK: u64 = ClockPairing::WALLCLOCK;

/// Preferred page size of 4 KiB in `KVM_HC_MAP_GPA_RANGE`'s attributes.
pub const KVM_MAP_GPA_RANGE_PAGE_SZ_4K: u64 = PageSize::SIZE_4K.0 as u64;
/// Preferred page size of 2 MiB.
pub const KVM_MAP_GPA_RANGE_PAGE_SZ_2M: u64 = PageSize::SIZE_2M.0 as u64;
/// Preferred page size of 1 GiB.
pub const KVM_MAP_GPA_RANGE_PAGE_SZ_1G: u64 = PageSize::SIZE_1G.0 as u64;
/// The range is to be private to the guest.
pub const KVM_MAP_GPA_RANGE_ENCRYPTED: u64 = MapGpaRange::ENCRYPTED;
/// The range is to be shared with the host.
pub const KVM_MAP_GPA_RANGE_DECRYPTED: u64 = 0;

/// Bit of `kvm_run.hypercall.flags`: the caller was in 64-bit mode.
pub const KVM_EXIT_HYPERCALL_LONG_MODE: u64 = 1;

/// A constant for each row of another architecture whose name is a macro of
/// its headers.
macro_rules! rows {
    ($($arch:ident: $($name:ident)*;)*) => {
        $($(
            #[doc = concat!("`", stringify!($name), "`, of [`Arch::", stringify!($arch), "`].")]
            pub const $name: u64 = number_of(Arch::$arch, stringify!($name));
        )*)*
    };
}

rows! {
    LoongArch: KVM_HCALL_FUNC_IPI KVM_HCALL_FUNC_NOTIFY KVM_HCALL_SWDBG KVM_HCALL_USER_SERVICE;
    Arm64: ARM_SMCCC_HV_PV_TIME_FEATURES ARM_SMCCC_HV_PV_TIME_ST
        ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID
        ARM_SMCCC_VENDOR_HYP_KVM_HYP_MEMINFO_FUNC_ID ARM_SMCCC_VENDOR_HYP_KVM_MEM_SHARE_FUNC_ID
        ARM_SMCCC_VENDOR_HYP_KVM_MEM_UNSHARE_FUNC_ID ARM_SMCCC_VENDOR_HYP_KVM_MMIO_GUARD_FUNC_ID
        ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_VER_FUNC_ID
        ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_CPUS_FUNC_ID;
}
