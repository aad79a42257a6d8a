# shellcheck shell=bash
# slow-disk: SIGTERM ends vmm-reference while its snapshot is on the way to a slow disk,
# whichever part of it that is, and leaves what had the snapshot's name before.
#
#   ci/lab/run slow-disk
#   ci/lab/run slow-disk --rate 2M --file-system overlay
#
#   --rate BYTES           what the disk writes a second; default 8M
#   --noise MIB            how much of the guest's memory has something; default 48
#   --moments LIST         seconds from the request for the snapshot to SIGTERM; default
#                          0.3,1,2,4,6
#   --file-system NAME     ext4 (default), or overlay over it
#   --flusher yes|no       whether the kernel writes by itself meanwhile, as it does when
#                          a tenth of its memory waits to be written; default no. What it
#                          has given to the disk's queue by then is waited for as the
#                          half file is removed, in the kernel
disk_flusher=no disk_rate=8M disk_noise=48 disk_moments=0.3,1,2,4,6 disk_system=ext4
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage_error "slow-disk: $1 needs a value"
  case $1 in
    --rate) disk_rate=$2 ;;
    --noise) number "$1" "$2" && disk_noise=$2 ;;
    --moments) disk_moments=$2 ;;
    --file-system) disk_system=$2 ;;
    --flusher) disk_flusher=$2 ;;
    *) usage_error "slow-disk: $1: not an option" ;;
  esac
  shift 2
done
[[ $disk_system =~ ^(ext4|overlay)$ ]] ||
  usage_error "slow-disk: --file-system $disk_system: not ext4 or overlay"
[[ $disk_flusher =~ ^(yes|no)$ ]] || usage_error "slow-disk: --flusher $disk_flusher: not yes or no"
disk_bytes=$(numfmt --from=iec "$disk_rate" 2>/dev/null) ||
  usage_error "slow-disk: --rate $disk_rate: not a number of bytes such as 8M"
# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files 6.12
# What of the guest's memory has to be written.
mkdir -p "$run_dir/noise"
head -c "$disk_noise"M /dev/urandom >"$run_dir/noise/noise"
lab_cpio "$run_dir/noise" "$run_dir/noise.cpio"
cat "$run_dir/noise.cpio" >>"$stage/guest/initrd"
rm -r "$run_dir"/noise*
# The disk, and what its driver needs.
lab_need mke2fs:e2fsprogs
truncate -s 2G "$run_dir/disk"
mke2fs -q -t ext4 "$run_dir/disk" >&2
lab_disk "$run_dir/disk" "$disk_bytes"
# shellcheck disable=SC2154 # of the script that sources this
lab_modules "$(lab_kernel "$kernel")" "$stage/disk" virtio_blk virtio_pci ext4 overlay
asker=$(lab_cc "$LAB_DIR/probes/ask.c")
lab_file "$asker" /bin/ask
lab_file "$LAB_DIR/guest/slow-disk" /bin/guest-slow-disk
lab_vmm_file
lab_command guest-slow-disk "$disk_system" "${disk_moments//,/ }" "$disk_flusher" \
  vmm-reference run --kernel /guest/vmlinuz --initrd /guest/initrd --memory 256M \
  --control /tmp/control --cmdline "console=ttyS0 quiet panic=-1 end=stop"
