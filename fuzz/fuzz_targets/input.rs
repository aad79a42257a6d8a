//! Inputs of fixed fields.

/// Takes the next field off the input; what is missing reads as 0.
pub fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let mut field = [0; N];
    for byte in &mut field {
        if let Some((first, rest)) = input.split_first() {
            *byte = *first;
            *input = rest;
        }
    }
    field
}
