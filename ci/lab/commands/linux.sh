# shellcheck shell=bash
# linux: boots a Debian kernel in vmm-reference and asserts what it says of its
# CPUs, of PV spinlocks, and what KVM counted.
#
#   ci/lab/run linux --cpus 4
#   ci/lab/run linux --cpus 4 --guest-kernel 6.1 --pv=-pv-unhalt
#   ci/lab/run linux --cpus 4 --pv=+realtime
#   ci/lab/run linux --cpus 4 --cmdline nopvspin
#
#   --guest-kernel VERSION|PATH  as --kernel of the lab; default 6.12
#   --seconds N                  how long the guest takes the lock; default 3
#   --cmdline TEXT               more of a command line
#   --end poweroff|reboot        how the guest ends; default poweroff
#   --expect WHAT                enabled, no-host, realtime, nopvspin, single; default
#                                what --cpus, --pv and --cmdline make of it
# and --cpus, --memory, --pv, --halt, --control of vmm-reference run.
#
# Two features that are hypercalls of their own stay off (--all-pv leaves them
# on), so that what KVM counts are kicks.
pv=-pv-send-ipi,-pv-sched-yield
guest_cpus=1 guest_kernel=6.12 seconds=3 cmdline='' expect='' end=poweroff options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --pv=*) pv+=${pv:+,}${1#--pv=} && shift && continue ;;
    --all-pv) pv='' && shift && continue ;;
    --*) [[ $# -ge 2 ]] || usage_error "linux: $1 needs a value" ;;
    *) usage_error "linux: $1: not an option" ;;
  esac
  case $1 in
    --cpus) number "$1" "$2" && guest_cpus=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --seconds) number "$1" "$2" && seconds=$2 ;;
    --cmdline) cmdline=$2 ;;
    --expect) expect=$2 ;;
    --end) end=$2 ;;
    --pv) pv+=${pv:+,}$2 ;;
    --memory | --halt | --control) options+=("$1" "$2") ;;
    *) usage_error "linux: $1: not an option" ;;
  esac
  shift 2
done
if [[ -z $expect && $guest_cpus == 1 ]]; then
  expect=single
elif [[ -z $expect ]]; then
  case ",$pv, $cmdline " in
    *' nopvspin '*) expect=nopvspin ;;
    *,+realtime,*) expect=realtime ;;
    *,-pv-unhalt,*) expect=no-host ;;
    *) expect=enabled ;;
  esac
fi
# The message of kvm_spinlock_init. Since its tests were put in another order a
# guest with the hint and without the feature names the hint.
hypercalls=none
case $expect in
  enabled) message='PV spinlocks enabled' hypercalls=some ;;
  no-host) message='PV spinlocks disabled, no host support' ;;
  realtime) message='PV spinlocks disabled with KVM_HINTS_REALTIME hints' ;;
  nopvspin) message='PV spinlocks disabled, forced by "nopvspin" parameter' ;;
  # vmm-reference offers one vCPU no PV_UNHALT.
  single) message='PV spinlocks disabled, (single CPU|no host support)' ;;
  *) usage_error "linux: --expect $expect: not enabled, no-host, realtime, nopvspin or single" ;;
esac

# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
lab_file "$LAB_DIR/guest/check" /bin/check-linux
lab_vmm_file
lab_command check-linux "$guest_cpus" "$message" "$hypercalls" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --stats \
  --cpus "$guest_cpus" "${options[@]}" --pv="$pv" \
  --cmdline "console=ttyS0 quiet panic=-1 type=yes contend=$seconds end=$end $cmdline"
