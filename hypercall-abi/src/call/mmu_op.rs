/// `KVM_HC_MMU_OP`: batched page-table operations, of which KVM has removed
/// its side. The arguments are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmuOp {
    /// The four arguments.
    pub args: [u64; 4],
}
