# shellcheck shell=bash
# snapshot: boots a Debian kernel in vmm-reference, saves and restores it while all
# of its CPUs contend for a lock, each time in a new process, and wants it to end
# its work.
#
#   ci/lab/run snapshot --cpus 4 [--halt userspace] [--rounds 3]
#   ci/lab/run --kernel 6.12 snapshot --saved-on 6.1
#   ci/lab/run --kernel 6.12 --get /tmp/vm.gz:FILE snapshot --only save
#   ci/lab/run --kernel 6.1 --file FILE:/vm.gz snapshot --only restore
#
#   --saved-on VERSION|PATH      the first snapshot is made in a lab of this kernel,
#                                and the guest goes on in one of --kernel
#   --rounds N                   snapshots; default 3
#   --seconds N                  how long the guest takes the lock, by its own
#                                clock; default 10
#   --only save|restore          the first snapshot; what comes after it
#   --guest-kernel VERSION|PATH  as --kernel of the lab; default 6.12
# and --cpus (default 4), --halt, --pv of vmm-reference run.
guest_cpus=4 guest_kernel=6.12 seconds=10 rounds=3 only=all saved_on='' options=() saver=()
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage_error "snapshot: $1 needs a value"
  [[ $1 == --saved-on ]] || saver+=("$1" "$2")
  case $1 in
    --saved-on) saved_on=$2 ;;
    --cpus) number "$1" "$2" && guest_cpus=$2 ;;
    --rounds) number "$1" "$2" && rounds=$2 ;;
    --seconds) number "$1" "$2" && seconds=$2 ;;
    --only) only=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    --halt | --pv) options+=("$1" "$2") ;;
    *) usage_error "snapshot: $1: not an option" ;;
  esac
  shift 2
done
[[ $only =~ ^(all|save|restore)$ ]] || usage_error "snapshot: --only $only: not save or restore"
if [[ -n $saved_on ]]; then
  [[ $only == all ]] || usage_error "snapshot: --saved-on does what --only restricts"
  # shellcheck disable=SC2154 # of the script that sources this
  "$LAB_DIR/run" --kernel "$saved_on" --timeout "$limit" --get "/tmp/vm.gz:$run_dir/vm.gz" \
    snapshot "${saver[@]}" --only save >&2 || lab_die "no snapshot on $saved_on"
  lab_file "$run_dir/vm.gz" /vm.gz
  only=restore
fi
# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
asker=$(lab_cc "$LAB_DIR/probes/ask.c")
lab_file "$asker" /bin/ask
lab_file "$LAB_DIR/guest/snapshot" /bin/guest-snapshot
lab_vmm_file
lab_command guest-snapshot "$only" "$guest_cpus" "$rounds" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --memory 128M \
  --cpus "$guest_cpus" "${options[@]}" \
  --cmdline "console=ttyS0 quiet panic=-1 contend=$seconds"
