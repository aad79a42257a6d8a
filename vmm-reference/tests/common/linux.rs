//! Programs in place of Linux, in the files that Linux comes in: each does what
//! [`super::guests::module_printer`] does, from what its boot protocol hands it.

#![expect(
    unsafe_code,
    reason = "machine code is assembled here and its bytes are taken by symbol"
)]

use core::arch::global_asm;

/// Where all of these are loaded.
const LOAD: u32 = 0x10_0000;
/// Where an ELF file's note and code begin.
const NOTE: usize = 0x100;
const CODE: usize = 0x200;
/// Of a bzImage's protected-mode part: its 64-bit entry.
const ENTRY_64: usize = 0x200;
const SECTOR: usize = 512;

guest!(
    /// PVH: EBX is the start info (xen/include/public/arch-x86/hvm/start_info.h).
    pvh_printer, test_guest_pvh_start, test_guest_pvh_end,
    "   cmp  dword ptr [ebx], 0x336ec578",
    "   mov  al, 1",
    "   jne  9f",
    // One module, and where the tables begin.
    "   cmp  dword ptr [ebx + 12], 1",
    "   mov  al, 2",
    "   jne  9f",
    "   mov  esi, [ebx + 32]",
    "   cmp  dword ptr [esi], 0x20445352",
    "   jne  9f",
    "   mov  dx, 0x3f8",
    "   mov  esi, [ebx + 24]",
    "1: lodsb",
    "   test al, al",
    "   jz   2f",
    "   out  dx, al",
    "   jmp  1b",
    "2: mov  al, ':'",
    "   out  dx, al",
    "   mov  edi, [ebx + 16]",
    "   mov  esi, [edi]",
    "   mov  ecx, [edi + 8]",
    "3: lodsb",
    "   out  dx, al",
    "   dec  ecx",
    "   jnz  3b",
    "   mov  al, 10",
    "   out  dx, al",
    "   mov  al, 3",
    "9: out  0xf4, al",
    "4: hlt",
    "   jmp  4b",
);

guest!(
    /// The 64-bit protocol: RSI is the zero page (Documentation/arch/x86/
    /// zero-page.rst).
    linux_printer, test_guest_linux_start, test_guest_linux_end,
    ".code64",
    "   mov  rbx, rsi",
    "   cmp  dword ptr [rbx + 0x202], 0x53726448",
    "   mov  al, 1",
    "   jne  9f",
    "   mov  rsi, [rbx + 0x70]",
    "   cmp  dword ptr [rsi], 0x20445352",
    "   mov  al, 2",
    "   jne  9f",
    "   mov  dx, 0x3f8",
    "   mov  esi, [rbx + 0x228]",
    "1: lodsb",
    "   test al, al",
    "   jz   2f",
    "   out  dx, al",
    "   jmp  1b",
    "2: mov  al, ':'",
    "   out  dx, al",
    "   mov  esi, [rbx + 0x218]",
    "   mov  ecx, [rbx + 0x21c]",
    "3: lodsb",
    "   out  dx, al",
    "   dec  ecx",
    "   jnz  3b",
    "   mov  al, 10",
    "   out  dx, al",
    "   mov  al, 3",
    "9: out  0xf4, al",
    "4: hlt",
    "   jmp  4b",
);

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    let place = image.get_mut(at..at + bytes.len()).unwrap();
    place.copy_from_slice(bytes);
}

/// A vmlinux without a PVH note.
pub(crate) fn vmlinux() -> Vec<u8> {
    elf(&linux_printer(), false)
}

/// A vmlinux with one. Its ELF entry point is its ELF header, which is no code.
pub(crate) fn pvh() -> Vec<u8> {
    elf(&pvh_printer(), true)
}

fn elf(code: &[u8], pvh: bool) -> Vec<u8> {
    let mut image = vec![0; CODE];
    let start = u64::from(LOAD) + CODE as u64;
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    // Executable, x86-64, version 1; program headers, their size and number.
    put(&mut image, 16, &[2, 0, 62, 0, 1]);
    let entry = if pvh { u64::from(LOAD) } else { start };
    put(&mut image, 24, &entry.to_le_bytes());
    put(&mut image, 32, &[64]);
    put(&mut image, 52, &[64, 0, 56, 0, if pvh { 2 } else { 1 }]);
    // PT_LOAD of all of the file.
    put(&mut image, 64, &[1]);
    let bytes = (image.len() + code.len()) as u64;
    let fields = [0, u64::from(LOAD), u64::from(LOAD), bytes, bytes];
    for (at, field) in (72..).step_by(8).zip(fields) {
        put(&mut image, at, &field.to_le_bytes());
    }
    if pvh {
        // PT_NOTE: XEN_ELFNOTE_PHYS32_ENTRY, 18, of Xen.
        put(&mut image, 120, &[4]);
        put(&mut image, 128, &(NOTE as u64).to_le_bytes());
        put(&mut image, 152, &[24]);
        put(&mut image, 160, &[24]);
        put(&mut image, NOTE, &[4, 0, 0, 0, 8, 0, 0, 0, 18]);
        put(&mut image, NOTE + 12, b"Xen\0");
        put(&mut image, NOTE + 16, &start.to_le_bytes());
    }
    image.extend(code);
    image
}

/// A bzImage of protocol 2.15: one sector of setup, then what is loaded.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2 * SECTOR + ENTRY_64];
    put(&mut image, 0x1f1, &[1]);
    put(&mut image, 0x1fe, &[0x55, 0xaa]);
    put(&mut image, 0x202, b"HdrS\x0f\x02");
    // Loaded high, there; 64-bit entry; length of a command line; preferred
    // address and size of what is unpacked; the highest initrd address.
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x214, &LOAD.to_le_bytes());
    put(&mut image, 0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(&mut image, 0x236, &[1, 0]);
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &u64::from(LOAD).to_le_bytes());
    put(&mut image, 0x260, &0x1_0000u32.to_le_bytes());
    image.extend(linux_printer());
    // All behind the setup, in paragraphs of 16 bytes.
    image.resize(image.len().next_multiple_of(16), 0);
    let paragraphs = u32::try_from((image.len() - 2 * SECTOR) / 16).unwrap();
    put(&mut image, 0x1f4, &paragraphs.to_le_bytes());
    image
}
