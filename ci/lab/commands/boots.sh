# shellcheck shell=bash
# boots: boots a Debian kernel in vmm-reference again and again, prints a row of
# counts for each, and fails if one is lost.
#
#   ci/lab/run --stream boots --boots 20 --cpus 4 --halt userspace
#   ci/lab/run --stream boots --boots 12 --cpus 16 --halt userspace --yield nothing,hold
#
# The lab's bound is what they may take, all of them, unless --timeout says otherwise.
#
#   --boots N                    how many; default 20
#   --yield POLICY,POLICY...     of vmm-reference run, in turns; default its own
#   --pv-turns=NAMES,NAMES...    in place of that: each +NAME or -NAME of --pv, or - for
#                                its own, in turns
#   --limit N                    seconds after which a boot is lost; default 120, and
#                                more where the host has other things to do
#   --seconds N                  how long the guest takes the lock; default 1
#   --guest-kernel VERSION|PATH  as --kernel of the lab; default 6.12
# and --cpus, --halt, --pv of vmm-reference run.
boots=20 guest_cpus=4 limit_each=120 seconds=1 turns=- guest_kernel=6.12 options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --pv=*) options+=("$1") && shift && continue ;;
    --pv-turns=*) turns=${1#--pv-turns=} && turns=${turns//,/ } && shift && continue ;;
    --*) [[ $# -ge 2 ]] || usage_error "boots: $1 needs a value" ;;
    *) usage_error "boots: $1: not an option" ;;
  esac
  case $1 in
    --boots) number "$1" "$2" && boots=$2 ;;
    --cpus) number "$1" "$2" && guest_cpus=$2 ;;
    --limit) number "$1" "$2" && limit_each=$2 ;;
    --seconds) number "$1" "$2" && seconds=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --yield) turns=${2//,/ } ;;
    --halt) options+=("$1" "$2") ;;
    *) usage_error "boots: $1: not an option" ;;
  esac
  shift 2
done

# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
lab_file "$LAB_DIR/guest/boots" /bin/boots
lab_vmm_file
read -ra every <<<"$turns"
[[ $limit != 300 ]] || limit=$((60 + (boots + ${#every[@]}) * limit_each))
lab_command boots "$boots" "$guest_cpus" "$limit_each" "$turns" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --stats \
  --cpus "$guest_cpus" "${options[@]}" \
  --cmdline "console=ttyS0 quiet panic=-1 contend=$seconds"
