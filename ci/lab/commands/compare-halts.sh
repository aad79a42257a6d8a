# shellcheck shell=bash
# compare-halts: one Linux guest with halts in KVM, in vmm-reference, and in KVM with
# kicks by way of vmm-reference, in turns in one lab: operations a second of each
# workload, exits for each operation by kind, ratios to KVM's halts with their
# spread.
#
#   ci/lab/run compare-halts
#   ci/lab/run compare-halts --turns 1 --workloads contend --json
#
#   --turns N              each mode so often; default 5
#   --cpus N               of the guest; default 4
#   --modes LIST           default kernel,userspace,forwarded; there are also
#                          userspace-plain (no paravirtual EOI and IPI),
#                          userspace-no-steal and kernel-no-steal (no steal time),
#                          userspace-xapic, userspace-nothing and userspace-hold
#                          (--yield)
#   --workloads LIST       default contend,hackbench,messaging; there are also
#                          pipe and idle (guest/work), and none: boots only
#   --guest-kernel VERSION|PATH  default 6.12
#   --json                 each measurement with all its counts
compare_turns=5 compare_cpus=4 guest_kernel=6.12 format=text
modes=kernel,userspace,forwarded workloads=contend,hackbench,messaging
while [[ $# -gt 0 ]]; do
  [[ $1 != --json ]] || { format=json && shift && continue; }
  [[ $# -ge 2 ]] || usage_error "compare-halts: $1 needs a value"
  case $1 in
    --turns) number "$1" "$2" && compare_turns=$2 ;;
    --cpus) number "$1" "$2" && compare_cpus=$2 ;;
    --modes) modes=$2 ;;
    --workloads) workloads=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    *) usage_error "compare-halts: $1: not an option" ;;
  esac
  shift 2
done
[[ ,$modes, =~ ^(,(kernel(-no-steal)?|userspace(-plain|-no-steal|-xapic|-nothing|-hold)?|forwarded))+,$ ]] ||
  usage_error "compare-halts: --modes $modes: not a list of kernel, kernel-no-steal, forwarded, userspace, userspace-plain, userspace-no-steal, userspace-xapic, userspace-nothing, userspace-hold"
[[ $workloads != none ]] || workloads=''
[[ ,$workloads, =~ ^(,(contend|hackbench|messaging|pipe|idle))*,$|^,,$ ]] ||
  usage_error "compare-halts: --workloads $workloads: not a list of contend, hackbench, messaging, pipe, idle"
programs=()
case $workloads in *hackbench*) programs+=(hackbench) ;; esac
case $workloads in *messaging* | *pipe*) programs+=(perf) ;; esac

# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel" "${programs[@]}"
lab_file "$LAB_DIR/guest/drive" /bin/guest-drive
lab_file "$LAB_DIR/guest/compare-halts" /bin/guest-compare-halts
lab_file "$LAB_DIR/guest/compare.awk" /lib/compare.awk
lab_vmm_file
# Half a minute a turn and mode, and thrice that on a loaded machine.
[[ $limit != 300 ]] || limit=$((300 + compare_turns * 300))
lab_command guest-compare-halts "$compare_turns" "$compare_cpus" "$format" "${modes//,/ }" "${workloads//,/ }"
