//! Request and response bodies of the inference protocols: nothing panics, and what is read survives being written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(defect) = lockgate_wire::fuzz::read_everything(bytes) {
        panic!("{defect}");
    }
});
