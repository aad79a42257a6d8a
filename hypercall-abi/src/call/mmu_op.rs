/// `KVM_HC_MMU_OP`: batched page-table operations, of which KVM has removed
/// its side. The arguments are kept as they came.
///
/// ```
/// use hypercall_abi::{Hypercall, Mode, RawHypercall};
///
/// let raw = RawHypercall { nr: 2, args: [1, 2, 3, 4], mode: Mode::Bits64, cpl: 0 };
/// let Hypercall::MmuOp(call) = raw.decode() else { unreachable!() };
/// assert_eq!(call.args, [1, 2, 3, 4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmuOp {
    /// The four argument registers, a0 first, as the guest passed them.
    pub args: [u64; 4],
}
