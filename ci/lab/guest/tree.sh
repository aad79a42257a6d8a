# shellcheck shell=bash
# The lab's Linux guest: a Debian kernel and an initramfs with busybox, init,
# contend, and programs of Debian packages. Sourced by commands.
#
# Its command line says what init does: guest/init has the words.

# guest_files VERSION|PATH [PROGRAM...]: brings /guest/vmlinuz and /guest/initrd
# along, with these programs of packages in the initramfs.
guest_files() {
  local tree=$run_dir/guest dir image contend programs
  mkdir -p "$tree"/{proc,dev,sys,tmp}
  lab_busybox "$tree"
  install -m 755 "$LAB_DIR/guest/init" "$tree/init"
  install -m 755 "$LAB_DIR/guest/work" "$tree/bin/work"
  install -m 755 "$LAB_DIR/guest/busy" "$tree/bin/busy"
  contend=$(lab_cc "$LAB_DIR/probes/contend.c")
  install -m 755 "$contend" "$tree/bin/contend"
  lab_cpio "$tree" "$run_dir/guest.cpio"
  dir=$(lab_kernel "$1")
  image=$(lab_kernel_image "$dir")
  shift
  if [[ $# -gt 0 ]]; then
    programs=$(guest_programs "$@")
    cat "$programs" >>"$run_dir/guest.cpio"
  fi
  lab_file "$image" /guest/vmlinuz
  lab_file "$run_dir/guest.cpio" /guest/initrd
}

# guest_vmlinux: the guest's kernel is the ELF file that its bzImage has in it, with
# the note by which it is booted by PVH. `guest_files` first.
guest_vmlinux() {
  local image=$stage/guest/vmlinuz
  mkdir -p "$run_dir/vmlinux"
  guest_payload "$image" >"$run_dir/vmlinux/vmlinuz" || lab_die "$image: no vmlinux came out of it"
  mv "$run_dir/vmlinux/vmlinuz" "$image"
}

# guest_payload BZIMAGE: prints what it unpacks when it boots: an ELF file. Where that
# is and how long is in its header (Documentation/arch/x86/boot.rst); its last four
# bytes are the length of what comes out.
guest_payload() {
  local sectors at length magic payload=$run_dir/vmlinux/payload
  sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
  at=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
  length=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
  tail -c +$(((sectors + 1) * 512 + at + 1)) "$1" | head -c $((length - 4)) >"$payload"
  magic=$(od -An -tx1 -N 4 "$payload")
  case $magic in
    ' 28 b5 2f fd') lab_need zstd:zstd && zstd -dcq --long=31 "$payload" ;;
    ' fd 37 7a 58') xz -dc "$payload" ;;
    *) lab_die "$1: its payload begins with$magic, which is neither zstd nor xz" ;;
  esac
}

# guest_package PROGRAM: prints the Debian package that has it.
guest_package() {
  case $1 in
    hackbench) echo rt-tests ;;
    # With the interpreters that it is linked to, 40 MB.
    perf) echo linux-perf ;;
    dbench) echo dbench ;;
    *) lab_die "$1: no program that the guest can have; hackbench, perf or dbench" ;;
  esac
}

# guest_programs PROGRAM...: prints the path of an initramfs archive with these
# programs and the libraries they need. Named by its content.
guest_programs() {
  local name package pairs=() files=() key out
  for name in "$@"; do
    package=$(guest_package "$name")
    pairs+=("$name:$package")
  done
  lab_need "${pairs[@]}"
  for name in "$@"; do
    files+=("$(command -v "$name")")
    # The load that it plays.
    [[ $name != dbench ]] || files+=(/usr/share/dbench/client.txt)
  done
  key=$({ cat "$LAB_DIR/guest/tree.sh" && guest_with_libraries "${files[@]}" | xargs sha256sum; } |
    sha256sum | cut -c1-16)
  out=$LAB_CACHE/programs-$key.cpio
  [[ -f $out ]] || lab_locked guest_make_programs "$out" "${files[@]}"
  printf '%s\n' "$out"
}

# Prints the files, and those that their dynamic loader would load with them.
guest_with_libraries() {
  local file
  for file in "$@"; do
    printf '%s\n' "$file"
    { ldd "$file" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; }
  done | sort -u
}

# Run by lab_locked, with a directory $work of its own.
# shellcheck disable=SC2154
guest_make_programs() {
  local out=$1 stage=$work/stage file
  shift
  [[ ! -f $out ]] || return 0
  while read -r file; do
    mkdir -p "$stage$(dirname "$file")"
    cp -L --preserve=mode "$file" "$stage$file"
  done < <(guest_with_libraries "$@")
  lab_cpio "$stage" "$work/cpio"
  mv "$work/cpio" "$out"
}

# guest_kexec: the guest has its kernel and its initramfs in /kexec, for it to start
# the same again.
guest_kexec() {
  local tree=$run_dir/kexec kexec
  mkdir -p "$tree"/{bin,kexec}
  kexec=$(lab_cc "$LAB_DIR/probes/kexec.c")
  install -m 755 "$kexec" "$tree/bin/kexec"
  cp "$stage/guest/vmlinuz" "$stage/guest/initrd" "$tree/kexec"
  lab_cpio "$tree" "$run_dir/kexec.cpio"
  cat "$run_dir/kexec.cpio" >>"$stage/guest/initrd"
}
