# shellcheck shell=bash
# The files of the lab's Linux guest; sourced by commands.

# guest_files VERSION|PATH: brings /guest/vmlinuz and /guest/initrd along.
guest_files() {
  local tree=$run_dir/guest dir image contend
  mkdir -p "$tree"/{proc,dev,sys,tmp}
  lab_busybox "$tree"
  install -m 755 "$LAB_DIR/guest/init" "$tree/init"
  contend=$(lab_cc "$LAB_DIR/probes/contend.c")
  install -m 755 "$contend" "$tree/bin/contend"
  lab_cpio "$tree" "$run_dir/guest.cpio"
  dir=$(lab_kernel "$1")
  image=$(lab_kernel_image "$dir")
  lab_file "$image" /guest/vmlinuz
  lab_file "$run_dir/guest.cpio" /guest/initrd
}
