//! Constants under the kernel's exact names, for code that is compared with the
//! kernel's headers. Those of features and hints are bit numbers;
//! [`KvmFeatures`] has masks.
//!
//! ```
//! use cpuid_features::kernel::{KVM_FEATURE_PV_UNHALT, MSR_KVM_STEAL_TIME};
//!
//! assert_eq!(KVM_FEATURE_PV_UNHALT, 7);
//! assert_eq!(MSR_KVM_STEAL_TIME, 0x4b56_4d03);
//! ```

use crate::bits::{KvmFeatures, KvmHints};
use crate::msr;

pub use crate::leaf::{KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE};

macro_rules! bits {
    ($($set:ident: $($name:ident = $flag:ident)*;)*) => {
        $($(
            #[doc = concat!("Bit number of [`", stringify!($set), "::", stringify!($flag), "`].")]
            pub const $name: u32 = $set::$flag.bits().trailing_zeros();
        )*)*
    };
}

bits! {
    KvmFeatures:
        KVM_FEATURE_CLOCKSOURCE = CLOCKSOURCE
        KVM_FEATURE_NOP_IO_DELAY = NOP_IO_DELAY
        KVM_FEATURE_MMU_OP = MMU_OP
        KVM_FEATURE_CLOCKSOURCE2 = CLOCKSOURCE2
        KVM_FEATURE_ASYNC_PF = ASYNC_PF
        KVM_FEATURE_STEAL_TIME = STEAL_TIME
        KVM_FEATURE_PV_EOI = PV_EOI
        KVM_FEATURE_PV_UNHALT = PV_UNHALT
        KVM_FEATURE_PV_TLB_FLUSH = PV_TLB_FLUSH
        KVM_FEATURE_ASYNC_PF_VMEXIT = ASYNC_PF_VMEXIT
        KVM_FEATURE_PV_SEND_IPI = PV_SEND_IPI
        KVM_FEATURE_POLL_CONTROL = POLL_CONTROL
        KVM_FEATURE_PV_SCHED_YIELD = PV_SCHED_YIELD
        KVM_FEATURE_ASYNC_PF_INT = ASYNC_PF_INT
        KVM_FEATURE_MSI_EXT_DEST_ID = MSI_EXT_DEST_ID
        KVM_FEATURE_HC_MAP_GPA_RANGE = HC_MAP_GPA_RANGE
        KVM_FEATURE_MIGRATION_CONTROL = MIGRATION_CONTROL
        KVM_FEATURE_CLOCKSOURCE_STABLE_BIT = CLOCKSOURCE_STABLE_BIT;
    KvmHints:
        KVM_HINTS_REALTIME = REALTIME;
}

macro_rules! msrs {
    ($($name:ident = $msr:ident)*) => {
        $(
            #[doc = concat!("Index of [`msr::", stringify!($msr), "`].")]
            pub const $name: u32 = msr::$msr.index;
        )*
    };
}

msrs! {
    MSR_KVM_WALL_CLOCK = WALL_CLOCK
    MSR_KVM_SYSTEM_TIME = SYSTEM_TIME
    MSR_KVM_WALL_CLOCK_NEW = WALL_CLOCK_NEW
    MSR_KVM_SYSTEM_TIME_NEW = SYSTEM_TIME_NEW
    MSR_KVM_ASYNC_PF_EN = ASYNC_PF_EN
    MSR_KVM_STEAL_TIME = STEAL_TIME
    MSR_KVM_PV_EOI_EN = PV_EOI_EN
    MSR_KVM_POLL_CONTROL = POLL_CONTROL
    MSR_KVM_ASYNC_PF_INT = ASYNC_PF_INT
    MSR_KVM_ASYNC_PF_ACK = ASYNC_PF_ACK
    MSR_KVM_MIGRATION_CONTROL = MIGRATION_CONTROL
}
