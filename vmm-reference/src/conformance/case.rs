//! What a case consists of.

use cpuid_features::KvmFeatures;

use crate::halt_mode::HaltMode;
use crate::payload::script::Op;
use crate::transport::{HaltKick, Transport};

/// One case of the list.
pub struct Case {
    /// Its name, in the matrix.
    pub name: &'static str,
    /// What is expected, in a line.
    pub expects: &'static str,
    /// How it goes in a column, or why it can't be tried there.
    pub plan: fn(&CaseHost) -> Result<Plan, &'static str>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct CaseHost {
    /// How the guest halts and is kicked.
    pub halt_kick: HaltKick,
    /// What KVM reports; nothing for the hosted backend.
    pub features: KvmFeatures,
    /// The guest has local APICs: always where KVM halts it.
    pub apics: bool,
}

/// Why a case about interrupts is not possible.
pub const NO_APICS: &str = "no local APICs here";

impl CaseHost {
    /// KVM itself answers the guest's hypercalls.
    pub fn kvm_serves(&self) -> bool {
        self.halt_kick.transport == Transport::Kvm
    }

    /// For cases about the answers to hypercalls: not worth a second look where
    /// vCPUs halt in KVM and hypercalls come to this process all the same.
    pub fn answers(&self) -> Result<(), &'static str> {
        if self.halt_kick.halt == HaltMode::Kernel && !self.kvm_serves() {
            Err("KVM serves no hypercall here: no instruction completes")
        } else {
            Ok(())
        }
    }
}

/// The privilege and width of the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodeKind {
    /// 64-bit, CPL 0.
    #[default]
    Kernel64,
    /// 64-bit, CPL 3, with I/O privilege, so that the port can be tried too.
    User64,
    /// 32-bit, CPL 0; each vCPU makes one call, with [`UPPER`] in the upper
    /// halves of its registers.
    Kernel32,
}

/// What stands in the upper halves of the registers of 32-bit code.
pub const UPPER: u64 = 0xdead_beef_0000_0000;

/// What the host does meanwhile, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits until a word of the board is at least this.
    Await(u64, u64),
    /// Gives this vCPU the time to halt: until KVM says that it sleeps, or for a
    /// while.
    Asleep(usize),
    /// Waits until this vCPU has come to so many HLTs: whoever was kicked out of one
    /// may take long to come to the next, on a loaded host.
    Halts(usize, u64),
    /// Gives something that must not happen the time to happen.
    Linger,
    /// Sets a word of the board.
    Set(u64, u64),
    /// Kicks this vCPU.
    Kick(usize),
    /// Interrupts this vCPU; without local APICs, announces an interrupt to the one
    /// who put it to sleep.
    Interrupt(usize),
    /// Pauses and resumes the VM until a word of the board is at least this.
    PauseUntil(u64, u64),
}

/// What must be in a slot at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// What it leaves behind.
    pub what: Trace,
    /// The value expected.
    pub is: u64,
}

/// Something that a vCPU leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A slot of its result page.
    Slot(u64),
    /// Runs of its interrupt handler.
    Interrupts,
    /// HLTs it executed.
    Halts,
}

/// How a case goes. Beside what it expects, every vCPU must come to the end of
/// its list within the time, and no call may change a register but RAX.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// A list for each vCPU; its index is its APIC ID.
    pub vcpus: Vec<Vec<Op>>,
    /// What the host does.
    pub steps: Vec<Step>,
    /// What is expected.
    pub expect: Vec<Expect>,
    /// The guest's code.
    pub code: CodeKind,
    /// Features that are taken out of the guest's CPUID.
    pub mask: KvmFeatures,
    /// A call is refused whose feature the guest's CPUID does not show. On,
    /// unless said otherwise.
    pub lenient: bool,
    /// KVM_HC_MAP_GPA_RANGE is enabled.
    pub map_gpa_range: bool,
}
