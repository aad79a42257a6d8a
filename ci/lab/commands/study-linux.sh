# shellcheck shell=bash
# study-linux: workloads of a Linux guest with more and more vCPUs on the lab's
# one CPU: with paravirtual locks and without, halts in KVM and in vmm-reference, in
# turns; and the report that `vmm-reference study` makes, beside its data as JSON and
# CSV. Lab time is emulated: ratios and counts say something, times do not.
#
#   ci/lab/run study-linux
#   ci/lab/run study-linux --turns 1 --cpus 1,2 --workloads contend
#   ci/lab/run study-linux --turns 1 --cpus 4 --earlier study-linux/lines.json
#
#   --turns N              each guest so often; default 6, the fewest that have a
#                          95 % interval
#   --cpus LIST            vCPUs of the guests; default 1,2,4,8
#   --workloads LIST       default contend,hackbench,messaging,dbench
#   --modes LIST           who halts, kernel or userspace, and how the guest's locks
#                          wait: kernel and userspace with PV locks; kernel-native and
#                          userspace-native without PV_UNHALT, where Linux spins on a
#                          test-and-set lock; kernel-nopvspin and userspace-nopvspin by
#                          a queue that spins, as on hardware. Default all, in another
#                          order each turn
#   --guest-kernel VERSION|PATH  default 6.12
#   --earlier FILE         lines.json of an earlier run, whose measurements are in the
#                          report too: a study may be measured in pieces
#   --out DIR              for report.html, data.json, data.csv and lines.json, which has
#                          each measurement with all its counts; default study-linux
linux_turns=6 linux_cpus=1,2,4,8 guest_kernel=6.12 linux_out=study-linux
workloads=contend,hackbench,messaging,dbench
modes=kernel,userspace,kernel-native,userspace-native,kernel-nopvspin,userspace-nopvspin
earlier=''
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage_error "study-linux: $1 needs a value"
  case $1 in
    --turns) number "$1" "$2" && linux_turns=$2 ;;
    --cpus) linux_cpus=$2 ;;
    --workloads) workloads=$2 ;;
    --modes) modes=$2 ;;
    --earlier) earlier=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --out) linux_out=$2 ;;
    *) usage_error "study-linux: $1: not an option" ;;
  esac
  shift 2
done
[[ $linux_cpus =~ ^[1-9][0-9]?(,[1-9][0-9]?)*$ ]] ||
  usage_error "study-linux: --cpus $linux_cpus: not a list of numbers from 1 to 99"
[[ ,$workloads, =~ ^(,(contend|hackbench|messaging|dbench))+,$ ]] ||
  usage_error "study-linux: --workloads $workloads: not a list of contend, hackbench, messaging, dbench"
[[ ,$modes, =~ ^(,(kernel|userspace)(-native|-nopvspin)?)+,$ ]] ||
  usage_error "study-linux: --modes $modes: not a list of kernel, userspace, kernel-native, ..."
# Before hours of measuring.
mkdir -p "$linux_out" || usage_error "study-linux: --out $linux_out: no folder there"
programs=()
case $workloads in *hackbench*) programs+=(hackbench) ;; esac
case $workloads in *messaging*) programs+=(perf) ;; esac
case $workloads in *dbench*) programs+=(dbench) ;; esac

# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel" "${programs[@]}"
lab_file "$LAB_DIR/guest/drive" /bin/guest-drive
lab_file "$LAB_DIR/guest/study-linux" /bin/guest-study-linux
[[ -z $earlier ]] || lab_file "$earlier" /guest/earlier
lab_vmm_file
gets+=("/tmp/study/report.html:$linux_out/report.html" "/tmp/study/data.json:$linux_out/data.json"
  "/tmp/study/data.csv:$linux_out/data.csv" "/tmp/results:$linux_out/lines.json")
# A guest for each mode and number of vCPUs, each two minutes at most with some others
# beside the lab.
IFS=, read -ra linux_list <<<"$linux_cpus"
IFS=, read -ra linux_modes <<<"$modes"
[[ $limit != 300 ]] || limit=$((300 + linux_turns * ${#linux_list[@]} * ${#linux_modes[@]} * 120))
lab_command guest-study-linux "$linux_turns" "${linux_cpus//,/ }" "${workloads//,/ }" "${modes//,/ }"
