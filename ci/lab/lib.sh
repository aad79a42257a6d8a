# shellcheck shell=bash
# What lab_locked runs is in its subshell, where $work is set.
# shellcheck disable=SC2030,SC2031
# The lab's parts, for `run` and for the commands in commands/: packages,
# kernels, archives for the kernel to unpack, static programs. Sourced, never
# run; README.md tells how a command uses it.
#
# Everything made here lands in $LAB_CACHE, which git ignores and which may be
# removed at any time. What is expensive is named by the content it was made
# from, so nothing in it is ever stale except the choice of kernel.

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_ROOT=$(cd "$LAB_DIR/../.." && pwd)
LAB_CACHE=${LAB_CACHE:-$LAB_DIR/cache}
# The three modules of a real /dev/kvm on AMD; what they need comes with them.
LAB_MODULES=(irqbypass kvm kvm-amd)

# Exit statuses of the lab itself; every other status is the command's own.
# shellcheck disable=SC2034 # used by run
LAB_STATUS_TIMEOUT=124
LAB_STATUS_FAULT=125

# lab_say TEXT: one line of the lab's own, on stderr, told from the command's
# by its prefix.
lab_say() { printf 'lab: %s\n' "$*" >&2; }

# lab_die TEXT: the lab cannot do what it was asked.
lab_die() {
  lab_say "$@"
  exit "$LAB_STATUS_FAULT"
}

# lab_locked COMMAND...: one at a time for all who share this cache. The lock
# is not handed on to children, which could outlive us and keep it. COMMAND
# finds an empty directory $work, which goes away with it. Not to be nested: it
# would wait for itself.
lab_locked() {
  mkdir -p "$LAB_CACHE"
  (
    flock -w 900 9 || lab_die "waited 15 minutes for another lab to leave $LAB_CACHE/.lock"
    work=$(mktemp -d "$LAB_CACHE/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$@" 9>&-
  ) 9>"$LAB_CACHE/.lock"
}

# lab_need COMMAND:PACKAGE...: makes sure that the commands exist: installs the
# packages as root, or says in one line what to install.
lab_need() {
  local pair missing=()
  for pair in "$@"; do
    # busybox must run with no library beside it, and Debian has a package of
    # the same command that does not.
    if ! command -v "${pair%%:*}" >/dev/null ||
      { [[ ${pair%%:*} == busybox ]] && ! lab_is_static "$(command -v busybox)"; }; then
      missing+=("${pair#*:}")
    fi
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  local install="apt-get install --no-install-recommends ${missing[*]}"
  [[ $(id -u) == 0 ]] || lab_die "missing packages; as root: $install"
  lab_say "$install"
  lab_apt_install "${missing[@]}" || { apt-get -qq update && lab_apt_install "${missing[@]}"; } ||
    lab_die "could not install ${missing[*]}"
}

lab_apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
    </dev/null >/dev/null
}

# lab_is_static FILE: the initramfs has no dynamic loader.
lab_is_static() {
  [[ $(ldd "$1" 2>/dev/null) != *'=>'* ]]
}

# --- kernels ---------------------------------------------------------------

# lab_kernel VERSION|PATH: prints a directory holding an unpacked kernel:
# boot/vmlinuz-* and, but for a bare image, lib/modules/*. A VERSION (6.12) is
# Debian's newest cloud kernel of that line, fetched once; a PATH is a kernel
# package (.deb), a directory into which one was unpacked, or a bare bzImage
# that has KVM built in.
lab_kernel() {
  local kernel=$1 dir
  case $kernel in
    [0-9].[0-9] | [0-9].[0-9][0-9])
      dir=$LAB_CACHE/kernel-$kernel
      [[ -d $dir ]] || lab_locked lab_fetch_kernel "$kernel" "$dir" >&2
      ;;
    *)
      [[ -e $kernel ]] || lab_die "--kernel $kernel: neither a version such as 6.12 nor a file"
      if [[ -d $kernel ]]; then
        dir=$(cd "$kernel" && pwd)
      else
        dir=$LAB_CACHE/kernel-$(sha256sum <"$kernel" | cut -c1-16)
        [[ -d $dir ]] || lab_locked lab_unpack_kernel "$kernel" "$dir"
      fi
      ;;
  esac
  lab_kernel_image "$dir" >/dev/null
  printf '%s\n' "$dir"
}

# lab_kernel_image DIR: prints the path of the kernel in a lab_kernel directory.
lab_kernel_image() {
  local images=("$1"/boot/vmlinuz-*)
  [[ ${#images[@]} == 1 && -f ${images[0]} ]] ||
    lab_die "$1: not one boot/vmlinuz-* but: ${images[*]##*/}"
  printf '%s\n' "${images[0]}"
}

# apt-get verifies what it downloads against the archive's signed indices.
lab_fetch_kernel() {
  local version=$1 dir=$2 package
  [[ ! -d $dir ]] || return 0
  package=$(lab_newest_kernel_package "$version")
  if [[ -z $package && $(id -u) == 0 ]]; then
    apt-get -qq update
    package=$(lab_newest_kernel_package "$version")
  fi
  [[ -n $package ]] ||
    lab_die "apt knows no linux-image-$version.*-cloud-amd64: run apt-get update as root, or give --kernel PATH"
  lab_say "fetching $package"
  # apt drops its privileges for a download, so it must be able to write there.
  [[ $(id -u) != 0 ]] || chown _apt "$work" 2>/dev/null || true
  # Old lists name a version that the archive has already replaced.
  lab_apt_download "$work" "$package" ||
    { [[ $(id -u) == 0 ]] && apt-get -qq update && lab_apt_download "$work" "$package"; } ||
    lab_die "could not download $package"
  lab_unpack_kernel "$work"/*.deb "$dir"
}

lab_apt_download() {
  (cd "$1" && apt-get -qq download "$2")
}

# Prints the newest image package of a line; the signed build where there is one.
lab_newest_kernel_package() {
  local names
  names=$(apt-cache search --names-only "^linux-image-${1//./\\.}[.][^ ]*-cloud-amd64(-unsigned)?\$" |
    cut -d' ' -f1 | sort -V)
  { grep -v -- '-unsigned$' <<<"$names" || printf '%s\n' "$names"; } | tail -n 1
}

lab_unpack_kernel() {
  local file=$1 dir=$2 tree=$work/tree name
  [[ ! -d $dir ]] || return 0
  mkdir "$tree"
  case $file in
    *.deb)
      dpkg -x "$file" "$tree"
      rm -rf "${tree:?}/usr" "$tree"/boot/System.map-*
      printf '%s\n' "${file##*/}" >"$tree/package"
      ;;
    *)
      mkdir "$tree/boot"
      name=${file##*/}
      cp "$file" "$tree/boot/vmlinuz-${name#vmlinuz-}"
      ;;
  esac
  mv -T "$tree" "$dir"
}

# lab_modules DIR STAGE NAME...: copies modules of a lab_kernel directory and
# those that they depend on into STAGE/lib/modules, uncompressed, and adds
# their names to STAGE/lib/modules/order, dependencies first. A module that is
# not there is taken to be built in.
lab_modules() {
  local dir=$1 stage=$2/lib/modules name file needs
  shift 2
  mkdir -p "$stage"
  touch "$stage/order"
  for name in "$@"; do
    # The kernel takes - and _ for the same in a module's name.
    ! grep -qx -- "${name//_/-}" "$stage/order" || continue
    file=$(find "$dir/lib/modules" -name "${name//[-_]/[-_]}.ko*" -print -quit 2>/dev/null || true)
    [[ -n $file ]] || continue
    case $file in
      *.xz) xz -dc "$file" ;;
      *.zst) zstd -dcq "$file" ;;
      *) cat "$file" ;;
    esac >"$stage/${name//_/-}.ko"
    needs=$(tr '\0' '\n' <"$stage/${name//_/-}.ko" | sed -n 's/^depends=//p' | tr ',' ' ')
    # shellcheck disable=SC2086 # a list of names, none with spaces
    lab_modules "$dir" "${stage%/lib/modules}" $needs
    printf '%s\n' "${name//_/-}" >>"$stage/order"
  done
}

# --- archives --------------------------------------------------------------

# lab_cpio STAGE OUT: packs a directory tree as an initramfs. Uncompressed:
# unpacking would cost the emulated CPU more than copying costs the real one.
# The kernel unpacks several, one after the other, from one file.
lab_cpio() {
  (cd "$1" && find . -mindepth 1 | LC_ALL=C sort |
    cpio --create --format=newc --owner=0:0 --reproducible --quiet) >"$2"
}

# lab_busybox STAGE: busybox under all its names in STAGE/bin.
lab_busybox() {
  local name
  mkdir -p "$1/bin"
  cp "$(command -v busybox)" "$1/bin/busybox"
  for name in $(busybox --list); do
    [[ $name == busybox ]] || ln -s busybox "$1/bin/${name##*/}"
  done
}

# lab_initramfs DIR: prints the path of the lab's own initramfs for a
# lab_kernel directory: busybox, the modules, init. Named by its content.
lab_initramfs() {
  local dir=$1 key out
  key=$({
    printf '%s\n' "$dir" "${LAB_MODULES[@]}"
    cat "$LAB_DIR/init" "$LAB_DIR/lib.sh" "$(command -v busybox)"
    sha256sum <"$(lab_kernel_image "$dir")"
  } | sha256sum | cut -c1-16)
  out=$LAB_CACHE/initramfs-$key.cpio
  [[ -f $out ]] || lab_locked lab_make_initramfs "$dir" "$out"
  printf '%s\n' "$out"
}

lab_make_initramfs() {
  local dir=$1 out=$2 stage=$work/stage
  [[ ! -f $out ]] || return 0
  mkdir -p "$stage"/{proc,sys,dev,tmp,run,lab}
  lab_busybox "$stage"
  lab_modules "$dir" "$stage" "${LAB_MODULES[@]}"
  install -m 755 "$LAB_DIR/init" "$stage/init"
  lab_cpio "$stage" "$work/cpio"
  mv "$work/cpio" "$out"
  # Those of older kernels and of an older init.
  find "$LAB_CACHE" -maxdepth 1 -name 'initramfs-*' -mtime +0 -delete
}

# --- programs --------------------------------------------------------------

# lab_cargo PACKAGE --bin|--example NAME: builds a static program of the
# workspace and prints its path. A target directory of its own: other flags
# would rebuild the whole tree twice a run. With --target the flags stay off
# build scripts and procedural macros, which cannot be static.
lab_cargo() {
  local package=$1 kind=$2 name=$3 triple=x86_64-unknown-linux-gnu target program log
  target=${CARGO_TARGET_DIR:-$LAB_ROOT/target}/lab
  program=$target/$triple/release/$name
  [[ $kind != --example ]] || program=$target/$triple/release/examples/$name
  # Standard error is the command's, unless there is something to say.
  log=$(
    exec 2>&1 </dev/null
    cd "$LAB_ROOT" && unset CARGO_ENCODED_RUSTFLAGS &&
      RUSTFLAGS='-C target-feature=+crt-static' CARGO_PROFILE_RELEASE_STRIP=debuginfo \
        cargo build --quiet --locked --release --target "$triple" --target-dir "$target" \
        --package "$package" "$kind" "$name"
  ) || {
    printf '%s\n' "$log" >&2
    lab_die "$name did not build"
  }
  lab_is_static "$program" || lab_die "$program is not static"
  printf '%s\n' "$program"
}

# lab_cc SOURCE: compiles one C file as a static program, prints its path.
lab_cc() {
  local source=$1 out
  lab_need cc:gcc
  out=$LAB_CACHE/$(basename "$source" .c)-$(sha256sum <"$source" | cut -c1-16)
  if [[ ! -x $out ]]; then
    mkdir -p "$LAB_CACHE"
    cc -std=gnu11 -O2 -static -Wall -Wextra -Werror -o "$out.$$" "$source" >&2 ||
      lab_die "$source did not compile (libc6-dev and linux-libc-dev are needed)"
    mv "$out.$$" "$out"
  fi
  printf '%s\n' "$out"
}
