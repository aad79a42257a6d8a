//! What a client sends to the control socket, in pieces: the first byte is
//! their length.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use vmm_reference::control::{LINE_MAX, Lines, Request, Target, answer, too_long};

/// Refuses every other request.
#[derive(Default)]
struct Toggle(bool);

impl Target for Toggle {
    fn handle(&mut self, request: Request) -> Result<Value, String> {
        // What was understood is written as the documented words.
        let written = serde_json::to_string(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_str::<Request>(&written).ok(), Some(request));
        self.0 = !self.0;
        if self.0 {
            Ok(json!({ "request": written }))
        } else {
            Err(written)
        }
    }
}

fn one_line(answer: &str) {
    assert!(answer.ends_with('\n') && answer.lines().count() == 1);
    let value: Value = serde_json::from_str(answer).expect("an answer is JSON");
    let object = value.as_object().expect("an answer is an object");
    assert_eq!(object.len(), 1);
    assert!(object.contains_key("ok") || object["error"].is_string());
}

fuzz_target!(|stream: &[u8]| {
    let Some((&piece, stream)) = stream.split_first() else {
        return;
    };
    let (mut lines, mut target) = (Lines::default(), Toggle::default());
    for piece in stream.chunks(usize::from(piece).max(1)) {
        let fine = lines.feed(piece, |line| {
            assert!(line.len() < LINE_MAX && !line.contains(&b'\n'));
            one_line(&answer(line, &mut target));
        });
        if !fine {
            return one_line(&too_long());
        }
    }
});
