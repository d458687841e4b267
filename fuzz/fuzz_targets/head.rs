//! How the edge reads a request's head and the chunks of its body, on hostile bytes.
#![no_main]

#[path = "../../src/serve/edge/chunked.rs"]
mod chunked;
#[path = "../../src/serve/edge/head.rs"]
mod head;
#[path = "../../src/serve/edge/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match head::parse(bytes, 16 << 10) {
        Ok(Some(head)) => {
            // What goes on reads as one head, and nothing follows it.
            let anew = head.written_anew("::1", true, 0);
            let again = head::parse(&anew, 20 << 10).expect("it is a head").expect("it is whole");
            assert_eq!((again.length, again.method, again.target), (anew.len(), head.method, head.target));
        }
        Ok(None) => {}
        Err(refusal) => assert!(refusal.status() >= 400 && refusal.answer().ends_with(b"\"}")),
    }
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let at_once = chunked::Decoder::default().decode(bytes, &mut whole);
    let mut decoder = chunked::Decoder::default();
    let used: Result<usize, _> = bytes.chunks(3).map(|piece| decoder.decode(piece, &mut pieces)).sum();
    assert_eq!((at_once, whole), (used, pieces));
});
