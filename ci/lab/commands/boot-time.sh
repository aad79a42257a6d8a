# shellcheck shell=bash
# boot-time: the same kernel, initramfs and vCPUs in vmm-reference and in QEMU
# (q35 and microvm), in turns in one lab: seconds from start to the kernel's first
# message and to init.
#
#   ci/lab/run boot-time [--cpus N] [--rounds N] [--guest-kernel VERSION|PATH]
boot_cpus=4 rounds=3 guest_kernel=6.12
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || usage_error "boot-time: $1 needs a value"
  case $1 in
    --cpus) number "$1" "$2" && boot_cpus=$2 ;;
    --rounds) number "$1" "$2" && rounds=$2 ;;
    --guest-kernel) guest_kernel=$2 ;;
    *) usage_error "boot-time: $1: not an option" ;;
  esac
  shift 2
done
# shellcheck source-path=SCRIPTDIR source=../guest/tree.sh
. "$LAB_DIR/guest/tree.sh"
guest_files "$guest_kernel"
lab_file "$LAB_DIR/guest/boot-time" /bin/guest-boot-time
# QEMU with all that it loads.
qemu_program=$(command -v qemu-system-x86_64)
lab_file "$qemu_program" /bin/qemu-system-x86_64
while read -r library; do
  lab_file "$library" "$library"
done < <(ldd "$qemu_program" | grep -o '/[^ ]*')
for firmware in bios-256k.bin bios-microvm.bin qboot.rom linuxboot_dma.bin linuxboot.bin kvmvapic.bin; do
  for place in /usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu; do
    if [[ -e $place/$firmware ]]; then
      lab_file "$place/$firmware" "/usr/share/qemu/$firmware"
      break
    fi
  done
done
lab_vmm_file
lab_command guest-boot-time "$rounds" "$boot_cpus" \
  "console=ttyS0 earlyprintk=ttyS0 loglevel=6 panic=-1"
