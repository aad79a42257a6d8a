# shellcheck shell=bash
# soak: a Debian kernel in vmm-reference takes a lock from every CPU, prints and is
# typed to, while it is paused, stopped by SIGSTOP, kicked, saved, asked by clients
# that mean no good, and goes on in one new process after the other. No byte of its
# console is lost, no count goes back, nothing grows, nothing is left. The first fault
# by name is status 1.
#
#   ci/lab/run soak
#   ci/lab/run --kernel 6.1 soak --seconds 1800 --halt userspace --seed 2
#
#   --seconds N            how long, besides the boot and the end; default 40
#   --seed N               of the order in which it is done; default 1
#   --guest-kernel VERSION|PATH  as --kernel of the lab; default 6.12
# and --cpus (default 4), --halt, --pv of vmm-reference run.
seconds=40 seed=1 guest_cpus=4 guest_kernel=6.12 options=()
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage_error "soak: $1 needs a value"
  case $1 in
    --seconds) number "$1" "$2" && seconds=$2 ;;
    --seed) number "$1" "$2" && seed=$2 ;;
    --cpus) number "$1" "$2" && guest_cpus=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --halt | --pv) options+=("$1" "$2") ;;
    *) usage_error "soak: $1: not an option" ;;
  esac
  shift 2
done
# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
asker=$(lab_cc "$LAB_DIR/probes/ask.c")
lab_file "$asker" /bin/ask
clients=$(lab_cc "$LAB_DIR/probes/clients.c")
lab_file "$clients" /bin/clients
lab_file "$LAB_DIR/guest/soak" /bin/guest-soak
lab_vmm_file
[[ $limit != 300 ]] || limit=$((seconds + 300))
lab_command guest-soak "$seconds" "$seed" "$guest_cpus" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --memory 128M \
  --cpus "$guest_cpus" "${options[@]}" --cmdline "console=ttyS0 quiet panic=-1 busy=yes"
