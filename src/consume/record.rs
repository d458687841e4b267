//! librdkafka's message as the sink's own record.

use std::ffi::CStr;
use std::ptr;

use rdkafka::Message;
use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_resp_err_t};
use rdkafka::message::BorrowedMessage;

use crate::event::{Bytes, Headers, Position, Record};

pub fn from_message(message: &BorrowedMessage, position: Position) -> Record {
    Record {
        position,
        key: message.key().map(|key| Bytes(key.to_vec())),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers(message),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

/// The message's headers, byte for byte. The crate's own accessor panics on a name that is not UTF-8, and one
/// producer's mistake must not stop the sink.
fn headers(message: &BorrowedMessage) -> Headers {
    let mut found = Vec::new();
    let mut list = ptr::null_mut();
    // SAFETY: the message is valid while it is borrowed, and librdkafka owns the list.
    let has_headers = unsafe { rd_kafka_message_headers(message.ptr(), &mut list) };
    if has_headers != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Headers::default();
    }
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `list` is valid as above; past its end the call answers with an error and writes nothing.
        let got = unsafe { rd_kafka_header_get_all(list, found.len(), &mut name, &mut value, &mut size) };
        if got != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Headers(found);
        }
        // SAFETY: librdkafka ends every name with a NUL, and `value` is NULL or holds `size` bytes; both are
        // copied before the message goes.
        let header = unsafe {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (Bytes(CStr::from_ptr(name).to_bytes().to_vec()), value.map(|value| Bytes(value.to_vec())))
        };
        found.push(header);
    }
}
